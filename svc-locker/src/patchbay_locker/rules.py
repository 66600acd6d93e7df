"""The decisions of the locker service: (board, event, now) -> (board, effects).

No I/O, no clock, no randomness: the time, ids and codes are passed in. The functions change the
given `Board` in place (see `board` for why) and return what is to be done besides; whoever calls
owns the board and keeps it only together with its effects. A command that raises `Rejected` has
changed nothing. Times are aware and UTC; rentals are cut to milliseconds, as MongoDB keeps them.

Our rentals alone decide which cell is busy. A rental whose time has come is over, whether or not a
`tick` has said so yet.

`reports` is the part of these rules that folds reports, `board` the state that they decide on;
both are seen through this module.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace

from patchbay_locker.board import (
    Access,
    Board,
    Effect,
    Ends,
    Publish,
    Rental,
    SaveRental,
    cells,
    desired,
    expiry,
    has_lock,
    state,
)
from patchbay_locker.messages import (
    MAX_MINUTES,
    MIN_MINUTES,
    Assign,
    Expired,
    Extend,
    Offline,
    Rejected,
    Revoke,
)
from patchbay_locker.reports import MAX_FOLLOWED, adopts, report, rival, silence

__all__ = [
    "MAX_FOLLOWED",
    "Access",
    "Board",
    "Effect",
    "Ends",
    "Publish",
    "Rejected",
    "Rental",
    "SaveRental",
    "adopts",
    "assign",
    "block",
    "cells",
    "desired",
    "due",
    "expiry",
    "extend",
    "has_lock",
    "hold",
    "known",
    "move",
    "report",
    "reset",
    "revoke",
    "rival",
    "state",
    "tick",
    "unblock",
]

MAX_CODE: Final = 16
DRAWS: Final = 20
"""So many draws before we walk: with 64 cells and 4 digits two in a row are hardly ever taken."""

Answer = dict[str, Any]


def known(board: Board | None, board_id: str) -> Board:
    """The board, or `Rejected` ``unknown_board``: it has never reported."""
    if board is None:
        raise Rejected("unknown_board", f"board {board_id} has never reported")
    return board


# Commands


def assign(
    board: Board,
    command: Assign,
    now: datetime,
    new_id: Callable[[], str],
    draw_code: Callable[[int], str],
    code_length: int,
    ends: Ends = expiry,
    clock: str = "",
) -> tuple[Answer, list[Effect]]:
    """Rent a cell. Answers ``{"rental", "cell", "code", "expires_at"}``.

    ``draw_code(code_length)`` makes up a code of so many digits if the command brings none; one
    that it brings may have 1 to 16. Raises `Rejected`, looking in this order: bad_minutes,
    bad_code, then no_such_cell, cell_not_connected, cell_busy or (``auto``) no_free_cell, then
    code_in_use, also when every code of that length is.
    """
    _check_minutes(command.minutes)
    if command.code is not None and not _is_code(command.code):
        raise Rejected("bad_code", f"code must be 1 to {MAX_CODE} digits")
    active = {rental.cell: rental for rental in board.rentals.values() if ends(rental) > now}
    cell = _lowest_free(board, active) if command.cell == "auto" else command.cell
    if cell not in cells(board):
        raise Rejected("no_such_cell", f"board {board.id} has no cell {cell}")
    if not has_lock(board, cell):
        raise Rejected("cell_not_connected", f"cell {cell} of board {board.id} has no lock")
    if cell in active:
        raise Rejected("cell_busy", f"cell {cell} of board {board.id} is rented")
    taken = {rental.code for rental in active.values()}
    code = command.code if command.code is not None else _draw(draw_code, code_length, taken)
    if code in taken:
        raise Rejected("code_in_use", f"another cell of board {board.id} has this code")

    begin = now.replace(microsecond=now.microsecond // 1000 * 1000)
    rental = Rental(
        id=new_id(),
        cell=cell,
        code=code,
        holder=command.holder,
        created_at=begin,
        expires_at=begin + timedelta(minutes=command.minutes),
        clock=clock,
    )
    effects = _expire(board, now, ends)
    board.rentals[str(cell)] = rental
    board.changed()
    effects.append(SaveRental(rental, board.id, "active"))
    answer = {"rental": rental.id, "cell": cell, "code": code, "expires_at": rental.until()}
    return answer, effects


def revoke(
    board: Board, command: Revoke, now: datetime, ends: Ends = expiry
) -> tuple[Answer, list[Effect]]:
    """End a cell's rental. Answers ``{"rental", "cell"}``. Raises `Rejected` not_rented."""
    rental = _rental(board, command.cell, now, ends)
    del board.rentals[str(rental.cell)]
    board.changed()
    effects: list[Effect] = [SaveRental(rental, board.id, "revoked", now)]
    return {"rental": rental.id, "cell": rental.cell}, effects


def extend(
    board: Board, command: Extend, now: datetime, ends: Ends = expiry
) -> tuple[Answer, list[Effect]]:
    """Add minutes to what is left. Answers ``{"rental", "cell", "expires_at"}``.

    Raises `Rejected`: bad_minutes, also if more than a year would be left, then not_rented.
    """
    _check_minutes(command.minutes)
    rental = _rental(board, command.cell, now, ends)
    longer = replace(rental, expires_at=rental.expires_at + timedelta(minutes=command.minutes))
    if longer.expires_at - now > timedelta(minutes=MAX_MINUTES):
        why = f"minutes must leave at most {MAX_MINUTES}, got {command.minutes} more"
        raise Rejected("bad_minutes", why)
    board.rentals[str(rental.cell)] = longer
    board.changed()
    answer = {"rental": longer.id, "cell": longer.cell, "expires_at": longer.until()}
    return answer, [SaveRental(longer, board.id, "active")]


def block(board: Board) -> tuple[Answer, list[Effect]]:
    """Block access (STATE=3 in every answer) until unblock. Answers ``{"blocked": true}``."""
    return _set_blocked(board, True)


def unblock(board: Board) -> tuple[Answer, list[Effect]]:
    """Give access again. Answers ``{"blocked": false}``."""
    return _set_blocked(board, False)


def reset(board: Board) -> tuple[Answer, list[Effect]]:
    """Order one reboot. Answers ``{"reset_id"}``: the same while one has not happened yet."""
    ordered = board.pending_reset()
    if ordered is None:
        ordered = board.reset_id = max(board.reset_id or 0, board.reset_done) + 1
        board.changed()
    return {"reset_id": ordered}, []


def _set_blocked(board: Board, blocked: bool) -> tuple[Answer, list[Effect]]:
    if board.blocked != blocked:
        board.blocked = blocked
        board.changed()
    return {"blocked": blocked}, []


def _check_minutes(minutes: int) -> None:
    if not MIN_MINUTES <= minutes <= MAX_MINUTES:
        why = f"minutes must be {MIN_MINUTES} to {MAX_MINUTES}, got {minutes}"
        raise Rejected("bad_minutes", why)


def _is_code(code: str) -> bool:
    return 1 <= len(code) <= MAX_CODE and code.isascii() and code.isdigit()


def _lowest_free(board: Board, active: dict[int, Rental]) -> int:
    for cell in cells(board):
        if cell not in active and has_lock(board, cell):
            return cell
    raise Rejected("no_free_cell", f"board {board.id} has no free cell with a lock")


def _draw(draw_code: Callable[[int], str], length: int, taken: set[str]) -> str:
    """A code that is not taken. Walks upwards from the last draw when luck does not help."""
    for _ in range(DRAWS):
        code = draw_code(length)
        if code not in taken:
            return code
    for step in range(1, len(taken) + 1):
        walked = f"{(int(code) + step) % 10**length:0{length}}"
        if walked not in taken:
            return walked
    raise Rejected("code_in_use", f"every code of {length} digits is in use")


def _rental(board: Board, cell: int, now: datetime, ends: Ends) -> Rental:
    rental = board.rentals.get(str(cell))
    if rental is None or ends(rental) <= now:
        raise Rejected("not_rented", f"cell {cell} of board {board.id} has no rental")
    return rental


# Time


def tick(
    board: Board,
    now: datetime,
    offline_after_s: float,
    listening_since: datetime,
    ends: Ends = expiry,
) -> list[Effect]:
    """End what has run out: rentals, and the time that a board may be silent.

    ``offline_after_s`` is the setting; 0: three learned intervals. Silence counts from
    ``listening_since`` at the earliest: what we did not hear was not said to us. An expired rental
    ended when its time was over, not when somebody looked.
    """
    effects = _expire(board, now, ends)
    heard = max(board.last_seen, listening_since)
    if board.online and now >= heard + silence(board, offline_after_s):
        board.online = False
        effects.append(Publish("offline", Offline(board.id, board.last_seen_text())))
    return effects


def due(
    board: Board, offline_after_s: float, listening_since: datetime, ends: Ends = expiry
) -> datetime | None:
    """The earliest moment at which `tick` has something to do, or None."""
    moments = [ends(rental) for rental in board.rentals.values()]
    if board.online:
        heard = max(board.last_seen, listening_since)
        moments.append(heard + silence(board, offline_after_s))
    return min(moments, default=None)


def hold(board: Board, ends: Ends) -> bool:
    """While it is not sure what time it is, rentals end by ``ends``: that begins now, or is over.
    False: no rental of this board is concerned."""
    held = any(ends(rental) > rental.expires_at for rental in board.rentals.values())
    if held:
        board.changed()
    return held


def move(
    board: Board, step: timedelta, moves: Callable[[str], bool], since: datetime, now: datetime
) -> list[Effect]:
    """The clock is set: move what was made by the old one by the step. ``moves`` knows the marks
    of rentals (`Rental.clock`); ``since``: what was seen from then on was seen by the old clock."""
    effects: list[Effect] = []
    if board.last_seen >= since:
        board.last_seen = min(board.last_seen, now) + step
    for key, rental in board.rentals.items():
        if moves(rental.clock):
            moved = replace(
                rental,
                created_at=rental.created_at + step,
                expires_at=rental.expires_at + step,
                clock="",
            )
            board.rentals[key] = moved
            effects.append(SaveRental(moved, board.id, "active"))
    if effects:
        board.changed()
    return effects


def _expire(board: Board, now: datetime, ends: Ends) -> list[Effect]:
    effects: list[Effect] = []
    over = [rental for rental in board.rentals.values() if ends(rental) <= now]
    for rental in over:
        del board.rentals[str(rental.cell)]
        effects.append(SaveRental(rental, board.id, "expired", rental.expires_at))
        effects.append(Publish("expired", Expired(board.id, rental.id, rental.cell)))
    if over:
        board.changed()
    return effects
