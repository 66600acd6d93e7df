"""What a report does to a board."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from patchbay_locker import rules
from patchbay_locker.board import Access, Board, Effect, Publish, Rental
from patchbay_locker.messages import Alarm, Online, Opened, Rebooted, Report
from patchbay_locker.reports import ALARMS, silence

LONG_AGO = datetime.min.replace(tzinfo=UTC)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def a_report(send: int = 1, **fields: Any) -> Report:
    plain: dict[str, Any] = {
        "boot": 1,
        "cols": 3,
        "rows": 2,
        "act_con": ["111", "111"],
        "connection": 1,
    }
    return Report(board="1953", send=send, **(plain | fields))


def a_board(*cells: int, minutes: int = 60) -> Board:
    """A board that has reported once at NOW and has these cells rented since then."""
    board, _ = rules.report(None, a_report(), NOW)
    for cell in cells:
        board.rentals[str(cell)] = Rental(
            id=f"r{cell}",
            cell=cell,
            code=f"{cell:04}",
            created_at=NOW,
            expires_at=NOW + minutes * MINUTE,
        )
    return board


def fold(board: Board, report: Report, at: datetime = NOW + MINUTE) -> list[Effect]:
    same, effects = rules.report(board, report, at)
    assert same is board
    return effects


def events(effects: list[Effect]) -> list[object]:
    return [effect.data for effect in effects if isinstance(effect, Publish)]


def alarms(effects: list[Effect]) -> list[str]:
    return [event.alarm for event in events(effects) if isinstance(event, Alarm)]


# What is taken over


def test_the_first_report_makes_a_board_that_is_online() -> None:
    board, effects = rules.report(None, a_report(send=7, boot=99), NOW)
    assert effects == [Publish("online", Online("1953"))]
    assert (board.id, board.boot, board.send, board.reports) == ("1953", 99, 7, 1)
    assert (board.first_seen, board.last_seen, board.online) == (NOW, NOW, True)
    assert (board.cols, board.rows, board.act_con, board.rev) == (3, 2, ["111", "111"], 0)


def test_a_report_replaces_what_the_board_said_before() -> None:
    board = a_board()
    effects = fold(
        board, a_report(2, state=[3], box_to=[4], wifi_state=2, gsm_state=3, connection=2)
    )
    assert effects == []
    assert (board.send, board.reports, board.last_seen) == (2, 2, NOW + MINUTE)
    assert (board.state, board.box_to, board.connection) == ([3], [4], 2)
    assert (board.wifi_state, board.gsm_state) == (2, 3)


def test_a_report_without_a_matrix_leaves_the_matrix() -> None:
    board = a_board()
    fold(board, a_report(2, cols=0, rows=0, act_con=[]))
    assert (board.cols, board.rows, board.act_con) == (3, 2, ["111", "111"])


def test_a_late_report_counts_and_opens_but_says_nothing_of_the_board() -> None:
    board = a_board(1)
    before = structs.asdict(board)
    late = a_report(9, late=True, boot=0, box_acc=[1], state=[1], wifi_state=1, act_con=["1"])
    effects = fold(board, late)
    assert [type(effect) for effect in effects] == [Access, Publish]
    changed = {"reports": 2, "accesses": 1, "last_seen": NOW + MINUTE}
    assert structs.asdict(board) == before | changed


def test_an_older_report_does_not_turn_time_back() -> None:
    board = a_board()
    fold(board, a_report(2), NOW - 5 * MINUTE)
    assert (board.last_seen, board.interval_s, board.send) == (NOW, 0.0, 2)


# Accesses


def test_each_accessed_cell_is_a_fact_and_an_event() -> None:
    board = a_board(2)
    at = NOW + MINUTE
    effects = fold(board, a_report(5, box_acc=[2, 54]), at)
    assert effects == [
        Access(2, "r2", 1, 5, at, False),
        Publish("opened", Opened("1953", 2, "r2", 1, 5, False)),
        Access(54, None, 1, 5, at, False),
        Publish("opened", Opened("1953", 54, None, 1, 5, False)),
    ]
    assert board.accesses == 2
    assert "2" in board.rentals


def test_a_cell_named_twice_in_one_report_was_accessed_once() -> None:
    board = a_board()
    assert len(fold(board, a_report(2, box_acc=[3, 3, 3]))) == 2
    assert board.accesses == 1


def test_a_possible_repeat_says_so() -> None:
    effects = fold(a_board(), a_report(2, box_acc=[3], maybe_repeat=True))
    assert [event.maybe_repeat for event in events(effects) if isinstance(event, Opened)] == [True]
    assert [effect.maybe_repeat for effect in effects if isinstance(effect, Access)] == [True]


@pytest.mark.parametrize("at", [NOW - MINUTE, NOW + 60 * MINUTE])
def test_an_access_before_or_after_a_rental_is_not_that_rentals(at: datetime) -> None:
    effects = fold(a_board(3), a_report(2, box_acc=[3]), at)
    assert [event.rental for event in events(effects) if isinstance(event, Opened)] == [None]


# Reboots


def test_a_reboot_that_nobody_ordered_names_no_reset() -> None:
    board = a_board()
    effects = fold(board, a_report(1, boot=2, rebooted=True, reset=True))
    assert effects == [Publish("rebooted", Rebooted("1953", 2, 1, None))]
    assert (board.rev, board.boot) == (0, 2)


def test_a_reboot_completes_the_reset_that_was_ordered() -> None:
    board = a_board()
    rules.reset(board)
    effects = fold(board, a_report(1, boot=2, rebooted=True))
    assert effects == [Publish("rebooted", Rebooted("1953", 2, 1, 1))]
    assert (board.reset_done, board.rev, rules.desired(board).reset_id) == (1, 2, None)


def test_a_board_that_keeps_saying_reset_completes_one_without_a_second_event() -> None:
    board = a_board()
    rules.reset(board)
    assert fold(board, a_report(2, reset=True)) == []
    assert (board.reset_done, board.rev) == (1, 2)
    assert fold(board, a_report(3, reset=True)) == []
    assert board.rev == 2


def test_a_late_report_completes_no_reset() -> None:
    board = a_board()
    rules.reset(board)
    fold(board, a_report(1, late=True, reset=True))
    assert rules.desired(board).reset_id == 1


# Alarms


@pytest.mark.parametrize(
    ("fields", "alarm"),
    [
        ({"state": [1]}, "short_circuit"),
        ({"state": [0, 2]}, "wrong_code"),
        ({"state": [4]}, "unknown_state"),
        ({"wifi_state": 1}, "wifi_fault"),
        ({"gsm_state": 1}, "gsm_fault"),
        ({"act_con": ["111"]}, "matrix_mismatch"),
        ({"act_con": ["111", "11"]}, "matrix_mismatch"),
        ({"act_con": ["1111", "1111"]}, "matrix_mismatch"),
    ],
)
def test_an_alarm_is_raised_once_and_stands_until_it_is_over(
    fields: dict[str, Any], alarm: str
) -> None:
    board = a_board()
    effects = fold(board, a_report(2, **fields))
    assert effects == [Publish("alarm", Alarm("1953", alarm, ALARMS[alarm]))]
    assert board.alarms == [alarm]
    assert fold(board, a_report(3, **fields)) == []
    assert board.alarms == [alarm]
    assert fold(board, a_report(4)) == []
    assert board.alarms == []
    assert alarms(fold(board, a_report(5, **fields))) == [alarm]


def test_several_alarms_stand_side_by_side() -> None:
    board = a_board()
    assert alarms(fold(board, a_report(2, state=[1, 2, 1, 7, 8]))) == [
        "short_circuit",
        "wrong_code",
        "unknown_state",
    ]
    assert alarms(fold(board, a_report(3, state=[2], gsm_state=1))) == ["gsm_fault"]
    assert board.alarms == ["wrong_code", "gsm_fault"]


@pytest.mark.parametrize(
    "fields",
    [
        {"state": [0, 3]},
        {"wifi_state": 2, "gsm_state": 3},
        {"cols": 0, "rows": 0, "act_con": []},
    ],
)
def test_what_a_board_may_say_is_no_alarm(fields: dict[str, Any]) -> None:
    assert fold(a_board(), a_report(2, **fields)) == []


def test_a_first_report_without_a_matrix_is_no_mismatch() -> None:
    board, _ = rules.report(None, a_report(cols=0, rows=0), NOW)
    assert board.alarms == []


# The board's codes against ours


def test_a_difference_that_outlasts_two_answers_is_an_alarm() -> None:
    board = a_board(1, 2)
    assert fold(board, a_report(2, box_eng=[1])) == []
    assert fold(board, a_report(3, box_eng=[1])) == []
    assert alarms(fold(board, a_report(4, box_eng=[1]))) == ["codes_differ"]
    assert fold(board, a_report(5, box_eng=[1])) == []
    assert fold(board, a_report(6, box_eng=[2, 1])) == []
    assert (board.alarms, board.differs) == ([], 0)


def test_a_change_starts_the_count_of_differing_reports_anew() -> None:
    board = a_board(1)
    fold(board, a_report(2))
    fold(board, a_report(3))
    rules.block(board)
    assert fold(board, a_report(4)) == []
    assert fold(board, a_report(5)) == []
    assert alarms(fold(board, a_report(6))) == ["codes_differ"]


def test_a_change_does_not_end_a_standing_difference() -> None:
    board = a_board(1)
    for send in (2, 3, 4):
        fold(board, a_report(send))
    rules.block(board)
    fold(board, a_report(5))
    assert board.alarms == ["codes_differ"]
    fold(board, a_report(6, box_eng=[1]))
    assert board.alarms == []


def test_a_cell_that_ran_out_and_is_not_rented_is_no_difference() -> None:
    board = a_board(1)
    for send in range(2, 9):
        assert fold(board, a_report(send, box_eng=[1], box_to=[5, 6])) == []


@pytest.mark.parametrize("box_eng", [[], [1]])
def test_a_rented_cell_that_the_board_calls_run_out_is_a_difference(box_eng: list[int]) -> None:
    board = a_board(1)
    for send in (2, 3):
        fold(board, a_report(send, box_eng=box_eng, box_to=[1]))
    assert alarms(fold(board, a_report(4, box_eng=box_eng, box_to=[1]))) == ["codes_differ"]


def test_a_late_report_is_not_compared() -> None:
    board = a_board(1)
    for send in range(2, 9):
        assert fold(board, a_report(send, late=True)) == []
    assert board.differs == 0


# Online, and the learned interval


def test_a_board_that_was_offline_is_online_again() -> None:
    board = a_board()
    rules.tick(board, NOW + 60 * MINUTE, 0, LONG_AGO)
    assert events(fold(board, a_report(2), NOW + 61 * MINUTE)) == [Online("1953")]
    assert events(fold(board, a_report(3), NOW + 62 * MINUTE)) == []


def test_an_old_report_does_not_make_a_board_online() -> None:
    board = a_board()
    rules.tick(board, NOW + 60 * MINUTE, 0, LONG_AGO)
    assert fold(board, a_report(2), NOW) == []
    assert not board.online


def steady(board: Board, gap_s: float, count: int) -> datetime:
    """So many more reports, so far apart; answers the time of the last."""
    for _ in range(count):
        fold(board, a_report(board.send + 1), board.last_seen + timedelta(seconds=gap_s))
    return board.last_seen


@pytest.mark.parametrize(
    ("gap_s", "limit_s"), [(1, 30), (60, 180), (600, 1800), (5000, 15_000), (86_400, 21_600)]
)
def test_a_board_may_be_silent_for_three_intervals_within_bounds(
    gap_s: float, limit_s: float
) -> None:
    board = a_board()
    steady(board, gap_s, 1)
    assert silence(board, 0) == timedelta(seconds=limit_s)


def test_before_anything_is_learned_a_board_may_be_silent_for_five_minutes() -> None:
    assert silence(a_board(), 0) == 5 * MINUTE


def test_the_setting_comes_before_what_was_learned() -> None:
    board = a_board()
    steady(board, 60, 5)
    assert silence(board, 7.5) == timedelta(seconds=7.5)


def test_a_burst_of_accesses_does_not_make_a_slow_board_look_dead() -> None:
    board = a_board()
    steady(board, 300, 3)
    steady(board, 2, 10)
    assert silence(board, 0) > timedelta(seconds=300)


def test_a_board_that_slows_down_is_offline_a_few_times_only() -> None:
    board = a_board()
    steady(board, 2, 50)
    times_offline = 0
    for _ in range(20):
        next_at = board.last_seen + 10 * MINUTE
        times_offline += len(rules.tick(board, next_at, 0, LONG_AGO))
        fold(board, a_report(board.send + 1), next_at)
    assert times_offline <= 4
    assert board.online


def test_an_outage_of_an_hour_hardly_moves_the_interval() -> None:
    board = a_board()
    steady(board, 60, 3)
    steady(board, 3600, 1)
    assert board.interval_s == 150


@pytest.mark.parametrize("kind", ["late", "maybe_repeat", "rebooted"])
def test_reports_out_of_the_boards_rhythm_teach_nothing(kind: str) -> None:
    board = a_board()
    steady(board, 60, 1)
    fold(board, a_report(3, **{kind: True}), board.last_seen + timedelta(seconds=1))
    assert board.interval_s == 60


def test_two_reports_at_the_same_moment_teach_nothing() -> None:
    board = a_board()
    fold(board, a_report(2), NOW)
    assert board.interval_s == 0
