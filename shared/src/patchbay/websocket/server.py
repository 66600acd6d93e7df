"""The WebSocket server behind every edge that browsers, GUIs or dashboards connect to.

    GET /path                 a page, if there is one of that path
    GET /path, Upgrade        Client + Session
    text or binary message -> Session.received(message)
    Session -> Client.send(message) -> kernel      never waits

As `patchbay.net` does for TCP, a `WebSocketServer` makes one `Session` for each connection and owns
its limits. A client that does not read is dropped when too much waits for it, and holds nobody up.
Nor does one that never says what it wants: of too many such the oldest is cut. When all slots are
taken, `ClientSlots` says who is served.
The protocol itself (RFC 6455) is the websockets library's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from patchbay.errors import Unavailable
from patchbay.hosts import ANY, Hosts
from patchbay.log import Logger
from patchbay.net.feed import Feed, Turns
from patchbay.sockets import why_not_listening
from patchbay.tasks import Tasks
from patchbay.websocket.client import Client, Session
from patchbay.websocket.limits import Limits, Page
from patchbay.websocket.slots import ClientSlots, Place

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011

STOP_GRACE_S: Final = 0.4
"""How long `WebSocketServer.stop` waits for clients to close, too."""

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a client may take to answer our close before the connection is cut."""

_SAID_EACH: Final = 100
"""Of so many connections that are cut one is logged: whoever opens thousands fills no disk."""

_LIBRARY = logging.getLogger("patchbay.websocket.library")
_LIBRARY.setLevel(logging.CRITICAL)  # it logs each port scan with a traceback; we say what counts


class WebSocketServer:
    """Listens on one port and gives each connection a session. Use it as a context manager.

    ``pages`` answers a plain GET by its path. ``origins``: whose pages may connect; None, or `ANY`
    among them: any. A client without an origin is no browser, and may connect. ``hosts``: under
    which names of ours clients may ask; None: any.
    """

    def __init__(
        self,
        make_session: Callable[[Client], Session],
        *,
        host: str,
        port: int,
        limits: Limits,
        log: Logger,
        pages: Mapping[str, Page] | None = None,
        origins: Sequence[str] | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self._make_session = make_session
        self._host = host
        self._port = port
        self.limits = limits
        self._log = log
        self._pages = dict(pages or {})
        self._origins = None if origins is None or ANY in origins else frozenset(origins)
        self._hosts = hosts
        self._server: Server | None = None
        self._opening: dict[ServerConnection, None] = {}
        """Who has connected and is no WebSocket yet, in the order in which they came."""
        self._slots: ClientSlots[ServerConnection] = ClientSlots(
            limits.max_connections,
            share=limits.max_per_address,
            reserved=limits.reserved,
            reserved_s=limits.reserved_s,
        )
        """Whose handshake we have agreed to, until the connection is gone."""
        self._exempt = {"127.0.0.1", "::1", *limits.trusted_proxies}
        self._admitted: set[ServerConnection] = set()
        self._clients: set[Client] = set()
        self._farewells = Tasks("websocket", self._close_failed)
        self.refused = 0
        """Connections that there was no room for."""
        self.evicted = 0
        """Clients that gave way to others."""
        self.dropped = 0
        """Clients that did not read."""
        self.hurried = 0
        """Connections that were cut before they had finished their handshake, to make room."""
        self.invalid = 0
        """Clients closed because they sent too much that is invalid."""
        self.turns = Turns()
        self.crashes = 0
        """Sessions that raised."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises Unavailable with one clear line if the port cannot be had."""
        limits = self.limits
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                process_request=self._answer,
                compression=None,  # messages are small
                open_timeout=limits.open_timeout_s,
                ping_interval=limits.ping_interval_s,
                ping_timeout=limits.ping_timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=limits.max_message_bytes,
                server_header=None,
                logger=_LIBRARY,
                reuse_address=True,
                create_connection=_known_to(self),
            )
        except OSError as error:
            raise Unavailable(why_not_listening(self._host, self._port, error)) from error
        self._log.info("listening", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Accept nothing more and close every client with 1001. Takes less than a second."""
        if self._server is None:
            return
        self._server.close(code=GOING_AWAY)
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._server.wait_closed()
        except TimeoutError:
            for connection in (*self._opening, *self._admitted):
                connection.transport.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_GRACE_S):
                    await self._server.wait_closed()
        self._server = None

    @property
    def port(self) -> int:
        """The port that it listens on: the real one when it was asked for 0."""
        if self._server is None or not self._server.sockets:
            return self._port
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._clients)

    def broadcast(self, message: str | bytes, clients: Iterable[Client] | None = None) -> None:
        """Send one message to all clients, or to these: made once, written to each."""
        to = [one for one in (self._clients if clients is None else clients) if not one.closing]
        broadcast([one._connection for one in to], message)
        for client in to:
            self.look_at(client)

    # What clients ask

    def look_at(self, client: Client) -> None:
        """Drop the client if too much waits for it."""
        if client.waiting_bytes > self.limits.write_buffer_bytes:
            self.dropped += 1
            self._log.warning("client dropped: it does not read", peer=client.address)
            client.abort()

    def close_invalid(self, client: Client) -> None:
        """The client has sent too much that is invalid."""
        self.invalid += 1
        self._log.warning(
            "client closed: too much invalid input", peer=client.address, all=self.invalid
        )
        client.close(POLICY_VIOLATION, "too much invalid input")

    def keep(self, farewell: Coroutine[Any, Any, None]) -> None:
        """See a close through."""
        self._farewells.spawn(farewell, "close")

    def came(self, connection: ServerConnection) -> None:
        """Somebody has connected; it may be that he never says a word."""
        self._opening[connection] = None
        if len(self._opening) > self.limits.max_opening:
            oldest = next(iter(self._opening))
            del self._opening[oldest]
            oldest.transport.abort()
            self.hurried += 1
            if self.hurried % _SAID_EACH == 1:
                self._log.warning("connections cut: too many say nothing", all=self.hurried)

    def went(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self._opening.pop(connection, None)
        self._admitted.discard(connection)
        self._slots.leave(connection)

    def identify(self, connection: ServerConnection) -> bool:
        """The client has sent a valid message. Does it have a slot?"""
        self._evict(self._slots.identify(connection))
        return self._slots.place(connection) is not Place.RESERVED

    # Details

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to what is no WebSocket; None: go on with the handshake."""
        if self._hosts is not None and not self._hosts.know(request.headers.get_all("Host")):
            return _refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "The server is not known by this name; its setting hosts can say that it is.",
            )
        if not self._may_connect(request):
            return _refusal(HTTPStatus.FORBIDDEN, "Pages of this origin may not connect.")
        if request.headers.get("Upgrade") is None:
            page = self._pages.get(request.path.partition("?")[0])
            if page is not None:
                return _response(HTTPStatus.OK, page)
            if self._pages:
                return _refusal(HTTPStatus.NOT_FOUND, "There is no such page.")
            return _refusal(HTTPStatus.UPGRADE_REQUIRED, "This is a WebSocket.")
        if connection not in self._opening:  # it is gone already
            return None
        address = str((connection.remote_address or ("",))[0])
        host = "" if address in self._exempt else address
        now = asyncio.get_running_loop().time()
        place, victim = self._slots.arrive(connection, host, now)
        self._evict(victim)
        if place is Place.NONE:
            self.refused += 1
            if self.refused % _SAID_EACH == 1:
                self._log.warning("connection refused: too many", all=self.refused)
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.")
        del self._opening[connection]
        self._admitted.add(connection)
        return None

    def _may_connect(self, request: Request) -> bool:
        if self._origins is None or request.headers.get("Upgrade") is None:
            return True
        return self._origins.issuperset(request.headers.get_all("Origin"))

    def _evict(self, victim: ServerConnection | None) -> None:
        if victim is None:
            return
        self.evicted += 1
        if self.evicted % _SAID_EACH == 1:
            self._log.warning("client closed to make room", all=self.evicted)
        victim.transport.abort()

    async def _serve(self, connection: ServerConnection) -> None:
        client = Client(self, connection)
        self._clients.add(client)
        session: Session | None = None
        try:
            session = self._make_session(client)
            async for message in connection:
                if client.closing:
                    break
                session.received(message)
        except ConnectionClosed:
            pass  # without a farewell, or after nonsense: the library has answered
        except Exception as error:  # the outermost frame: a session's mistake ends its own client
            self._crashed(client, error)
            await connection.close(INTERNAL_ERROR)
        finally:
            self._clients.discard(client)
            if session is not None:
                try:
                    session.lost()
                except Exception as error:  # as above
                    self._crashed(client, error)

    def _close_failed(self, error: Exception, _name: str) -> None:
        self.crashes += 1
        self._log.error("close failed", exc_info=error)

    def _crashed(self, client: Client, error: Exception) -> None:
        """Log and count a session that raised."""
        self.crashes += 1
        self._log.error("session failed", peer=client.address, exc_info=error)


def _known_to(house: WebSocketServer) -> type[ServerConnection]:
    """Connections that say to the server when they begin and end: the library tells only of those
    that have finished their handshake. What is received goes through a `Feed`."""

    class Connection(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._feed = Feed(house.turns, self.transport, super().data_received)
            # Messages wait for the session: the rest of what was received waits as well.
            self.recv_messages.pause = lambda: self._feed.hold(True)
            self.recv_messages.resume = lambda: self._feed.hold(False)
            house.came(self)

        def data_received(self, data: bytes) -> None:
            self._feed.received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            house.went(self)
            super().connection_lost(exc)

    return Connection


def _response(status: HTTPStatus, page: Page) -> Response:
    headers = Headers(
        {
            "Content-Type": page.content_type,
            "Content-Length": str(len(page.body)),
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **page.headers,
        }
    )
    return Response(status.value, status.phrase, headers, page.body)


def _refusal(status: HTTPStatus, text: str) -> Response:
    headers = {"Upgrade": "websocket"} if status is HTTPStatus.UPGRADE_REQUIRED else {}
    return _response(status, Page("text/plain; charset=utf-8", f"{text}\n".encode(), headers))
