"""What rentals do when it is not sure what time it is, and two boards with one ID."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patchbay_locker import rules
from patchbay_locker.board import Board, Rental
from patchbay_locker.messages import Alarm, Assign, Extend, Report, Revoke
from patchbay_locker.rules import Publish, Rejected, SaveRental

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def a_report(send: int, **fields: object) -> Report:
    return Report(board="1953", boot=1, send=send, cols=2, rows=1, act_con=["11"], **fields)  # type: ignore[arg-type]


def a_board(*rentals: Rental) -> Board:
    board, _ = rules.report(None, a_report(1), NOW)
    board.rentals = {str(one.cell): one for one in rentals}
    return board


def a_rental(cell: int, clock: str = "") -> Rental:
    return Rental(
        id=f"r{cell}",
        cell=cell,
        code=f"{cell:04}",
        created_at=NOW - HOUR,
        expires_at=NOW,
        clock=clock,
    )


def held(rental: Rental) -> datetime:
    """Ten more minutes for what was not made in this boot."""
    return rental.expires_at if rental.clock else NOW + timedelta(minutes=10)


def test_what_is_held_does_not_end() -> None:
    board = a_board(a_rental(1), a_rental(2, "this boot"))
    later = NOW + timedelta(minutes=1)
    rules.tick(board, later, 0, LONG_AGO, held)
    assert list(board.rentals) == ["1"]
    assert rules.due(board, 0, LONG_AGO, held) == NOW + timedelta(minutes=5)  # its silence
    assert rules.desired(board, held).rentals[0].expires_at == "2026-03-01T12:10:00.000Z"
    with pytest.raises(Rejected, match="rented"):
        rules.assign(board, Assign(1, 5), later, str, str, 4, held)
    answer, _ = rules.extend(board, Extend(1, 30), later, held)
    assert answer["expires_at"] == "2026-03-01T12:30:00.000Z"
    rules.revoke(board, Revoke(1), later, held)
    assert not board.rentals


def test_a_board_is_told_another_list_only_if_something_of_it_is_held() -> None:
    assert not rules.hold(board := a_board(a_rental(1, "this boot")), held)
    assert board.rev == 0
    assert rules.hold(board := a_board(a_rental(1)), held)
    assert board.rev == 1


def test_what_was_made_by_the_old_clock_moves_with_it() -> None:
    board = a_board(a_rental(1), a_rental(2, "this boot"))
    step = timedelta(days=1000)
    effects = rules.move(board, step, bool, NOW - HOUR, NOW)
    [moved] = [effect for effect in effects if isinstance(effect, SaveRental)]
    assert moved.rental == board.rentals["2"]
    assert (moved.rental.expires_at, moved.rental.clock) == (NOW + step, "")
    assert board.rentals["1"].expires_at == NOW
    assert (board.last_seen, board.rev) == (NOW + step, 1)
    assert rules.move(board, step, bool, NOW + HOUR, NOW + step) == []


def test_a_new_rental_is_marked_with_the_clock_that_made_it() -> None:
    board = a_board()
    rules.assign(board, Assign(1, 5, "1492"), NOW, lambda: "r", str, 4, clock="this boot")
    assert board.rentals["1"].clock == "this boot"


# Two boards


def alarms(effects: list[rules.Effect]) -> list[Alarm]:
    data = [effect.data for effect in effects if isinstance(effect, Publish)]
    return [one for one in data if isinstance(one, Alarm)]


def test_two_boards_are_one_alarm_that_names_both_until_there_is_one() -> None:
    board = a_board()
    peers = ["10.0.0.1:4000", "10.0.0.2:5000"]
    [alarm] = alarms(rules.report(board, a_report(2, peers=peers), NOW)[1])
    assert alarm.alarm == "two_boards"
    assert "10.0.0.1:4000 and 10.0.0.2:5000" in alarm.message
    assert alarms(rules.report(board, a_report(3, peers=peers), NOW)[1]) == []
    rules.report(board, a_report(4), NOW)
    assert board.alarms == []


@pytest.mark.parametrize(
    ("told", "done"), [(True, True), (False, False), (None, True)], ids=["told", "not", "old edge"]
)
def test_a_lower_number_alone_is_no_ordered_reboot(told: bool | None, done: bool) -> None:
    board = a_board()
    rules.reset(board)
    rules.report(board, a_report(0, rebooted=True, told_reset=told), NOW)
    assert (board.pending_reset() is None) is done


def test_a_board_that_says_that_it_has_rebooted_has() -> None:
    board = a_board()
    rules.reset(board)
    rules.report(board, a_report(0, rebooted=True, reset=True), NOW)
    assert board.pending_reset() is None
