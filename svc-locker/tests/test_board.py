"""The state of a board, its matrix and its two views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from patchbay_locker.board import Board, Rental, cells, desired, has_lock, state, with_lock
from patchbay_locker.messages import DesiredRental, StateRental

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SEED_MATRIX = [
    "01011011",
    "11111111",
    "10110111",
    "11111111",
    "10011111",
    "11111111",
    "10110111",
    "11111111",
]


def a_board(**fields: object) -> Board:
    values = {"id": "1953", "boot": 1, "send": 1, "first_seen": NOW, "last_seen": NOW} | fields
    return msgspec.convert(values, Board)


def a_rental(cell: int, code: str = "1492", holder: str | None = None) -> Rental:
    return Rental(
        id=f"r{cell}",
        cell=cell,
        code=code,
        holder=holder,
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )


def test_cells_count_rightwards_then_down() -> None:
    board = a_board(cols=3, rows=2, act_con=["101", "010"])
    assert list(cells(board)) == [1, 2, 3, 4, 5, 6]
    assert [cell for cell in cells(board) if has_lock(board, cell)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("cols", "rows", "act_con"),
    [
        (8, 8, SEED_MATRIX),
        (3, 3, ["11", "1"]),
        (5, 6, ["11111000"] * 8),
        (0, 0, ["11"]),
        (2, 2, []),
        (2, 2, ["", "1x"]),
    ],
)
def test_all_cells_with_a_lock_are_those_that_have_one(
    cols: int, rows: int, act_con: list[str]
) -> None:
    board = a_board(cols=cols, rows=rows, act_con=act_con)
    assert with_lock(board) == [cell for cell in cells(board) if has_lock(board, cell)]


def test_the_seeds_matrix_lacks_the_locks_that_its_zeros_name() -> None:
    board = a_board(cols=8, rows=8, act_con=SEED_MATRIX)
    without = [cell for cell in cells(board) if not has_lock(board, cell)]
    assert without == [1, 3, 6, 18, 21, 34, 35, 50, 53]


def test_a_missing_digit_or_group_means_no_lock() -> None:
    board = a_board(cols=3, rows=3, act_con=["11", "1"])
    assert [cell for cell in cells(board) if has_lock(board, cell)] == [1, 2, 4]


def test_a_matrix_larger_than_cols_and_rows_is_numbered_by_cols_and_rows() -> None:
    board = a_board(cols=5, rows=6, act_con=["11111000"] * 8)
    assert len(cells(board)) == 30
    assert all(has_lock(board, cell) for cell in cells(board))


@pytest.mark.parametrize("cell", [-1, 0, 7, 1000])
def test_a_cell_outside_the_matrix_has_no_lock(cell: int) -> None:
    assert not has_lock(a_board(cols=3, rows=2, act_con=["111111"] * 8), cell)


def test_a_board_that_has_not_said_its_matrix_has_no_cells() -> None:
    board = a_board()
    assert not cells(board)
    assert not has_lock(board, 1)


def test_desired_carries_codes_by_rising_cell() -> None:
    board = a_board(rev=7, rentals={"10": a_rental(10, "0001"), "9": a_rental(9, "0002")})
    wanted = desired(board)
    assert (wanted.rev, wanted.board, wanted.reset_id, wanted.blocked) == (7, "1953", None, False)
    assert wanted.rentals == [
        DesiredRental(9, "0002", "2026-03-01T13:00:00.000Z"),
        DesiredRental(10, "0001", "2026-03-01T13:00:00.000Z"),
    ]


def test_a_reset_is_desired_until_it_is_done() -> None:
    assert desired(a_board(reset_id=3, reset_done=2)).reset_id == 3
    assert desired(a_board(reset_id=3, reset_done=3)).reset_id is None
    assert desired(a_board(reset_done=3)).reset_id is None


def test_the_state_tells_free_from_busy_and_carries_no_codes() -> None:
    board = a_board(
        cols=3,
        rows=1,
        act_con=["011"],
        online=True,
        rentals={"2": a_rental(2, "86421357", "Ann")},
        alarms=["wifi_fault"],
    )
    seen = state(board)
    assert (seen.free, seen.busy, seen.online, seen.alarms) == ([3], [2], True, ["wifi_fault"])
    assert seen.rentals == [StateRental("r2", 2, "2026-03-01T13:00:00.000Z", "Ann")]
    assert seen.last_seen == "2026-03-01T12:00:00.000Z"
    assert b"86421357" not in msgspec.json.encode(seen)


def test_a_rented_cell_that_lost_its_lock_is_busy_and_not_free() -> None:
    board = a_board(cols=2, rows=1, act_con=["10"], rentals={"2": a_rental(2)})
    assert (state(board).free, state(board).busy) == ([1], [2])


def test_a_board_survives_the_way_into_a_document_and_back() -> None:
    board = a_board(cols=1, rows=1, act_con=["1"], rentals={"1": a_rental(1)}, reset_id=1)
    document = msgspec.to_builtins(board, builtin_types=(datetime,))
    assert msgspec.convert(document, Board) == board


def test_a_rental_runs_from_its_first_moment_until_before_its_last() -> None:
    rental = a_rental(1)
    moment = timedelta(milliseconds=1)
    assert rental.runs(rental.created_at)
    assert not rental.runs(rental.created_at - moment)
    assert rental.runs(rental.expires_at - moment)
    assert not rental.runs(rental.expires_at)
