"""When a run counts as lost, by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from patchbay_bartender.bar import Run
from patchbay_bartender.watch import ANSWER_S, LISTEN_S, LOST, NOT_STARTED, SILENT, Watch

RUN = Run(
    id="r1",
    kind="blend",
    by="",
    ordered_at=datetime(2026, 11, 20, tzinfo=UTC),
    seconds={"0": 10.0, "1": 4.0},
    millilitres={},
)


@pytest.fixture
def watch() -> Watch:
    return Watch(start_deadline_s=2.0, lost_after_s=5.0)


def test_nothing_is_overdue_while_nothing_runs(watch: Watch) -> None:
    assert not watch.overdue(1e9)
    assert watch.remaining_s(0) == 0


def test_pumps_that_say_nothing_of_an_order_have_not_begun_it(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    assert watch.remaining_s(101) == 9
    assert not watch.overdue(100 + 2 * 2 + ANSWER_S - 0.1)
    assert watch.overdue(100 + 2 * 2 + ANSWER_S)
    assert watch.why == NOT_STARTED


def test_of_a_confirmed_run_that_the_pumps_say_nothing_of_nobody_knows(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.confirmed(101)
    assert watch.remaining_s(101) == 10
    assert not watch.overdue(101 + 2 + ANSWER_S - 0.1)
    assert watch.overdue(101 + 2 + ANSWER_S)
    assert watch.why == SILENT


def test_a_run_that_is_called_off_has_failed_at_once(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.call_off("cancelled", "nobody wants it", 100.5)
    assert watch.overdue(100.5)
    assert watch.why == ("cancelled", "nobody wants it")


def test_a_run_that_is_under_way_has_its_time_and_some(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.runs(10, 100.05)
    assert not watch.overdue(110.05 + ANSWER_S - 0.1)
    assert watch.overdue(110.05 + ANSWER_S)
    assert watch.why == SILENT


def test_an_estimate_that_is_close_to_the_last_one_does_not_move_the_end(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.runs(10, 100.05)
    assert watch.remaining_s(101) == 9
    watch.runs(5, 101)
    assert watch.remaining_s(101) == 5


def test_pumps_that_are_away_for_too_long_are_lost(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.runs(10, 100)
    watch.away(102)
    watch.away(106)  # it is still away: nothing begins anew
    assert not watch.overdue(106.9)
    assert watch.overdue(107)
    assert watch.why == LOST


def test_pumps_that_come_back_and_still_run_are_not(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.runs(10, 100)
    watch.away(102)
    watch.runs(6, 104)
    assert not watch.overdue(108)
    watch.away(109)
    assert not watch.overdue(111.9)  # never later than its end and some


def test_a_run_from_the_store_that_the_pumps_do_not_know_never_began(watch: Watch) -> None:
    watch.found(RUN, 4, 100)
    assert not watch.overdue(100)
    watch.idle("r0", 100.1)
    assert watch.overdue(100.1)
    assert watch.why == NOT_STARTED


def test_a_run_from_the_store_that_has_ended_gets_time_for_its_event(watch: Watch) -> None:
    watch.found(RUN, 4, 100)
    assert watch.remaining_s(100) == 6
    watch.idle("r1", 100.1)
    assert not watch.overdue(100 + LISTEN_S - 0.1)
    assert watch.overdue(100 + LISTEN_S)


def test_pumps_that_are_idle_may_not_have_the_order_yet(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.confirmed(100)
    watch.idle(None, 100.01)
    assert not watch.overdue(101)
    watch.idle(None, 102.0)
    assert watch.overdue(102.0)


def test_after_a_connect_there_is_time_to_say_what_has_happened(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.runs(10, 100)
    watch.heard_again(500)
    assert not watch.overdue(500 + LISTEN_S - 0.1)
    assert watch.overdue(500 + LISTEN_S)


def test_what_is_over_is_never_overdue(watch: Watch) -> None:
    watch.ordered(RUN, 100)
    watch.over()
    assert not watch.overdue(1e9)
    assert watch.run_id is None
