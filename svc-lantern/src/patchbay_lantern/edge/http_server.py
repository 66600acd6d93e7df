"""The HTTP server under the API: one port, its connections, and what is no HTTP.

The protocol itself is the aiohttp library's. What its parser refuses never reaches the application;
that is answered here, in the form of all other errors.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from aiohttp import web

from patchbay.errors import Unavailable
from patchbay.net import BACKLOG
from patchbay.sockets import why_not_listening
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire import http

STOP_GRACE_S: Final = 1.0
"""How long calls in hand have when the unit stops."""

LINGER_S: Final = 2.0
"""How long the rest of a body that was refused unread is listened to: a client that is cut off
while it sends may not see the answer."""

SEND_BUFFER_BYTES: Final = 65_536
"""Answers that the kernel may hold for a client that does not read them, and as many we: hundreds.
With more, its next request waits, for `request_s` at most."""

_LIBRARY = logging.getLogger("patchbay_lantern.aiohttp")
_LIBRARY.setLevel(logging.CRITICAL)  # it logs each port scan with a traceback; we say what counts


class Response(web.Response):
    """An answer that does not tell which software gave it, and of which version."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


class Answering(Protocol):
    """What answers the requests of an `HttpServer`."""

    settings: LanternSettings

    def application(self) -> web.Application:
        """The application that aiohttp serves."""

    def refuse(self, status: HTTPStatus, code: str, message: str, id: str = "") -> web.Response:
        """An error as its answer."""


class HttpServer:
    """The listening port. ``async with``; raises Unavailable if it cannot be had."""

    def __init__(self, answering: Answering, host: str, port: int) -> None:
        self._answering = answering
        self._host = host
        self._port = port
        self._most = answering.settings.max_api_connections
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        """Those without a whole request, who have waited longest first."""
        self._runner = web.AppRunner(
            answering.application(), handle_signals=False, shutdown_timeout=STOP_GRACE_S
        )

    async def __aenter__(self) -> HttpServer:
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection, self._host, self._port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            await self._runner.cleanup()
            raise Unavailable(why_not_listening(self._host, self._port, error)) from error
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that it listens on: the real one when it was asked for 0."""
        if self._server is None:
            return self._port
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    def _connection(self) -> asyncio.Protocol:
        """What answers a new connection. If there are too many, the one is closed that has been
        without a whole request for longest: a caller sends its own at once."""
        server = self._runner.server
        if server is None:
            return Full()
        if len(self._connections) >= self._most:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return Full()
            self.forget(oldest)
            asyncio.get_running_loop().call_soon(oldest.cut)  # it may have no transport yet
        connection = Connection(server, self._answering, self)
        self._connections.add(connection)
        self._idle[connection] = None
        return connection

    def idle(self, connection: Connection) -> None:
        """It has been answered, and may send another request."""
        if connection in self._connections:
            self._idle.pop(connection, None)
            self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """Its request is there, and will be answered."""
        self._idle.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)


class Connection(web.RequestHandler):
    """One connection. What the library would refuse in words of its own is refused in ours."""

    __slots__ = ("_answering", "_house")

    def __init__(self, server: web.Server, answering: Answering, house: HttpServer) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=_LIBRARY,
            keepalive_timeout=answering.settings.request_s,  # it also holds before the first
            lingering_time=LINGER_S,
            logger=_LIBRARY,
        )
        self._answering = answering
        self._house = house

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().connection_made(transport)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=SEND_BUFFER_BYTES)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._house.forget(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it, for another."""
        if self.transport is not None:
            self.transport.abort()

    def whole(self) -> None:
        """Its request is there, and will be answered."""
        self._house.busy(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refused, after which the connection ends."""
        super().handle_error(request, status, exc, message)  # raises if it is too late to answer
        said = (message or "").partition(":")[0]  # after it come the client's own bytes
        response = self._answering.refuse(HTTPStatus(status), "bad_request", f"not HTTP: {said}")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, in JSON also where the library answered before the application."""
        if isinstance(resp, web.HTTPException):
            resp = self._answering.refuse(HTTPStatus(resp.status), "bad_request", resp.reason)
        self._house.idle(self)  # from here on only the client's reading is waited for
        try:
            async with asyncio.timeout(self._answering.settings.request_s):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.cut()
            return resp, True


class Full(asyncio.Protocol):
    """A connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so, and end it."""
        body = http.encode_error("unavailable", "too many connections")
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        )
        writable = cast("asyncio.WriteTransport", transport)
        writable.write(head.encode() + body)
        writable.close()
