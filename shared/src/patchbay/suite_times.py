"""A pytest plugin: each suite's share of the time that the tests took, at the end of a run.

A suite is a folder of test files. With several workers the shares are of their times together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line a suite, the slowest first."""
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if isinstance(report, pytest.TestReport)
    ]
    if lines := shares((report.nodeid, report.duration) for report in reports):
        terminalreporter.section("time by suite")
        for line in lines:
            terminalreporter.write_line(line)


def shares(durations: Iterable[tuple[str, float]]) -> list[str]:
    """A line a suite for these node ids and seconds: its seconds, its share, its folder."""
    times: Counter[str] = Counter()
    for node, seconds in durations:
        times[node.partition("::")[0].rpartition("/")[0] or "."] += seconds  # type: ignore[assignment]
    total = sum(times.values()) or 1
    return [
        f"{seconds:8.1f} s {100 * seconds / total:5.1f} %  {suite}"
        for suite, seconds in times.most_common()
    ]
