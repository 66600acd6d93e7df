"""One connection: bytes from the transport to its session, and from the session to the kernel."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from patchbay.net.feed import Feed
from patchbay.net.session import HearsTheEnd, Session
from patchbay.sockets import (
    find_dead,
    notice_power_cuts,
    peer_address,
    unacknowledged_bytes,
)

if TYPE_CHECKING:
    from patchbay.net.server import Server


class Peer(asyncio.BufferedProtocol):
    """The other end of one connection, as its `Session` sees it."""

    __slots__ = (
        "_drained",
        "_ended",
        "_fd",
        "_feed",
        "_heard_at",
        "_invalid",
        "_listens",
        "_loop",
        "_server",
        "_session",
        "_transport",
        "address",
        "host",
    )

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._heard_at = 0.0
        self._drained: Callable[[], None] | None = None
        self._ended = False
        self._listens = False
        self._feed: Feed | None = None
        self._invalid = 0
        self.address = ""
        """``10.0.0.7:40112`` or ``[fe80::1]:40112``."""
        self.host = ""
        """The address without the port."""

    @property
    def closing(self) -> bool:
        """Nothing more will be received, and what is written now goes nowhere."""
        return self._transport is None or self._transport.is_closing()

    @property
    def waiting_bytes(self) -> int:
        """What was written and the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def unacknowledged_bytes(self) -> int:
        """What the kernel holds and the peer's machine has not acknowledged yet."""
        if self.closing:
            return 0
        return unacknowledged_bytes(self._fd)

    @property
    def has_more(self) -> bool:
        """It has sent more than the session was given yet."""
        return self._feed is not None and self._feed.waiting > 0

    def on_drained(self, callback: Callable[[], None]) -> None:
        """Call back whenever the kernel has taken all that was waiting."""
        self._drained = callback
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    def identify(self) -> None:
        """It has sent a valid frame. Call it for each: it keeps its slot before those that have
        not, and before those that have been silent for longer."""
        self._server.identify(self)

    def invalid(self) -> bool:
        """It has sent something invalid. After `Limits.max_invalid` of those it is closed.

        Call it for each where the protocol goes on after one. Is the connection closing now?
        """
        self._invalid += 1
        if self._invalid >= self._server.limits.max_invalid and not self.closing:
            self._server.close_invalid(self)
        return self.closing

    def write(self, data: bytes) -> bool:
        """Send bytes, in order. True if the kernel has taken all that was ever written.

        False: a part waits in our buffer, or the peer is gone. Join what is to go out together;
        each call is a system call.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if not transport.get_write_buffer_size():
            # uvloop would queue this until the end of the loop's turn and could not tell whether
            # the kernel took it. The descriptor is ours as long as the transport is not closing.
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:  # reset by the peer
                transport.abort()
                return False
            if sent == len(data):
                return True
            data = data[sent:]
        transport.write(data)
        if transport.get_write_buffer_size() > self._server.limits.write_buffer_bytes:
            self._server.drop(self)
        return False

    def close(self) -> None:
        """Receive nothing more; what was written still drains. Harmless when said twice."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent is thrown away."""
        if self._transport is not None:
            self._transport.abort()

    def only_listens(self) -> None:
        """This peer will send nothing more and is not closed for it, nor for half-closing. One that
        has left looks like one that has half-closed: the next write finds it, or the kernel's
        probes do, after a minute."""
        self._listens = True

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # as uvloop's is, but not by its class
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        limits = self._server.limits
        if limits.dead_after_s:
            find_dead(sock, limits.dead_after_s)
        else:
            notice_power_cuts(sock)
        if limits.send_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
        self._heard_at = self._loop.time()
        name = transport.get_extra_info("peername")
        self.address = peer_address(name)
        self.host = str(name[0]) if isinstance(name, tuple) and name else ""
        self._feed = Feed(self._server.turns, transport, self._deliver)
        self._session = self._server.admit(self)

    def serve(self, session: Session | None) -> None:
        """It has waited for a slot, and has one now."""
        self._session = session
        self.hold(False)
        self._end_if_all_is_read()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes: one buffer for all peers, since it is copied at once."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._server.buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._feed is not None:
            self._feed.received(data)

    def _deliver(self, data: bytes) -> None:
        session = self._session
        if session is None:
            return
        self._heard_at = self._loop.time()
        try:
            session.received(data)
        except Exception as error:  # the outermost frame: a session's mistake ends its own peer
            self._server.crashed(self, error)
        if self._ended:
            self._end_if_all_is_read()

    def eof_received(self) -> bool:
        if not self._ended:
            self._ended = True
            self._end_if_all_is_read()
        return True

    def _end_if_all_is_read(self) -> None:
        """It has half-closed, and its session has all that it has sent: tell it, and close soon."""
        session = self._session
        if not self._ended or session is None or self.closing:
            return
        if self._feed is not None and self._feed.waiting:
            return
        if isinstance(session, HearsTheEnd):
            try:
                session.ended()
            except Exception as error:  # as above
                self._server.crashed(self, error)
        if self._listens:
            return
        grace_s = self._server.limits.ended_grace_s
        if grace_s:
            self._loop.call_later(grace_s, self.close)
        else:
            self.close()

    def resume_writing(self) -> None:
        if self._drained is not None and not self.closing:
            try:
                self._drained()
            except Exception as error:  # as above
                self._server.crashed(self, error)

    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session, self._transport = self._session, None, None
        self._drained = self._feed = None
        self._server.forget(self)
        if session is not None:
            try:
                session.lost()
            except Exception as error:  # as above
                self._server.crashed(self, error)

    # What the server asks

    def hold(self, held: bool) -> None:
        """Stop or go on reading."""
        if not held:
            self._heard_at = self._loop.time()  # it could not be heard meanwhile
        if self._feed is not None:
            self._feed.hold(held)

    def silent_since(self, moment: float) -> bool:
        """Has it said nothing since ``moment`` on the loop's clock?"""
        return self._heard_at < moment and not self._listens

    def has_left(self) -> bool:
        """Was the connection reset after its peer had said all? No loop looks for that then."""
        if not self._ended or self._transport is None or self._transport.is_closing():
            return False
        sock = self._transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
