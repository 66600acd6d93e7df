"""The other end of one connection, and what an edge does with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.protocol import State

from patchbay.sockets import peer_address

if TYPE_CHECKING:
    from patchbay.websocket.server import WebSocketServer


class Session(Protocol):
    """What an edge does with one client. Both are called in the loop and must not block."""

    def received(self, message: str | bytes) -> None:
        """A whole message came: text, or bytes. An exception closes this connection (1011)."""

    def lost(self) -> None:
        """The connection is gone, whoever ended it. Called once; nothing is received after it."""


class Client:
    """The other end of one connection, as its `Session` sees it."""

    __slots__ = ("_closed", "_connection", "_invalid", "_server", "address", "origin", "path")

    def __init__(self, server: WebSocketServer, connection: ServerConnection) -> None:
        self._server = server
        self._connection = connection
        self._closed = False
        self._invalid = 0
        self.address = peer_address(connection.remote_address)
        """``10.0.0.7:40112`` or ``[fe80::1]:40112``."""
        request = connection.request
        self.path = "/" if request is None else request.path
        """The path and query that it asked for."""
        self.origin = None if request is None else request.headers.get("Origin")
        """The page that it comes from, as a browser says it."""

    @property
    def closing(self) -> bool:
        """Nothing more will be received, and what is sent now goes nowhere."""
        return self._closed or self._connection.protocol.state is not State.OPEN

    def send(self, message: str | bytes) -> None:
        """Send a message, in order: text as a text frame, bytes as a binary one. Never waits."""
        if not self.closing:
            broadcast((self._connection,), message)
            self._server.look_at(self)

    def identify(self) -> bool:
        """It has sent a valid message. Call it for each. False: all slots are taken, and this is a
        reserved connection still."""
        self._invalid = 0
        return self._server.identify(self._connection)

    def invalid(self) -> bool:
        """It has sent something invalid. With too many of those in a row it is closed (1008).

        Call it for each where the session goes on after one. Is the connection closing now?
        """
        self._invalid += 1
        if self._invalid >= self._server.limits.max_invalid and not self.closing:
            self._server.close_invalid(self)
        return self.closing

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Receive nothing more; what was sent still drains. Harmless when said twice."""
        if not self.closing:
            self._closed = True
            self._server.keep(self._connection.close(code, reason))

    def abort(self) -> None:
        """Cut the connection; what was not sent is thrown away."""
        self._closed = True
        self._connection.transport.abort()

    @property
    def waiting_bytes(self) -> int:
        """What was sent and the kernel has not taken yet."""
        return self._connection.transport.get_write_buffer_size()
