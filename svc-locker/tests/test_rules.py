"""Commands, and what time does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest

from patchbay_locker import rules
from patchbay_locker.messages import (
    MAX_MINUTES,
    Assign,
    Expired,
    Extend,
    Offline,
    Rejected,
    Report,
    Revoke,
)
from patchbay_locker.rules import Board, Effect, Publish, Rental, SaveRental

LONG_AGO = datetime.min.replace(tzinfo=UTC)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
BEGIN = NOW.replace(microsecond=123_000)
MINUTE = timedelta(minutes=1)


def a_board(*act_con: str) -> Board:
    """A board of rows of three cells."""
    report = Report(board="1953", boot=1, send=1, cols=3, rows=len(act_con), act_con=list(act_con))
    board, _ = rules.report(None, report, NOW)
    return board


class Codes:
    """Draws the given codes, then the last one for ever."""

    def __init__(self, *codes: str) -> None:
        self.left = list(codes)
        self.drawn = 0

    def __call__(self, length: int) -> str:
        self.drawn += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def assign(
    board: Board,
    cell: int | str = "auto",
    minutes: int = 60,
    code: str | None = None,
    *,
    now: datetime = NOW,
    draw: Callable[[int], str] | None = None,
    length: int = 4,
) -> tuple[rules.Answer, list[Effect]]:
    command = msgspec.convert({"cell": cell, "minutes": minutes, "code": code}, Assign)
    numbers = count(len(board.rentals) + 1)
    return rules.assign(
        board, command, now, lambda: f"id{next(numbers)}", draw or Codes("1492"), length
    )


def refused(board: Board, act: Callable[[], object]) -> str:
    """The code of the refusal, after which the board is as it was."""
    before = msgspec.json.encode(board)
    with pytest.raises(Rejected) as refusal:
        act()
    assert msgspec.json.encode(board) == before
    return refusal.value.code


# assign


def test_assign_rents_a_cell_and_says_all_that_a_customer_needs() -> None:
    board = a_board("111")
    command = Assign(cell=2, minutes=90, code="0042", holder="Ann")
    answer, effects = rules.assign(board, command, NOW, lambda: "id1", Codes("9999"), 4)
    assert answer == {
        "rental": "id1",
        "cell": 2,
        "code": "0042",
        "expires_at": "2026-03-01T13:30:00.123Z",
    }
    rental = Rental(
        id="id1",
        cell=2,
        code="0042",
        holder="Ann",
        created_at=BEGIN,
        expires_at=BEGIN + 90 * MINUTE,
    )
    assert effects == [SaveRental(rental, "1953", "active")]
    assert (board.rentals, board.rev) == ({"2": rental}, 1)


def test_auto_takes_the_lowest_free_cell_that_has_a_lock() -> None:
    board = a_board("011", "101")
    draw = Codes("1", "2", "3", "4")
    assert [assign(board, draw=draw)[0]["cell"] for _ in range(4)] == [2, 3, 4, 6]
    assert refused(board, lambda: assign(board, code="5")) == "no_free_cell"


@pytest.mark.parametrize("cell", [-1, 0, 7])
def test_a_cell_outside_the_matrix_does_not_exist(cell: int) -> None:
    board = a_board("111", "111")
    assert refused(board, lambda: assign(board, cell)) == "no_such_cell"


def test_a_cell_without_a_lock_is_not_rented() -> None:
    board = a_board("101")
    assert refused(board, lambda: assign(board, 2)) == "cell_not_connected"


def test_a_rented_cell_is_busy_whatever_the_board_says() -> None:
    board = a_board("111")
    assign(board, 2)
    board.box_eng = []
    assert refused(board, lambda: assign(board, 2, code="7")) == "cell_busy"


def test_a_cell_that_only_the_board_calls_engaged_is_free() -> None:
    board = a_board("111")
    board.box_eng = [1]
    assert assign(board)[0]["cell"] == 1


@pytest.mark.parametrize("minutes", [-1, 0, MAX_MINUTES + 1, 2**53])
def test_minutes_outside_a_year_are_refused(minutes: int) -> None:
    board = a_board("111")
    assert refused(board, lambda: assign(board, 1, minutes)) == "bad_minutes"


@pytest.mark.parametrize("minutes", [1, MAX_MINUTES])
def test_a_minute_and_a_year_are_granted(minutes: int) -> None:
    board = a_board("111")
    assign(board, 1, minutes)
    assert board.rentals["1"].expires_at == BEGIN + minutes * MINUTE


@pytest.mark.parametrize("code", ["", "12a4", "-123", " 123", "1 23", "١٢٣٤", "²", "1" * 17])
def test_a_code_is_1_to_16_ascii_digits(code: str) -> None:
    board = a_board("111")
    assert refused(board, lambda: assign(board, code=code)) == "bad_code"


@pytest.mark.parametrize("code", ["0", "1" * 16])
def test_a_given_code_may_be_of_another_length_than_drawn_ones(code: str) -> None:
    assert assign(a_board("111"), code=code, length=4)[0]["code"] == code


def test_a_code_is_unique_on_a_board() -> None:
    board = a_board("111")
    assign(board, 1, code="1492")
    assert refused(board, lambda: assign(board, 2, code="1492")) == "code_in_use"
    assert assign(board, 2, code="01492")[0]["code"] == "01492"


def test_the_code_of_an_ended_rental_may_be_used_again() -> None:
    board = a_board("111")
    assign(board, 1, code="1492")
    rules.revoke(board, Revoke(1), NOW)
    assert assign(board, 2, code="1492")[0]["code"] == "1492"


@pytest.mark.parametrize(
    ("cell", "minutes", "code", "error"),
    [
        (9, 0, "x", "bad_minutes"),
        (9, 1, "x", "bad_code"),
        (9, 1, "1492", "no_such_cell"),
        (2, 1, "1492", "cell_not_connected"),
        (1, 1, "1492", "cell_busy"),
        (3, 1, "1492", "code_in_use"),
    ],
)
def test_of_several_errors_the_first_of_the_documented_order_is_told(
    cell: int, minutes: int, code: str, error: str
) -> None:
    board = a_board("101")
    assign(board, 1, code="1492")
    assert refused(board, lambda: assign(board, cell, minutes, code)) == error


def test_a_drawn_code_that_is_taken_is_drawn_again() -> None:
    board = a_board("111")
    assign(board, code="0001")
    draw = Codes("0001", "0001", "0777")
    assert assign(board, draw=draw)[0]["code"] == "0777"
    assert draw.drawn == 3


def test_drawing_walks_when_luck_does_not_help() -> None:
    board = a_board("111")
    assign(board, code="9999")
    assign(board, code="0000")
    assert assign(board, draw=Codes("9999"))[0]["code"] == "0001"


def test_when_every_code_is_in_use_none_is_drawn() -> None:
    board = a_board("111", "111", "111", "111")
    codes = [assign(board, draw=Codes("5"), length=1)[0]["code"] for _ in range(10)]
    assert sorted(codes) == list("0123456789")
    assert refused(board, lambda: assign(board, length=1, draw=Codes("5"))) == "code_in_use"


def test_assign_takes_over_a_cell_whose_time_has_come_before_any_tick() -> None:
    board = a_board("100")
    assign(board, 1, 1, "1492")
    later = BEGIN + MINUTE
    answer, effects = assign(board, 1, 5, "1492", now=later)
    assert [getattr(effect, "status", None) for effect in effects] == ["expired", None, "active"]
    assert board.rentals["1"].id == answer["rental"]
    assert rules.tick(board, later, 3600, LONG_AGO) == []


# revoke, extend


def test_revoke_ends_a_rental_now() -> None:
    board = a_board("111")
    assign(board, 2)
    rental = board.rentals["2"]
    answer, effects = rules.revoke(board, Revoke(2), NOW + MINUTE)
    assert answer == {"rental": rental.id, "cell": 2}
    assert effects == [SaveRental(rental, "1953", "revoked", NOW + MINUTE)]
    assert (board.rentals, board.rev) == ({}, 2)


def test_extend_adds_to_what_is_left() -> None:
    board = a_board("111")
    assign(board, 2, 60)
    answer, effects = rules.extend(board, Extend(2, 30), NOW + 10 * MINUTE)
    assert answer == {"rental": "id1", "cell": 2, "expires_at": "2026-03-01T13:30:00.123Z"}
    assert board.rentals["2"].expires_at == BEGIN + 90 * MINUTE
    assert effects == [SaveRental(board.rentals["2"], "1953", "active")]
    assert board.rev == 2


def test_an_effect_says_what_was_true_when_it_was_made() -> None:
    board = a_board("111")
    _, effects = assign(board, 2, 60)
    rules.extend(board, Extend(2, 30), NOW)
    assert isinstance(effects[0], SaveRental)
    assert effects[0].rental.expires_at == BEGIN + 60 * MINUTE


@pytest.mark.parametrize("minutes", [-5, 0, MAX_MINUTES + 1, MAX_MINUTES])
def test_extend_grants_no_more_than_a_year_in_all(minutes: int) -> None:
    board = a_board("111")
    assign(board, 2, 60)
    assert refused(board, lambda: rules.extend(board, Extend(2, minutes), NOW)) == "bad_minutes"


def test_extend_grants_a_year_in_all() -> None:
    board = a_board("111")
    assign(board, 2, 60)
    rules.extend(board, Extend(2, MAX_MINUTES - 60), BEGIN)
    assert board.rentals["2"].expires_at == BEGIN + MAX_MINUTES * MINUTE


@pytest.mark.parametrize("cell", [-1, 0, 1, 3, 99])
def test_a_cell_without_a_rental_has_none_to_revoke_or_extend(cell: int) -> None:
    board = a_board("101")
    assign(board, 3, 1)
    over = BEGIN + MINUTE
    assert refused(board, lambda: rules.revoke(board, Revoke(cell), over)) == "not_rented"
    assert refused(board, lambda: rules.extend(board, Extend(cell, 5), over)) == "not_rented"


def test_a_rental_in_a_cell_that_the_board_has_no_more_can_be_revoked() -> None:
    board = a_board("111", "111")
    assign(board, 6)
    board.rows = 1
    assert rules.revoke(board, Revoke(6), NOW)[0]["cell"] == 6


# block, reset, unknown boards


def test_block_and_unblock_change_the_board_once_each() -> None:
    board = a_board("111")
    assert rules.block(board) == ({"blocked": True}, [])
    assert rules.block(board) == ({"blocked": True}, [])
    assert (rules.desired(board).blocked, board.rev) == (True, 1)
    assert rules.unblock(board) == ({"blocked": False}, [])
    assert rules.unblock(board) == ({"blocked": False}, [])
    assert (rules.desired(board).blocked, board.rev) == (False, 2)


def test_a_reset_that_is_pending_is_not_ordered_twice() -> None:
    board = a_board("111")
    assert rules.reset(board) == ({"reset_id": 1}, [])
    assert rules.reset(board) == ({"reset_id": 1}, [])
    assert board.rev == 1


def test_a_reset_after_a_reboot_gets_a_number_of_its_own() -> None:
    board = a_board("111")
    rules.reset(board)
    rules.report(board, Report(board="1953", boot=2, send=1, rebooted=True), NOW + MINUTE)
    assert rules.reset(board) == ({"reset_id": 2}, [])
    assert board.rev == 3


def test_a_reset_never_gets_a_number_that_is_done() -> None:
    board = a_board("111")
    board.reset_done = 5
    assert rules.reset(board) == ({"reset_id": 6}, [])


def test_a_board_that_never_reported_is_unknown() -> None:
    board = a_board("111")
    assert rules.known(board, "1953") is board
    with pytest.raises(Rejected, match="unknown_board: board 7 has never reported"):
        rules.known(None, "7")


# Time


def test_a_rental_ends_on_time_and_its_code_is_desired_no_more() -> None:
    board = a_board("111")
    assign(board, 1, 1, "1")
    assign(board, 2, 2, "2")
    first, second = board.rentals["1"], board.rentals["2"]
    assert rules.tick(board, BEGIN + MINUTE - timedelta(milliseconds=1), 3600, LONG_AGO) == []
    assert rules.tick(board, NOW + MINUTE, 3600, LONG_AGO) == [
        SaveRental(first, "1953", "expired", first.expires_at),
        Publish("expired", Expired("1953", first.id, 1)),
    ]
    assert board.rentals == {"2": second}
    assert (board.rev, [r.cell for r in rules.desired(board).rentals]) == (3, [2])
    assert rules.tick(board, NOW + MINUTE, 3600, LONG_AGO) == []


def test_rentals_that_end_together_are_one_change() -> None:
    board = a_board("111")
    for code in "123":
        assign(board, minutes=1, code=code)
    assert len(rules.tick(board, NOW + MINUTE, 3600, LONG_AGO)) == 6
    assert (board.rentals, board.rev) == ({}, 4)


def test_a_rental_ends_while_its_board_is_away() -> None:
    board = a_board("111")
    assign(board, minutes=60)
    rules.tick(board, NOW + 30 * MINUTE, 0, LONG_AGO)
    assert not board.online
    assert [type(effect) for effect in rules.tick(board, NOW + 60 * MINUTE, 0, LONG_AGO)] == [
        SaveRental,
        Publish,
    ]


def test_a_silent_board_is_offline_once() -> None:
    board = a_board("111")
    assert rules.tick(board, NOW + timedelta(seconds=9.9), 10, LONG_AGO) == []
    offline = Publish("offline", Offline("1953", "2026-03-01T12:00:00.123Z"))
    assert rules.tick(board, NOW + timedelta(seconds=10), 10, LONG_AGO) == [offline]
    assert rules.tick(board, NOW + timedelta(seconds=11), 10, LONG_AGO) == []
    assert (board.online, board.rev) == (False, 0)


def test_due_is_the_next_moment_at_which_something_happens() -> None:
    board = a_board("111")
    assert rules.due(board, 0, LONG_AGO) == NOW + 5 * MINUTE
    assign(board, minutes=1, code="1")
    assert rules.due(board, 0, LONG_AGO) == BEGIN + MINUTE
    rules.tick(board, NOW + 5 * MINUTE, 0, LONG_AGO)
    assert rules.due(board, 0, LONG_AGO) is None


def test_silence_counts_from_when_we_began_to_listen() -> None:
    board = a_board()
    began = NOW + timedelta(hours=2)
    assert rules.due(board, 10, began) == began + timedelta(seconds=10)
    assert rules.tick(board, began + timedelta(seconds=9), 10, began) == []
    assert len(rules.tick(board, began + timedelta(seconds=10), 10, began)) == 1
