"""What GUIs are told of a run, on a loop whose clock the test drives."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchbay_bartender.edge.countdown import SILENCE_S, Countdown
from patchbay_bartender.messages import whole_seconds


class Timers:
    """As much of an event loop as a countdown needs, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._heap, (at, next(self._count), timer))
        return timer

    def pass_to(self, moment: float) -> None:
        """Let time pass, and timers fire."""
        while self._heap and self._heap[0][0] <= moment:
            at, _, timer = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            if not timer.cancelled:
                timer.call()
        self.now = moment


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()

    def running() -> Any:
        return timers

    monkeypatch.setattr(asyncio, "get_running_loop", running)
    return timers


@pytest.fixture
def said() -> list[int]:
    return []


@pytest.fixture
def count(timers: Timers, said: list[int]) -> Countdown:
    return Countdown(said.append)


def test_it_counts_from_the_start_to_zero(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 5.964)
    assert said == [6]
    timers.pass_to(5.97)
    assert said == [6, 5, 4, 3, 2, 1]
    assert count.remaining == 1
    count.idle()
    assert said == [6, 5, 4, 3, 2, 1, 0]
    assert count.remaining == 0
    timers.pass_to(100)
    count.idle()
    assert said == [6, 5, 4, 3, 2, 1, 0]


def test_whole_seconds_are_said_once_each(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 2.0)
    timers.pass_to(0.004)
    count.busy("r1", 2.0)  # the pumps have begun a little later
    timers.pass_to(2.01)
    count.idle()
    assert said == [2, 1, 0]


def test_a_run_that_is_stopped_is_at_zero_at_once(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 10)
    timers.pass_to(1.5)
    count.idle()
    assert said == [10, 9, 0]


def test_a_run_that_takes_longer_than_was_thought_goes_on(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 2)
    timers.pass_to(1.9)
    count.busy("r1", 2)
    timers.pass_to(4)
    count.idle()
    assert said == [2, 1, 2, 1, 0]


def test_a_run_of_which_nobody_says_anything_more_is_over_some_time(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 2)
    timers.pass_to(2 + SILENCE_S - 0.1)
    assert said == [2, 1]
    timers.pass_to(2 + SILENCE_S)
    assert said == [2, 1, 0]
    count.busy("r1", 0)  # who comes back says first what it knew last
    assert said == [2, 1, 0]
    count.idle()
    assert said == [2, 1, 0]


def test_the_next_run_begins_anew(count: Countdown, timers: Timers, said: list[int]) -> None:
    count.busy("r1", 1)
    count.busy("r2", 3)
    timers.pass_to(1.5)
    count.close()
    timers.pass_to(100)
    assert said == [1, 3, 2]


def test_what_is_said_in_whole_seconds_moves_the_end_only_when_it_is_far_off(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 5.2)
    timers.pass_to(0.1)
    count.about("r1", 6)
    timers.pass_to(1.1)
    assert said == [6, 5]
    count.about("r1", 2)
    timers.pass_to(3.0)
    count.idle()
    assert said == [6, 5, 2, 1, 0]


def test_what_a_run_took_some_time_ago_is_said_only_if_nobody_says_better(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.found("r1", 60)
    timers.pass_to(0.5)
    count.about("r1", 3)
    timers.pass_to(1.6)
    assert said == [2]
    count.found("r1", 60)  # after a reconnect
    timers.pass_to(2.6)
    assert said == [2, 1]
    count.idle()
    count.found("r2", 4)
    timers.pass_to(4.2)
    assert said == [2, 1, 0, 3]


def test_an_end_that_moves_a_little_repeats_no_second(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 5.0)
    timers.pass_to(0.2)
    count.busy("r1", 5.1)  # a scheduler that is back takes it for this late
    timers.pass_to(1.0)
    assert said == [5]
    assert count.remaining == 5
    timers.pass_to(2.5)
    count.busy("r1", 2.5)
    timers.pass_to(5.0)
    count.idle()
    assert said == [5, 4, 3, 2, 1, 0]


def test_an_end_that_comes_a_little_nearer_leaves_no_second_out(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 5.2)
    timers.pass_to(0.9)
    count.busy("r1", 3.9)
    assert count.remaining == 4
    timers.pass_to(4.8)
    count.idle()
    assert said == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("left_s", [1.98, 2.03, 2.98])  # the first was a little late on its way
def test_who_hears_of_a_run_in_whole_seconds_only_counts_to_its_end(
    count: Countdown, timers: Timers, said: list[int], left_s: float
) -> None:
    count.found("r1", 60)  # a GUI's edge that was killed
    timers.pass_to(0.5)
    count.about("r1", 3)
    timers.pass_to(0.5 + left_s)
    count.idle()
    assert said == [2, 1, 0]


def test_who_was_stopped_for_a_while_says_all_that_has_passed(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 5.0)
    timers.now = 3.5  # nothing fires before: the process did not run
    timers.pass_to(3.5)
    assert said == [5, 4, 3, 2]
    timers.now = 5.0
    count.idle()  # heard before the timers were looked at
    assert said == [5, 4, 3, 2, 1, 0]


def test_what_comes_of_a_run_that_is_over_is_not_said(
    count: Countdown, timers: Timers, said: list[int]
) -> None:
    count.busy("r1", 1.0)
    count.idle()
    count.about("r1", 1)
    count.busy("r1", 1.0)
    count.found("r1", 1.0)
    timers.pass_to(100)
    assert said == [1, 0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.floats(0.1, 12.0),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(-0.7, 0.7), st.booleans())),
)
def test_however_roughly_and_late_it_hears_each_second_is_said_once(
    timers: Timers, total_s: float, hears: list[tuple[float, float, bool]]
) -> None:
    timers.__init__()  # type: ignore[misc]  # one fixture for all examples
    said: list[int] = []
    count = Countdown(said.append)
    count.busy("r1", total_s)
    for later_s, wrong_s, stalls in hears:
        moment = min(timers.now + later_s, total_s)
        if stalls:
            timers.now = moment
        timers.pass_to(moment)
        left_s = total_s - moment
        count.busy("r1", max(0.0, left_s + wrong_s))
        count.about("r1", whole_seconds(left_s))
    timers.pass_to(total_s)
    count.idle()
    assert said == list(range(whole_seconds(total_s), -1, -1))
