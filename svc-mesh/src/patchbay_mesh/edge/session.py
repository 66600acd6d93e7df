"""One connection of the socket API: it asks, or it listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from patchbay.net import Peer
from patchbay_mesh.wire import socket_api as wire

if TYPE_CHECKING:
    from patchbay_mesh.edge.api import Api

MAX_WAITING: Final = 64
"""Requests of one connection that may wait for their turn; a client that sends more is closed."""


class ApiSession:
    """Answers in the order of the requests; closes after the first that has no end mark."""

    __slots__ = (
        "_api",
        "_decoder",
        "_ended",
        "_gap",
        "_held",
        "_listens",
        "_task",
        "_waiting",
        "lengths",
        "peer",
    )

    def __init__(self, api: Api, peer: Peer) -> None:
        self.lengths = False
        self._api = api
        self.peer = peer
        self._decoder = wire.Decoder(api.end_mark, api.settings.get_order)
        self._gap: asyncio.TimerHandle | None = None
        self._waiting: deque[wire.Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self._held = False
        self._listens = False
        peer.on_drained(self._drained)

    def received(self, data: bytes) -> None:
        if self._listens:
            return
        self._take(self._decoder.feed(data))
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        """A request that has begun is complete after a moment without a byte, while we read."""
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None
        if self._decoder.waiting and not self._held:
            loop = asyncio.get_running_loop()
            self._gap = loop.call_later(self._api.settings.request_gap_s, self._look_again)

    def _look_again(self) -> None:
        """Nothing was handed on for a moment: either all has come, or others have their turn."""
        self._gap = None
        if self.peer.has_more:
            self._wait_for_end()
        else:
            self._finish()

    def ended(self) -> None:
        """The peer has said all: what it said last is whole."""
        self._ended = True
        self._finish()
        if not self._waiting and self._task is None and not self._listens:
            self.peer.close()

    def lost(self) -> None:
        self._api.listeners.discard(self)
        if self._gap is not None:
            self._gap.cancel()
        if self._task is not None:
            self._task.cancel()

    def push(self, message: bytes) -> bool:
        """What a node has said, in one write: clients take one read for one message. False: it does
        not read, or has gone."""
        return self.peer.write(message)

    def _finish(self) -> None:
        self._gap = None
        self._take(self._decoder.finish())

    def _take(self, requests: Iterable[wire.Request]) -> None:
        for request in requests:
            if not isinstance(request.asked, wire.Refused):
                self.peer.identify()
            elif request.marked and self.peer.invalid():
                return
            if self._task is None and not self._waiting and not self.peer.waiting_bytes:
                if isinstance(request.asked, wire.Listen):
                    self._listen(request.asked)
                    return
                answer = self._api.answer(request.asked)
                if answer is not None:
                    self._answer(request, answer)
                    continue
            self._waiting.append(request)
            if self._task is None and not self.peer.waiting_bytes:
                self._task = self._api.spawn(self._work(), self._failed)
        if len(self._waiting) > MAX_WAITING and self._task is not None:
            self.peer.close()

    async def _work(self) -> None:
        """Requests that take a while, one after the other, and what was asked behind them, as long
        as the client reads."""
        while self._waiting and not self.peer.waiting_bytes:
            request = self._waiting[0]
            answer = self._api.answer(request.asked)
            if answer is None:
                answer = await self._api.perform(request.asked)
                if answer is None:  # neither yes nor no, and what follows waits for no answer
                    self.peer.close()
                    return
            self._waiting.popleft()
            self._answer(request, answer)
        self._task = None
        if self.peer.waiting_bytes:
            return
        if self._ended:
            self.peer.close()
        self._read_on()

    def _drained(self) -> None:
        """The client has read all answers: answer what it asked meanwhile, and then read on."""
        if not self._waiting:
            self._read_on()
        elif self._task is None:
            self._task = self._api.spawn(self._work(), self._failed)

    def _read_on(self) -> None:
        if self._held:
            self._held = False
            self.peer.hold(False)
            self._wait_for_end()

    def _failed(self, error: Exception) -> None:
        self._api.crashed(self.peer.address, error)
        self.peer.close()

    def _answer(self, request: wire.Request, answer: bytes) -> None:
        whole = self.peer.write(answer + self._api.end_mark if request.marked else answer)
        if not request.marked:
            self.peer.close()
        if not whole and not self.peer.closing:  # read no more of it before it reads
            self._held = True
            self.peer.hold(True)
        if not whole:
            self._api.unread(self.peer)

    def _listen(self, asked: wire.Listen) -> None:
        self._listens = True
        self.lengths = asked.lengths
        self.peer.only_listens()
        self.peer.write(wire.LISTENING)
        self._api.listeners.add(self)
