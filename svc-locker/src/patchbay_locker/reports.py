"""How a report changes what we know of its board (a part of `rules`, and as pure).

Reports are folded in the order in which they come; only the edge knows which one is late. Capture
times need not rise (an edge replays an outage, a clock is set): one that is not newer than
``last_seen`` moves neither that nor ``online``.

What a board says of its codes (BOX_ENG, BOX_TO) is kept, shown and compared, never believed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from patchbay_locker.board import Access, Board, Effect, Publish
from patchbay_locker.messages import Alarm, Online, Opened, Rebooted, Report

OFFLINE_INTERVALS: Final = 3
UNLEARNED_OFFLINE_S: Final = 300.0
"""Before two reports came: boards report every few minutes at the least."""
MIN_OFFLINE_S: Final = 30.0
"""A Wi-Fi board that joins again, or a GSM modem that redials, is not offline."""
MAX_OFFLINE_S: Final = 21_600.0
"""Six hours: whatever was learned, a dead board is found the same day."""

RISE: Final = 0.5
FALL: Final = 0.05
"""Weight of a gap that is longer, or shorter, than the learned interval. Falling is slow, since a
board also reports at once when a cell is opened, and ten accesses in a minute must not make one
that reports every five minutes look dead; rising is quick, since each gap that is too long for
what was learned costs a false ``offline``."""
LONGEST_STEP: Final = 4
"""A gap counts as this many learned intervals at most: an outage of an hour moves a board that
reports every minute to 150 s, and one that was set to a longer interval is learned in a few."""

MAX_FOLLOWED: Final = 2**52
"""The highest revision at an edge that we go on from: a forged one above it would leave no room."""

RIVAL_REPORTS: Final = 20
"""A board whose id differs in case, and that has not reported during so many reports, is gone."""

DIFFERS: Final = 3
"""Reports in a row that differ: the one before an answer, and those after each of two."""

ALARMS: Final = {
    "short_circuit": "the board reports a short circuit (STATE=1)",
    "wrong_code": "a wrong code was entered three times in a row (STATE=2)",
    "unknown_state": "the board reports a state that ACon_V1.0 does not name",
    "wifi_fault": "the Wi-Fi hardware has a fault (WIFI_STATE=1)",
    "gsm_fault": "the GSM hardware has a fault (GSM_STATE=1)",
    "matrix_mismatch": "ACT_CON is not ROWS groups of COLS digits",
    "two_boards": "two boards report under one id",
    "codes_differ": "the board's list of codes (BOX_ENG) is not ours, after two answers",
}


def report(board: Board | None, report: Report, at: datetime) -> tuple[Board, list[Effect]]:
    """Fold a report, captured ``at``, into the board; None: the first of this board.

    A late report counts, shows that the board is there, and its accesses are facts; what it says
    of the board is old and is not taken.
    """
    effects: list[Effect] = []
    if board is None:
        board = Board(
            id=report.board,
            boot=report.boot,
            send=report.send,
            first_seen=at,
            last_seen=at,
            used=False,
        )
        _come_online(board, effects)
    elif at > board.last_seen:
        if not (report.late or report.maybe_repeat or report.rebooted):
            _learn(board, (at - board.last_seen).total_seconds())
        board.last_seen = at
        if not board.online:
            _come_online(board, effects)
    board.reports += 1
    if not board.used and board.lasted():
        board.use()
    if not report.late:
        _take(board, report)
        _finish_reset(board, report, effects)
    if report.box_acc:
        _record_accesses(board, report, at, effects)
    if not report.late:
        _watch(board, report, effects)
    return board, effects


def _come_online(board: Board, effects: list[Effect]) -> None:
    board.online = True
    effects.append(Publish("online", Online(board.id)))


def _learn(board: Board, gap_s: float) -> None:
    """A gap that made us say ``offline`` counts too, or a slow board would be so for ever."""
    learned = board.interval_s
    if learned:
        gap_s = min(gap_s, LONGEST_STEP * max(learned, MIN_OFFLINE_S / OFFLINE_INTERVALS))
        learned += (RISE if gap_s > learned else FALL) * (gap_s - learned)
    else:
        learned = gap_s
    board.interval_s = min(learned, MAX_OFFLINE_S / OFFLINE_INTERVALS)


def _take(board: Board, report: Report) -> None:
    board.boot = report.boot
    board.send = report.send
    # With a new store we know less than the edge: the next change must outrank what it holds.
    if report.rev <= MAX_FOLLOWED:
        board.rev = max(board.rev, report.rev)
    board.connection = report.connection
    board.wifi_state = report.wifi_state
    board.gsm_state = report.gsm_state
    board.state = report.state
    board.box_eng = report.box_eng
    board.box_to = report.box_to
    # How a board is built does not change because one report does not say it.
    board.cols = report.cols or board.cols
    board.rows = report.rows or board.rows
    board.act_con = report.act_con or board.act_con


def _finish_reset(board: Board, report: Report, effects: list[Effect]) -> None:
    """A reboot that was ordered has happened if the board says RESET=1, or was told of it and came
    back: SEND alone also falls where two boards have one id."""
    if not (report.rebooted or report.reset):
        return
    ours = report.reset or report.told_reset is not False
    ordered = board.pending_reset() if ours else None
    if ordered is not None:
        board.reset_done = ordered
        board.changed()
    if report.rebooted:
        event = Rebooted(board.id, report.boot, report.send, ordered)
        effects.append(Publish("rebooted", event))


def _record_accesses(board: Board, report: Report, at: datetime, effects: list[Effect]) -> None:
    boot, send, repeat = report.boot, report.send, report.maybe_repeat
    for cell in dict.fromkeys(report.box_acc):
        rental = board.rentals.get(str(cell))
        rented = rental.id if rental is not None and rental.runs(at) else None
        effects.append(Access(cell, rented, boot, send, at, repeat))
        effects.append(Publish("opened", Opened(board.id, cell, rented, boot, send, repeat)))
        board.accesses += 1


def _watch(board: Board, report: Report, effects: list[Effect]) -> None:
    """Raise each alarm whose condition has appeared, clear each whose condition is gone."""
    standing = []
    for number in report.state:
        if number == 1:
            standing.append("short_circuit")
        elif number == 2:
            standing.append("wrong_code")
        elif not 0 <= number <= 3:
            standing.append("unknown_state")
    if report.wifi_state == 1:
        standing.append("wifi_fault")
    if report.gsm_state == 1:
        standing.append("gsm_fault")
    if _mismatched(board):
        standing.append("matrix_mismatch")
    if _differing(board):
        standing.append("codes_differ")
    if report.peers or _rivalled(board):
        standing.append("two_boards")
    if standing or board.alarms:
        standing = list(dict.fromkeys(standing))
        effects.extend(
            Publish("alarm", Alarm(board.id, alarm, _message(board, alarm, report.peers)))
            for alarm in standing
            if alarm not in board.alarms
        )
        board.alarms = standing


def _message(board: Board, alarm: str, peers: list[str]) -> str:
    if alarm != "two_boards":
        return ALARMS[alarm]
    if peers:
        return f"two boards report as {board.id}, from {' and '.join(peers)}"
    return f"boards {board.id} and {board.rival} have ids that differ only in case"


def _rivalled(board: Board) -> bool:
    """Does another board report whose id differs in case only? Quiet ones are forgotten."""
    board.rival_for = max(0, board.rival_for - 1)
    if not board.rival_for:
        board.rival = ""
    return bool(board.rival)


def rival(board: Board, other: str) -> list[Effect]:
    """A board whose id differs from this one's in case only reports too."""
    board.rival, board.rival_for = other, RIVAL_REPORTS
    if "two_boards" in board.alarms:
        return []
    board.alarms = [*board.alarms, "two_boards"]
    return [Publish("alarm", Alarm(board.id, "two_boards", _message(board, "two_boards", [])))]


def adopts(board: Board, other: str) -> bool:
    """A board is back with an id that differs in case: is it this one, which is away and has no
    rental? Then it goes on as that."""
    if board.online or board.rentals:
        return False
    board.id = other
    board.changed()
    return True


def _mismatched(board: Board) -> bool:
    if not (board.cols and board.rows and board.act_con):
        return False
    return len(board.act_con) != board.rows or set(map(len, board.act_con)) != {board.cols}


def _differing(board: Board) -> bool:
    """Has the board's list of codes been another than ours for too long?

    A cell that has run out at the board (BOX_TO) and is no rental of ours any more is as it should
    be. Once raised, only an equal list clears it: a new ``rev`` starts the count, not the alarm.
    """
    ours = {rental.cell for rental in board.rentals.values()}
    if ours == set(board.box_eng) and ours.isdisjoint(board.box_to):
        board.differs = 0
        return False
    board.differs += 1
    return board.differs >= DIFFERS or "codes_differ" in board.alarms


def silence(board: Board, offline_after_s: float) -> timedelta:
    """How long the board may say nothing. ``offline_after_s`` is the setting; 0: learned."""
    if offline_after_s > 0:
        return timedelta(seconds=offline_after_s)
    if not board.interval_s:
        return timedelta(seconds=UNLEARNED_OFFLINE_S)
    learned = OFFLINE_INTERVALS * board.interval_s
    return timedelta(seconds=min(max(learned, MIN_OFFLINE_S), MAX_OFFLINE_S))
