"""What the edge remembers of each board, in its outbox's file.

    last/<device>      `numbering.Last`: what tells a repeat, a reboot and a late packet
    desired/<device>   the last desired state, as it came: a restart of the edge wipes no board
    reset/<device>     the highest reset id that is done: no board is rebooted twice for one
    told/<device>      the highest reset id that the board was told
    prior/<device>     ``last`` of the boot before: another board with its ID may report in turn

Each is written with the commit of the report or message that changed it. If that fails, the report
was not taken in and what it changed is forgotten; a desired state is true all the same, and is
written with a later commit.

There are at most ``max_boards`` rows. When there is no room for a new one, a stranger's goes
(`room`): the domain has never had a command for it, so its list of codes is empty. The desired
state of any other board is always taken: the domain bounds their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec

from patchbay.messages import parse_time
from patchbay.outbox import Outbox
from patchbay_locker.messages import Desired
from patchbay_locker.numbering import Last
from patchbay_locker.room import Rank, Strangers, rank
from patchbay_locker.twins import Peers
from patchbay_locker.wire import Answer, Code, Request

KINDS: Final = ("last", "desired", "reset", "told", "prior")
"""What is noted of a board, each under ``<kind>/<device>``."""

OVER: Final = 4
"""A domain whose store is from a version without a bound may know more boards with codes than
``max_boards``: up to so many times as many are held. Beyond that somebody else publishes them."""

_decoder = msgspec.json.Decoder(Desired)


class Held:
    """A desired state, ready to answer from. ``codes`` are (cell, code, Unix time of its end)."""

    __slots__ = ("blocked", "board", "codes", "reset_id", "rev")

    def __init__(self, payload: bytes) -> None:
        """Raises msgspec.DecodeError or ValueError for what is no desired state."""
        desired = _decoder.decode(payload)
        self.rev = desired.rev
        self.board = desired.board
        self.reset_id = desired.reset_id
        self.blocked = desired.blocked
        self.codes = [
            (one.cell, one.code, parse_time(one.expires_at).timestamp()) for one in desired.rentals
        ]


class BoardMemory:
    """One board, as its edge knows it."""

    __slots__ = (
        "desired",
        "device",
        "last",
        "peers",
        "prior",
        "prior_on",
        "reports",
        "reset_done",
        "seen_at",
        "told",
        "told_on",
    )

    def __init__(self, device: str) -> None:
        self.device = device
        self.last: Last | None = None
        self.prior: Last | None = None
        self.prior_on = 0
        """The connection of ``prior``; 0: of a process before this one."""
        self.desired: Held | None = None
        self.reset_done = 0
        self.told = 0
        self.told_on = 0
        self.peers = Peers()
        self.reports = 0
        self.seen_at = 0.0
        """Of this process: how many reports it has sent, and when the last one came (Unix time)."""

    def stranger(self) -> bool:
        """Has the domain never had a command for it?"""
        return self.desired is None or not self.desired.rev

    def pending_reset(self) -> int | None:
        """The reboot that was ordered and has not happened, if there is one."""
        held = self.desired
        if held is not None and held.reset_id is not None and held.reset_id > self.reset_done:
            return held.reset_id
        return None

    def answer(self, request: Request, now: float) -> Answer:
        """The answer to a request from what is held now. ``now``: Unix time in seconds.

        Minutes are what is left, rounded up, at least 1; a code whose time is over is not listed.
        A report that itself says RESET=1 is never answered with RESET=1: the board has just
        rebooted.
        """
        held = self.desired
        if held is None:
            return Answer(request.header, request.id, request.send_text)
        reset = not request.reset and self.pending_reset() is not None
        codes = tuple(
            [
                Code(cell, code, max(1, math.ceil((expires - now) / 60)))
                for cell, code, expires in held.codes
                if expires > now
            ]
        )
        return Answer(request.header, request.id, request.send_text, reset, held.blocked, codes)


class _Turn:
    """What goes with one commit: boards as they were before it, and notes that are true all the
    same if it fails."""

    __slots__ = ("before", "notes", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.before: dict[BoardMemory, tuple[Last | None, Last | None, int, int]] = {}
        self.notes: dict[str, bytes | None] = {}


class Memory:
    """All boards of one edge."""

    def __init__(self, outbox: Outbox, max_boards: int = 10_000) -> None:
        self._outbox = outbox
        self._max_boards = max_boards
        self.evicted = 0
        """Boards that have made room."""
        self.incomplete = False
        """There was no room for the desired state of a board that has codes: which one, is not
        known, and so no unknown board may be answered."""
        self._strangers = Strangers(self._rank)
        self._boards: dict[str, BoardMemory] = {}
        self._turn = _Turn(-1)
        self._unwritten: dict[str, tuple[int, bytes | None]] = {}
        """Notes whose commit has failed, with the number of its turn."""
        for device, last in outbox.read_notes("last/", Last.from_bytes).items():
            self.board(device).last = last
        for device, held in outbox.read_notes("desired/", Held).items():
            self.board(device).desired = held
        for device, reset_done in outbox.read_notes("reset/", int).items():
            self.board(device).reset_done = reset_done
        for device, told in outbox.read_notes("told/", int).items():
            self.board(device).told = told
        for device, prior in outbox.read_notes("prior/", Last.from_bytes).items():
            self.board(device).prior = prior
        self._trim()

    def __iter__(self) -> Iterator[BoardMemory]:
        return iter(self._boards.values())

    def __len__(self) -> int:
        return len(self._boards)

    def board(self, device: str) -> BoardMemory:
        """What is known of a board; new if that is nothing."""
        board = self._boards.get(device)
        if board is None:
            board = self._boards[device] = BoardMemory(device)
            self._strangers.add(device)
        return board

    def find(self, device: str) -> BoardMemory | None:
        """What is known of a board; None if that is nothing."""
        return self._boards.get(device)

    def admit(self, device: str, now: float) -> BoardMemory | None:
        """A row for a board that is not known; None if there is no room. ``now``: Unix time."""
        if self.incomplete or not self._make_room(now):
            return None
        return self.board(device)

    def forget(self, device: str) -> None:
        """Drop all that is known of a board."""
        board = self._boards.pop(device, None)
        if board is None:
            return
        known = (board.last, board.desired, board.reset_done, board.told, board.prior)
        for kind, value in zip(KINDS, known, strict=True):
            if value:
                self._note(f"{kind}/{device}", None)
        self._this_turn().before.pop(board, None)
        board.last = board.prior = board.desired = None  # an answer may be on its way

    def _make_room(self, now: float) -> bool:
        while len(self._boards) >= self._max_boards:
            id = self._strangers.next(now)
            if id is None:
                return False
            self.forget(id)
            self.evicted += 1
        return True

    def _rank(self, device: str) -> Rank | None:
        board = self._boards.get(device)
        if board is None or not board.stranger():
            return None
        return rank(board.reports, board.seen_at or (board.last.boot if board.last else 0))

    def _trim(self) -> None:
        """A version without a bound may have written more."""
        surplus = len(self._boards) - self._max_boards
        if surplus > 0:
            newest = max(board.last.boot if board.last else 0 for board in self)
            for device in self._strangers.first(surplus, newest):
                self.forget(device)
                self.evicted += 1

    def numbered(self, board: BoardMemory, last: Last) -> None:
        """Remember its last report."""
        self._changes(board)
        board.last = last
        self._outbox.note(f"last/{board.device}", last.to_bytes())

    def answered(self, board: BoardMemory, send: int) -> None:
        """The answer to this report was written whole, if it is still the last one.

        It is noted without a commit of its own: if a kill loses it, the next report with the same
        accesses is marked as a possible repeat.
        """
        if board.last is not None and board.last.send == send:
            board.last = board.last.with_answer()
            self._outbox.note_later(f"last/{board.device}", board.last.to_bytes)

    def leave(self, board: BoardMemory, connection: int) -> None:
        """A new boot begins: remember the one before, whose reports came on this connection."""
        if board.last is not None:
            self._changes(board)
            board.prior, board.prior_on = board.last, connection
            self._outbox.note(f"prior/{board.device}", board.last.to_bytes())

    def swap(self, board: BoardMemory, connection: int) -> None:
        """The boot before goes on, and this one, whose reports came on this connection, waits."""
        last, prior = board.last, board.prior
        self.leave(board, connection)
        if last is not None and prior is not None:
            self.numbered(board, prior)

    def tell_reset(self, board: BoardMemory, reset_id: int, connection: int) -> None:
        """The board is told to reboot, on this connection."""
        board.told_on = connection
        if reset_id != board.told:
            self._changes(board)
            board.told = reset_id
            self._outbox.note(f"told/{board.device}", b"%d" % reset_id)

    def rebooted(self, board: BoardMemory) -> None:
        """The board has rebooted: what was ordered is done."""
        pending = board.pending_reset()
        if pending is not None:
            self._changes(board)
            board.reset_done = pending
            self._outbox.note(f"reset/{board.device}", b"%d" % board.reset_done)

    def desire(self, device: str, payload: bytes, now: float = 0.0) -> bool:
        """Hold a desired state, unless it is older than what is held. True if it is new.

        An empty payload forgets the board: its owner has removed it. ``now``: Unix time. Raises as
        `Held` does.
        """
        if not payload:
            self.forget(device)
            return False
        held = Held(payload)
        board = self._boards.get(device)
        if board is None:
            if len(self._boards) >= self._max_boards and not held.rev:
                return False  # a stranger's, whose list is empty
            if not self._make_room(now) and len(self._boards) >= OVER * self._max_boards:
                self.incomplete = True
                return False
            board = self.board(device)
        if board.desired is not None and held.rev <= board.desired.rev:
            return False
        board.desired = held
        self._note(f"desired/{device}", payload)
        return True

    # Commits

    def _changes(self, board: BoardMemory) -> None:
        """A report changes this board: keep what it was before this turn."""
        before = (board.last, board.prior, board.reset_done, board.told)
        self._this_turn().before.setdefault(board, before)

    def _note(self, name: str, value: bytes | None) -> None:
        """Note what is true whether or not this turn's reports are taken in."""
        self._outbox.note(name, value)
        self._this_turn().notes[name] = value

    def _this_turn(self) -> _Turn:
        """What goes with the commit that what is taken in now will be in."""
        if self._turn.number != self._outbox.turn:
            self._turn = _Turn(self._outbox.turn)
            self._outbox.after_commit(partial(self._committed, self._turn))
        return self._turn

    def _committed(self, turn: _Turn, ok: bool) -> None:
        if not ok:
            for board, was in turn.before.items():
                board.last, board.prior, board.reset_done, board.told = was
            for name, value in turn.notes.items():
                if self._unwritten.get(name, (-1, None))[0] < turn.number:
                    self._unwritten[name] = turn.number, value
            return
        for name in turn.notes:
            self._unwritten.pop(name, None)
        unwritten, self._unwritten = self._unwritten, {}
        for name, (_, value) in unwritten.items():
            kind, _, device = name.partition("/")
            if value or kind == "desired" or device not in self._boards:  # else known again
                self._note(name, value)
