"""Whether the times of an order are right; all by hand."""

from __future__ import annotations

import math

import pytest

from patchbay_bartender.edge.order import complaint


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
