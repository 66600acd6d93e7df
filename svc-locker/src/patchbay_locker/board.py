"""What the domain knows of one board, the effects of a decision, and the two views of a board.

Only `rules` changes a `Board`. It is mutable on purpose: a report is folded into it thousands of
times a second, and a copy of 25 fields for each would cost more than the decision. A `Rental` is
frozen, so that an effect that carries one says for ever what was true when it was made.

Cells are numbered by COLS and ROWS alone; ACT_CON only says which of them have a lock::

    COLS=3 ROWS=2    1 2 3      ACT_CON=101,01    cell n: digit (n-1) mod COLS of
                     4 5 6                        group (n-1) div COLS; a missing digit: no lock
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from patchbay.messages import rfc3339
from patchbay_locker.messages import MAX_HOLDER, Desired, DesiredRental, State, StateRental

SETTLED: Final = timedelta(hours=24)
"""A board that reports for so long is no invention."""


class Rental(Struct, frozen=True, kw_only=True):
    """A code that opens a cell from ``created_at`` until before ``expires_at`` (UTC)."""

    id: str
    cell: int
    code: str
    holder: str | None = None
    created_at: datetime
    expires_at: datetime
    clock: str = ""
    """Made while the machine's clock was not synchronized: in which boot (`patchbay.clock.Guard`).
    Its times move with the step when the clock is set."""

    def runs(self, moment: datetime) -> bool:
        """Was the rental in force at ``moment``?"""
        return self.created_at <= moment < self.expires_at

    def until(self) -> str:
        """``expires_at`` as it goes out (RFC 3339)."""
        return rfc3339(self.expires_at)


Ends = Callable[[Rental], datetime]
"""When a rental ends: when it expires, or later while it is not sure what time it is."""


def expiry(rental: Rental) -> datetime:
    """When a rental expires."""
    return rental.expires_at


class Board(Struct, kw_only=True):
    """One board. Times are aware and UTC; what the board has not said yet is empty or 0."""

    id: str
    """As the board writes it (its topic may differ)."""
    boot: int
    send: int
    """Run and number of the last report that was not late."""
    first_seen: datetime
    last_seen: datetime
    """Capture time of the newest report, late ones included. Never goes back."""
    reports: int = 0
    """Reports taken in, late ones included."""
    accesses: int = 0
    """Cells in BOX_ACC of those, each once a report."""
    online: bool = False
    interval_s: float = 0.0
    """How often it reports, learned. 0: nothing learned yet."""
    connection: int = 0
    wifi_state: int = 0
    gsm_state: int = 0
    state: list[int] = []
    cols: int = 0
    rows: int = 0
    act_con: list[str] = []
    box_eng: list[int] = []
    box_to: list[int] = []
    blocked: bool = False
    reset_id: int | None = None
    """The last reboot that was ordered."""
    reset_done: int = 0
    """The last reboot that is known to have happened; all lower ones are done too."""
    rev: int = 0
    """Revision of `desired`."""
    rentals: dict[str, Rental] = {}
    """Active rentals by cell number (text: MongoDB keys are)."""
    alarms: list[str] = []
    """Alarms that stand now."""
    rival: str = ""
    """A board whose id differs from this one's in case only, and reports too."""
    rival_for: int = 0
    """Reports of this board until ``rival`` is forgotten, unless that reports again."""
    since: datetime | None = None
    """When the service took in its first report. None: an earlier version did, ``first_seen``."""
    used: bool | None = None
    """It has had a rental or a command, or 24 hours of reports. None: an earlier version, which did
    not note it."""
    differs: int = 0
    """Reports in a row, since ``rev`` changed, whose BOX_ENG was not our list of codes."""

    def pending_reset(self) -> int | None:
        """The reboot that was ordered and has not happened, if there is one."""
        if self.reset_id is not None and self.reset_id > self.reset_done:
            return self.reset_id
        return None

    def changed(self) -> None:
        """What the board is to know is another now, and no answer has said so yet."""
        self.rev += 1
        self.differs = 0

    def use(self) -> None:
        """It is more than an id that somebody may have invented, from now on. A revision above 0
        tells that to the edges."""
        self.used = True
        if not self.rev:
            self.changed()

    def stranger(self) -> bool:
        """May it make room for another board? Not if it has had a rental, a command or 24 hours of
        reports."""
        if self.used is None:
            return not (self.rev or self.rentals or self.lasted())
        return not (self.used or self.rentals)

    def lasted(self) -> bool:
        """Has it reported for 24 hours?"""
        return self.last_seen - (self.since or self.first_seen) >= SETTLED

    def last_seen_text(self) -> str:
        """``last_seen`` as it goes out (RFC 3339)."""
        return rfc3339(self.last_seen)


class Publish(Struct, frozen=True):
    """Effect: publish ``event/<name>`` with this event of `messages`."""

    name: Literal["rebooted", "opened", "expired", "alarm", "online", "offline"]
    data: Struct


class SaveRental(Struct, frozen=True):
    """Effect: keep this in collection ``rentals``, by the rental's id. ``board`` is the id."""

    rental: Rental
    board: str
    status: Literal["active", "expired", "revoked"]
    ended_at: datetime | None = None


class Access(Struct, frozen=True):
    """Effect: a fact for collection ``accesses``; ``rental`` is the id of the one in force then."""

    cell: int
    rental: str | None
    boot: int
    send: int
    at: datetime
    maybe_repeat: bool


Effect = Publish | SaveRental | Access


def cells(board: Board) -> range:
    """The numbers of all cells that the board's matrix has, with a lock or without."""
    return range(1, board.cols * board.rows + 1)


def has_lock(board: Board, cell: int) -> bool:
    """Is a lock connected to this cell? A cell outside the matrix has none."""
    if cell not in cells(board):
        return False
    group, digit = divmod(cell - 1, board.cols)
    return group < len(board.act_con) and board.act_con[group][digit : digit + 1] == "1"


def with_lock(board: Board) -> list[int]:
    """The numbers of all cells that have a lock: `has_lock`, for all at once."""
    cols = board.cols
    return [
        row * cols + column
        for row, group in enumerate(board.act_con[: board.rows])
        for column, digit in enumerate(group[:cols], 1)
        if digit == "1"
    ]


def in_order(board: Board) -> list[Rental]:
    """The active rentals by rising cell."""
    return sorted(board.rentals.values(), key=lambda rental: rental.cell)


def desired(board: Board, ends: Ends = expiry) -> Desired:
    """All that the board is to know. Carries codes."""
    return Desired(
        rev=board.rev,
        board=board.id,
        reset_id=board.pending_reset(),
        blocked=board.blocked,
        rentals=[
            DesiredRental(rental.cell, rental.code, rfc3339(ends(rental)))
            for rental in in_order(board)
        ],
    )


def _shown(holder: str | None) -> str | None:
    """A holder as it goes out. One that was stored before there was a limit may be too long."""
    return holder if holder is None else holder[:MAX_HOLDER]


def state(board: Board) -> State:
    """What everybody may know of the board. Carries no codes."""
    rentals = in_order(board)
    busy = [rental.cell for rental in rentals]
    return State(
        board=board.id,
        online=board.online,
        last_seen=board.last_seen_text(),
        boot=board.boot,
        send=board.send,
        reports=board.reports,
        accesses=board.accesses,
        connection=board.connection,
        wifi_state=board.wifi_state,
        gsm_state=board.gsm_state,
        state=list(board.state),
        cols=board.cols,
        rows=board.rows,
        free=[cell for cell in with_lock(board) if cell not in busy],
        busy=busy,
        blocked=board.blocked,
        rentals=[
            StateRental(rental.id, rental.cell, rental.until(), _shown(rental.holder))
            for rental in rentals
        ],
        box_eng=list(board.box_eng),
        box_to=list(board.box_to),
        alarms=list(board.alarms),
    )
