"""The TCP server behind every edge whose devices connect over TCP.

    socket -> Peer.data_received -> Session.received(bytes)    no stream, no task, no copy
    Session -> Peer.write(bytes) -> kernel                     buffered only when that is full

A `Server` makes one `Session` for each connection and owns its limits: how many connections, how
long one may be silent, how much may wait for a device that does not read. What the bytes mean is
the session's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self, cast, runtime_checkable

from patchbay.errors import Unavailable
from patchbay.log import Logger
from patchbay.sockets import find_dead, peer_address, why_not_listening

BACKLOG: Final = 1024
"""Connections that the kernel holds before we accept them: boards come back all at once."""

ENDED_GRACE_S: Final = 1.0
"""A peer that has said all (``printf ... | nc``) still gets answers for so long."""

STOP_GRACE_S: Final = 0.5
"""How long `Server.stop` lets written bytes drain."""

_SWEEPS_PER_TIMEOUT: Final = 8
_LONGEST_SWEEP_S: Final = 15.0


class Session(Protocol):
    """What an edge does with one connection. Both are called in the loop and must not block."""

    def received(self, data: bytes) -> None:
        """Bytes came. An exception closes this connection, and no other."""

    def lost(self) -> None:
        """The connection is gone, whoever ended it. Called once; nothing is received after it."""


@runtime_checkable
class HearsTheEnd(Protocol):
    """A `Session` that wants to know when its peer has said all."""

    def ended(self) -> None:
        """The peer has half-closed: nothing more will be received, and it still reads."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server puts up with. Times are seconds, sizes bytes."""

    max_connections: int = 10_000
    idle_timeout_s: float = 600.0
    """A peer that sends nothing for so long is closed. `math.inf`: never, it need not speak."""
    write_buffer_bytes: int = 262_144
    """A peer that lets more than this wait is dropped: it does not read what we write."""
    ended_grace_s: float = ENDED_GRACE_S
    """A peer that has said all still gets answers for so long. 0: it never gets any."""
    dead_after_s: int = 0
    """A peer that has vanished without a word is found within so long, also while nobody says
    anything (see `find_dead`). 0: only ``idle_timeout_s`` finds it."""
    send_buffer_bytes: int = 0
    """What the kernel may hold for one peer. 0: as it likes, up to megabytes."""


class Peer(asyncio.Protocol):
    """The other end of one connection, as its `Session` sees it."""

    __slots__ = (
        "_drained",
        "_ended",
        "_fd",
        "_heard_at",
        "_listens",
        "_loop",
        "_server",
        "_session",
        "_transport",
        "address",
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
        self.address = ""
        """``10.0.0.7:40112`` or ``[fe80::1]:40112``."""

    @property
    def closing(self) -> bool:
        """Nothing more will be received, and what is written now goes nowhere."""
        return self._transport is None or self._transport.is_closing()

    @property
    def waiting_bytes(self) -> int:
        """What was written and the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def on_drained(self, callback: Callable[[], None]) -> None:
        """Call back whenever the kernel has taken all that was waiting."""
        self._drained = callback
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

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
        """This peer will say nothing more and is not closed for it, nor for saying so; a power cut
        is noticed. One that has left looks like one that has said all: the next write finds it, or
        the kernel's probes do, after a minute and a half."""
        self._listens = True
        if self._transport is not None:
            notice_power_cuts(self._transport.get_extra_info("socket"))

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # as uvloop's is, but not by its class
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        limits = self._server.limits
        if limits.dead_after_s:
            find_dead(sock, limits.dead_after_s)
        if limits.send_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
        self._heard_at = self._loop.time()
        self.address = peer_address(transport.get_extra_info("peername"))
        self._session = self._server.admit(self)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        session = self._session
        if session is None:
            return
        try:
            session.received(data)
        except Exception as error:  # the outermost frame: a session's mistake ends its own peer
            self._server.crashed(self, error)

    def eof_received(self) -> bool:
        session = self._session
        if isinstance(session, HearsTheEnd):
            try:
                session.ended()
            except Exception as error:  # as above
                self._server.crashed(self, error)
        self._ended = True
        if self._listens:
            return True
        grace_s = self._server.limits.ended_grace_s
        if grace_s:
            self._loop.call_later(grace_s, self.close)
        return bool(grace_s)

    def resume_writing(self) -> None:
        if self._drained is not None and not self.closing:
            self._drained()

    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session, self._transport = self._session, None, None
        self._drained = None
        self._server.forget(self)
        if session is not None:
            try:
                session.lost()
            except Exception as error:  # as above
                self._server.crashed(self, error)

    # What the server asks

    def hold(self, held: bool) -> None:
        """Stop or go on reading."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if held:
            transport.pause_reading()
        else:
            self._heard_at = self._loop.time()  # it could not be heard meanwhile
            transport.resume_reading()

    def silent_since(self, moment: float) -> bool:
        """Has it said nothing since ``moment`` on the loop's clock?"""
        return self._heard_at < moment and not self._listens

    def has_left(self) -> bool:
        """Was the connection reset after its peer had said all? No loop looks for that then."""
        if not self._ended or self._transport is None or self._transport.is_closing():
            return False
        sock = self._transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


class Server:
    """A listening TCP port. ``async with``, or `start` and `stop`."""

    def __init__(
        self,
        make_session: Callable[[Peer], Session],
        host: str,
        port: int,
        limits: Limits,
        log: Logger,
    ) -> None:
        self.limits = limits
        self.refused = 0
        """Connections closed at once, over ``max_connections``."""
        self.dropped = 0
        """Peers dropped because they do not read."""
        self.timed_out = 0
        """Peers closed because they said nothing."""
        self.crashes = 0
        """Exceptions out of sessions."""
        self.paused = False
        self._make_session = make_session
        self._host = host
        self._port = port
        self._log = log
        self._peers: set[Peer] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._stopped = False
        self._empty = asyncio.Event()
        self._next_refusal_said_at = 0.0

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
        loop = asyncio.get_running_loop()
        self._stopped = False
        try:
            self._server = await loop.create_server(
                lambda: Peer(self, loop),
                self._host,
                self._port,
                backlog=BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise Unavailable(why_not_listening(self._host, self._port, error)) from error
        self._sweeper = asyncio.create_task(self._sweep(), name=f"sweeper of port {self.port}")
        self._log.info("listening", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Accept nothing more, let what was written drain, and close. Takes less than a second."""
        if self._server is None:
            return
        self._stopped = True
        self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        for peer in list(self._peers):
            peer.close()
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._drained()
        except TimeoutError:
            for peer in list(self._peers):
                peer.abort()
            await self._drained()
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
        """Peers that are connected now."""
        return len(self._peers)

    def pause(self) -> None:
        """Read from no peer, present or future. The kernel's buffers fill and devices wait.

        What a new peer sends with its first packet may still come.
        """
        if not self.paused:
            self.paused = True
            for peer in self._peers:
                peer.hold(True)

    def resume(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            for peer in self._peers:
                peer.hold(False)

    # What peers ask

    def admit(self, peer: Peer) -> Session | None:
        """A session for a new peer, or None when there is no room and it was closed."""
        if len(self._peers) >= self.limits.max_connections or self._stopped:
            self._refuse(peer)
            return None
        self._peers.add(peer)
        if self.paused:  # not at once: uvloop starts to read after connection_made, whatever we say
            asyncio.get_running_loop().call_soon(self._hold_newcomer, peer)
        try:
            return self._make_session(peer)
        except Exception as error:  # the outermost frame, as in `Peer.data_received`
            self.crashed(peer, error)
            return None

    def forget(self, peer: Peer) -> None:
        """The peer's connection is gone."""
        self._peers.discard(peer)
        if not self._peers:
            self._empty.set()

    def drop(self, peer: Peer) -> None:
        """The peer does not read what we write."""
        self.dropped += 1
        self._log.warning("peer dropped: it does not read", peer=peer.address)
        peer.abort()

    def crashed(self, peer: Peer, error: Exception) -> None:
        """A session raised: log it and close its connection."""
        self.crashes += 1
        self._log.error("session failed", peer=peer.address, exc_info=error)
        peer.close()

    # Details

    def _hold_newcomer(self, peer: Peer) -> None:
        if self.paused:
            peer.hold(True)

    def _refuse(self, peer: Peer) -> None:
        self.refused += 1
        peer.abort()
        now = time.monotonic()
        if now >= self._next_refusal_said_at:  # a storm of devices must not become one of lines
            self._next_refusal_said_at = now + 1.0
            self._log.warning("connection refused: too many", peer=peer.address, all=self.refused)

    async def _drained(self) -> None:
        while self._peers:
            self._empty.clear()
            await self._empty.wait()

    async def _sweep(self) -> None:
        """Close who was silent for too long, or has left unseen; one task for all, since a timer
        each costs memory."""
        loop = asyncio.get_running_loop()
        timeout_s = self.limits.idle_timeout_s
        while True:
            await asyncio.sleep(min(timeout_s / _SWEEPS_PER_TIMEOUT, _LONGEST_SWEEP_S))
            for peer in [one for one in self._peers if one.has_left()]:
                peer.abort()
            if self.paused:
                continue
            moment = loop.time() - timeout_s
            for peer in [one for one in self._peers if one.silent_since(moment)]:
                if peer.closing:  # it was closed a while ago, and does not take the rest
                    peer.abort()
                else:
                    self.timed_out += 1
                    self._log.info("peer closed: silent", peer=peer.address)
                    peer.close()


def notice_power_cuts(connection: socket.socket) -> None:
    """A device without power ends no connection: ask it after half a minute of silence."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
