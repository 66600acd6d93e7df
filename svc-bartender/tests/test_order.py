"""How old an order is, and whether its times are right; all by hand."""

from __future__ import annotations

import math

import pytest

from patchbay_bartender.edge.order import age_s, complaint
from patchbay_bartender.messages import Confirm, Run

ORDER = Run(run_id="r", ordered_at=5000.0, clock="theirs", seconds={"0": 1.0})


def confirm(now: float, clock: str = "theirs") -> Confirm:
    return Confirm(run_id="r", nonce="n", clock=clock, now=now)


def test_the_age_is_at_most_what_passed_there_and_the_way_there_and_back() -> None:
    # Ordered at 5000 there. Asked at 100 here; 0.3 s later the answer is here: "it is 5000.5".
    assert age_s(ORDER, confirm(5000.5), asked_at=100.0, now=100.3) == pytest.approx(0.8)


def test_the_answer_ages_while_it_is_here() -> None:
    assert age_s(ORDER, confirm(5000.5), asked_at=100.0, now=103.0) == pytest.approx(3.5)


def test_a_slow_exchange_counts_as_age_since_nobody_knows_where_the_time_went() -> None:
    assert age_s(ORDER, confirm(5000.1), asked_at=100.0, now=102.5) == pytest.approx(2.6)


def test_two_clocks_that_have_nothing_to_do_with_each_other_do_not_matter() -> None:
    young = age_s(ORDER, confirm(5000.01), asked_at=9e8, now=9e8 + 0.01)
    assert young == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        confirm(5000.5, clock="another"),
        confirm(4000.0),  # it is ordered in the future: not that clock
        confirm(math.nan),
        confirm(math.inf),
    ],
)
def test_what_cannot_be_said_is_none(answer: Confirm) -> None:
    assert age_s(ORDER, answer, asked_at=100.0, now=100.1) is None


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        ({}, "no pump"),
        ({"8": 1.0}, "no pump '8'"),
        ({"00": 1.0}, "no pump '00'"),
        ({"0": 0.0}, "pump 0"),
        ({"0": -1.0}, "pump 0"),
        ({"0": 300.1}, "pump 0"),
        ({"0": math.nan}, "pump 0"),
        ({"0": 1.0, "7": math.inf}, "pump 7"),
    ],
)
def test_times_that_are_wrong_are_told(seconds: dict[str, float], word: str) -> None:
    assert word in complaint(seconds, 8, 300.0)


def test_times_that_are_right_are_not() -> None:
    assert complaint({"0": 0.001, "7": 300.0}, 8, 300.0) == ""
