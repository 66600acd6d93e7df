"""One connection of a board, from its bytes to requests and back."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

from patchbay.net import Peer
from patchbay.outbox import OutboxFull
from patchbay_locker.wire import Decoder, Request, WireError

if TYPE_CHECKING:
    from patchbay_locker.edge import LockerEdge
    from patchbay_locker.memory import BoardMemory

MAX_DEVICES = 1_000
"""Boards of one connection that are remembered, for a modem that many boards share."""

_numbers = itertools.count(1)


class BoardSession:
    """One connection of a board. It may carry one report or thousands, pipelined."""

    __slots__ = ("_decoder", "_edge", "_refused", "_turn", "_waiting", "devices", "number", "peer")

    def __init__(self, edge: LockerEdge, peer: Peer) -> None:
        self.peer = peer
        self.devices: set[str] = set()
        self.number = next(_numbers)
        """Tells connections apart."""
        self._edge = edge
        self._decoder = Decoder()
        self._refused = False
        self._turn = -1
        self._waiting: list[tuple[BoardSession, Request]] = []

    def received(self, data: bytes) -> None:
        if self._refused:  # it closes after this turn's commit, and has been said to be bad
            return
        try:
            requests = self._decoder.feed(data)
        except WireError as error:
            self._refused = True
            self._take(error.before)
            self._edge.refuse(self, error)
            self._edge.outbox.after_commit(lambda _ok: self._edge.close(self))
        else:
            self._take(requests)

    def lost(self) -> None:
        self._edge.forget(self)

    def _take(self, requests: list[Request]) -> None:
        try:
            for request in requests:
                self._edge.take(self, request)
        except WireError as error:
            self._refused = True
            self._edge.refuse(self, error)
            self._edge.outbox.after_commit(lambda _ok: self._edge.close(self))
        except OutboxFull:
            self._edge.hold_reading()
            self._edge.outbox.after_commit(lambda _ok: self._edge.close(self))

    def await_commit(self, board: BoardMemory, request: Request) -> None:
        """Answer this request once this turn's commit is on disk."""
        outbox = self._edge.outbox
        if self._turn != outbox.turn:
            self._turn, self._waiting = outbox.turn, []
            outbox.after_commit(partial(self._committed, self._waiting))
        self._waiting.append((self, request))
        self.devices.add(board.device)
        if len(self.devices) > MAX_DEVICES:
            self.devices.clear()
        self.peer.identify()

    def _committed(self, waiting: list[tuple[BoardSession, Request]], ok: bool) -> None:
        if waiting is self._waiting:  # an idle board keeps no request
            self._turn, self._waiting = -1, []
        if ok:
            self._edge.answer(waiting)
        else:
            self.peer.close()
