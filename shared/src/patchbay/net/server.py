"""A listening port: who is let in, who is closed for silence, and how all of them end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from patchbay.errors import Unavailable
from patchbay.log import Logger
from patchbay.net.feed import READ_BYTES, Turns
from patchbay.net.limits import Limits
from patchbay.net.peer import Peer
from patchbay.net.session import Session
from patchbay.net.slots import Slots, Verdict
from patchbay.sockets import why_not_listening
from patchbay.tasks import Tasks

BACKLOG: Final = 1024
"""Connections that the kernel holds before we accept them: boards come back all at once."""

STOP_GRACE_S: Final = 0.5
"""How long `Server.stop` lets written bytes drain."""

_SWEEPS_PER_TIMEOUT: Final = 8
_LONGEST_SWEEP_S: Final = 15.0


class Server:
    """A listening TCP port. ``async with``, or `start` and `stop`."""

    def __init__(
        self,
        make_session: Callable[[Peer], Session],
        host: str,
        port: int,
        limits: Limits,
        log: Logger,
        tasks: Tasks | None = None,
    ) -> None:
        """``tasks``: those of the unit; None: a failure of ours is logged, and that is all."""
        self.limits = limits
        self.refused = 0
        """Connections closed at once: all slots were taken, and too many waited for one."""
        self.evicted = 0
        """Connections closed to make room for others."""
        self.dropped = 0
        """Peers dropped because they do not read."""
        self.timed_out = 0
        """Peers closed because they said nothing."""
        self.invalid = 0
        """Peers closed because they sent too much that is invalid."""
        self.crashes = 0
        """Exceptions out of sessions."""
        self.paused = False
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.turns = Turns()
        self._make_session = make_session
        self._host = host
        self._port = port
        self._log = log
        self._tasks = tasks or Tasks("server", self._task_failed)
        self._peers: set[Peer] = set()
        self._slots: Slots[Peer] = Slots(
            limits.max_connections,
            share=limits.max_per_address,
            speakers=limits.speakers,
            max_waiting=limits.max_waiting,
        )
        self._exempt = {"127.0.0.1", "::1", *limits.trusted_proxies}
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._stopped = False
        self._empty = asyncio.Event()
        self._next_log_at = 0.0

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
        self._sweeper = self._tasks.spawn(self._sweep(), f"sweeper of port {self.port}")
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
        """Peers that are served now."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """Peers that wait for a slot."""
        return self._slots.waiting

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
                if not self._slots.is_waiting(peer):
                    peer.hold(False)

    # What peers ask

    def admit(self, peer: Peer) -> Session | None:
        """A session for a new peer; None when it has to wait for a slot, or was closed."""
        if self._stopped:
            self._refuse(peer)
            return None
        verdict, victim = self._slots.arrive(peer, "" if peer.host in self._exempt else peer.host)
        if victim is not None:
            self.evicted += 1
            self._log_now_and_then("connection closed to make room", victim, self.evicted)
            victim.abort()
        if verdict is Verdict.REFUSE:
            self._refuse(peer)
            return None
        self._peers.add(peer)
        waits = verdict is Verdict.WAIT
        if waits or self.paused:
            # And again: uvloop starts to read after connection_made, whatever we say.
            peer.hold(True)
            asyncio.get_running_loop().call_soon(self._hold_newcomer, peer)
        return None if waits else self._session(peer)

    def identify(self, peer: Peer) -> None:
        """The peer has sent a valid frame."""
        self._slots.identify(peer)

    def forget(self, peer: Peer) -> None:
        """The peer's connection is gone; who has waited longest gets its slot."""
        self._peers.discard(peer)
        self._slots.leave(peer)
        if not self._peers:
            self._empty.set()
        if self._stopped:
            return
        while (waiting := self._slots.next()) is not None:
            waiting.serve(self._session(waiting))
            if self.paused:
                waiting.hold(True)

    def drop(self, peer: Peer) -> None:
        """The peer does not read what we write."""
        self.dropped += 1
        self._log_now_and_then("peer dropped: it does not read", peer, self.dropped)
        peer.abort()

    def close_invalid(self, peer: Peer) -> None:
        """The peer has sent too much that is invalid."""
        self.invalid += 1
        self._log_now_and_then("peer closed: too much invalid input", peer, self.invalid)
        peer.close()

    def crashed(self, peer: Peer, error: Exception) -> None:
        """A session raised: log it and close its connection."""
        self.crashes += 1
        self._log.error("session failed", peer=peer.address, exc_info=error)
        peer.close()

    # Details

    def _task_failed(self, error: Exception, name: str) -> None:
        self._log.error("task failed", task=name, exc_info=error)

    def _session(self, peer: Peer) -> Session | None:
        try:
            return self._make_session(peer)
        except Exception as error:  # the outermost frame, as in `Peer.data_received`
            self.crashed(peer, error)
            return None

    def _hold_newcomer(self, peer: Peer) -> None:
        if self.paused or self._slots.is_waiting(peer):
            peer.hold(True)

    def _refuse(self, peer: Peer) -> None:
        self.refused += 1
        peer.abort()
        self._log_now_and_then("connection refused: too many", peer, self.refused)

    def _log_now_and_then(self, event: str, peer: Peer, count: int) -> None:
        """A storm of devices must not become one of lines."""
        now = time.monotonic()
        if now >= self._next_log_at:
            self._next_log_at = now + 1.0
            self._log.warning(event, peer=peer.address, all=count)

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
                if self._slots.is_waiting(peer):  # it could not be heard
                    continue
                if peer.closing:  # it was closed a while ago, and does not take the rest
                    peer.abort()
                else:
                    self.timed_out += 1
                    self._log.info("peer closed: silent", peer=peer.address)
                    peer.close()
