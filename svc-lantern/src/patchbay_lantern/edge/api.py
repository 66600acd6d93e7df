"""The API edge: people and programs command the lanterns by HTTP.

A call is answered after the domain has answered: then it is persisted, and the edges are being
told. When the domain does not answer in time it is 503, and the command does not act later: the
broker throws it away, and the domain refuses what has waited.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import web

from patchbay.bus import Bus, Message
from patchbay.errors import Rejected, Unavailable
from patchbay.messages import Failure, decode, encode
from patchbay.net import BACKLOG
from patchbay.runtime import Unit
from patchbay.sockets import why_not_listening
from patchbay_lantern.census import Census
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.messages import ALL, SERVICE, SET, Set, State
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire import http
from patchbay_lantern.wire.errors import WireError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
METHODS: Final = "GET, HEAD, OPTIONS, POST"
PREFLIGHT_S: Final = 600
"""How long a browser may remember that it may ask."""

STOP_GRACE_S: Final = 1.0
"""How long calls in hand have when the unit stops."""

LINGER_S: Final = 2.0
"""How long the rest of a body that was refused unread is listened to: a client that is cut off
while it sends may not see the answer."""

_LIBRARY = logging.getLogger("patchbay_lantern.aiohttp")
_LIBRARY.setLevel(logging.CRITICAL)  # it logs each port scan with a traceback; we say what counts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Done(msgspec.Struct):
    """What the domain answers."""

    ok: bool
    command: str = ""
    value: str | None = None
    lanterns: int = 0
    error: Failure | None = None


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


async def run(unit: Unit) -> None:
    """The unit ``lantern.api``."""
    settings = unit.settings(LanternSettings)
    api = Api(unit.bus, settings, unit.config.port(settings.page_port))
    port = unit.config.port(settings.api_port)
    async with ApiServer(api, unit.listen_host, port) as server:
        unit.log.info("listening", host=unit.listen_host, port=server.port)
        unit.info_sources["calls"] = lambda: api.calls
        unit.info_sources["refused"] = lambda: api.refused
        unit.info_sources["connections"] = lambda: server.connections
        await unit.serving()


class Api:
    """Answers requests. ``page_port``: where our own page is, which may call from a browser."""

    def __init__(
        self,
        bus: Bus,
        settings: LanternSettings,
        page_port: int,
        registry: Registry = COMMANDS,
    ) -> None:
        self.calls = 0
        """Commands that were obeyed."""
        self.refused = 0
        """Requests that were answered with an error."""
        self.settings = settings
        self._bus = bus
        self._page_port = page_port
        self._registry = registry
        self._state: State | None = None
        self._census = Census(bus, state=self._stated)
        self._log = structlog.get_logger("api").bind(instance=bus.client_id)

    def application(self) -> web.Application:
        """The application that aiohttp serves."""
        application = web.Application(client_max_size=http.MAX_BODY, middlewares=[self._around])
        application.router.add_get("/", self._show)
        application.router.add_post("/", self._call)
        application.router.add_route("OPTIONS", "/", self._preflight)
        return application

    # Requests

    async def _show(self, request: web.Request) -> web.Response:
        state = self._state
        if state is None or not self._bus.connected:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "cut off from the bus")
        shown = {key: getattr(state, key) for key in ("on", "color", "since", "by")}
        return _json(HTTPStatus.OK, encode({**shown, "lanterns": self._census.lanterns}) + b"\n")

    async def _call(self, request: web.Request) -> web.Response:
        origin = request.headers.get("Origin")
        if origin is not None and not self._may_call(origin, request.host):
            why = "pages of this origin may not call"
            raise Refusal(HTTPStatus.FORBIDDEN, "forbidden_origin", why)
        try:
            call = http.decode(await self._body(request))
            order = self._registry.order(call.command, call.value)
        except WireError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, error.code, str(error)) from error
        except Rejected as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, error.code, error.message) from error
        body = Set(command=order.command, value=order.value, by=f"api {request.remote}"[:64])
        done = await self._ask(body)
        self.calls += 1
        return _json(HTTPStatus.OK, http.encode_done(done.command, done.value, done.lanterns))

    async def _body(self, request: web.Request) -> bytes:
        """The whole body. Raises `Refusal` when it does not come, or not as it was announced."""
        within_s = self.settings.request_s
        try:
            async with asyncio.timeout(within_s):
                return await request.read()
        except TimeoutError as error:
            why = f"the body has not come within {within_s:g} s"
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", why) from error
        except (web.RequestPayloadError, ConnectionError) as error:
            why = "the body is broken, or was not sent whole"
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad_request", why) from error

    async def _preflight(self, request: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Allow": METHODS})

    async def _ask(self, body: Set) -> _Done:
        """Have the domain obey. Raises `Refusal`."""
        within_s = self.settings.answer_s
        try:
            payload = await self._bus.request(
                self._bus.topics.command(SERVICE, ALL, SET),
                encode(body),
                timeout_s=within_s,
                expiry_s=math.ceil(within_s),
            )
        except (TimeoutError, Unavailable) as error:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "unavailable",
                f"the lantern domain has not answered within {within_s:g} s",
            ) from error
        done = msgspec.json.decode(payload, type=_Done)
        if done.ok:
            return done
        failure = done.error or Failure("refused", "without a reason")
        late = failure.code == "too_late"
        status = HTTPStatus.SERVICE_UNAVAILABLE if late else HTTPStatus.BAD_REQUEST
        raise Refusal(status, failure.code, failure.message)

    def _stated(self, message: Message) -> None:
        """``all/state`` has come."""
        try:
            self._state = decode(msgspec.json.Decoder(State), message.payload)
        except msgspec.DecodeError as error:
            self._log.error("no state", topic=message.topic, error=str(error))

    # Around every request

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error is JSON, and browsers hear whether their page may read the answer."""
        try:
            response = await handler(request)
        except Refusal as refusal:
            response = self._refuse(refusal.status, refusal.code, str(refusal))
            if refusal.status is HTTPStatus.REQUEST_TIMEOUT:
                response.force_close()  # what still comes is no request
        except web.HTTPRequestEntityTooLarge:
            why = f"a body has at most {http.MAX_BODY} bytes"
            response = self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", why)
        except web.HTTPMethodNotAllowed:
            why = f"there are {METHODS}"
            response = self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", why)
            response.headers["Allow"] = METHODS
        except web.HTTPNotFound:
            response = self._refuse(HTTPStatus.NOT_FOUND, "not_found", "there is only /")
        except web.HTTPException as error:
            response = self._refuse(HTTPStatus(error.status), "bad_request", error.reason)
        except Exception as error:  # the outermost frame of a request
            self._log.error("request failed", exc_info=error)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            response = self._refuse(status, "internal_error", "this is our mistake")
        self._allow(request, response)
        return response

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> web.Response:
        self.refused += 1
        return _json(status, http.encode_error(code, message))

    def _allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say, as CORS wants it, that the page which asks may read this."""
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin is None or not self._may_call(origin, request.host):
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = METHODS
            response.headers["Access-Control-Allow-Headers"] = "Content-Type"
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)

    def _may_call(self, origin: str, host: str) -> bool:
        """Our own page may, on the host that it was asked from, and those of ``origins``.

        A browser calls for any page that somebody has open: without this each could command.
        """
        if origin in self.settings.origins:
            return True
        if not origin.isascii():  # no browser says so, and no header of ours may
            return False
        try:
            page, ours = urlsplit(origin), urlsplit(f"//{host}")
            port = page.port or DEFAULT_PORTS.get(page.scheme)  # a browser leaves these out
            return page.hostname == ours.hostname and port == self._page_port
        except ValueError:
            return False


class ApiServer:
    """The listening port of the API. ``async with``; raises Unavailable if it cannot be had."""

    def __init__(self, api: Api, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._most = api.settings.max_api_connections
        self._server: asyncio.Server | None = None
        self._runner = web.AppRunner(
            api.application(),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=api.settings.request_s,  # it also holds before the first request
            lingering_time=LINGER_S,
            logger=_LIBRARY,
            shutdown_timeout=STOP_GRACE_S,
        )

    async def __aenter__(self) -> ApiServer:
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
        """What answers a new connection."""
        server = self._runner.server
        return Full() if server is None or self.connections >= self._most else server()


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


def _json(status: HTTPStatus, body: bytes) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )
