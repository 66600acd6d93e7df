"""The last values in memory: they answer only what they surely know."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta

from patchbay_mesh.recent import MAX_QUEUES, Recent

START = datetime(2026, 1, 2, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def filled(length: int, count: int) -> Recent:
    recent = Recent(length)
    for number in range(count):
        recent.add(5, "CNT", at(number), bytes([number]))
    return recent


def found(recent: Recent, since: int | None, to: int | None, limit: int) -> list[int] | None:
    values = recent.find(
        5, "CNT", None if since is None else at(since), None if to is None else at(to), limit
    )
    return None if values is None else [data[0] for _, data in values]


def test_the_newest_come_first() -> None:
    assert found(filled(10, 5), None, 100, 3) == [4, 3, 2]
    assert found(filled(10, 5), None, None, 3) == [4, 3, 2]
    assert found(filled(10, 5), None, 2, 2) == [2, 1]


def test_more_than_is_held_is_not_answered() -> None:
    assert found(filled(10, 5), None, 100, 6) is None
    assert found(filled(3, 5), 0, 100, 10) is None
    assert found(Recent(10), None, 100, 1) is None
    assert found(Recent(0), None, 100, 1) is None


def test_a_span_that_begins_after_the_oldest_is_known_whole() -> None:
    assert found(filled(3, 5), 3, 100, 10) == [4, 3]
    assert found(filled(3, 5), 2, 100, 10) is None


def test_a_clock_that_was_set_back_makes_the_store_answer() -> None:
    recent = filled(10, 5)
    recent.add(5, "CNT", at(1), b"x")
    assert found(recent, None, 100, 2) is None


def test_pairs_that_are_not_reported_are_forgotten() -> None:
    recent = Recent(2)
    for number in range(MAX_QUEUES + 10):
        recent.add(number, "CNT", at(0), b"x")
        recent.add(0, "CNT", at(number), b"y")
    assert len(recent) == MAX_QUEUES
    assert recent.find(0, "CNT", None, at(MAX_QUEUES * 2), 2) is not None
    assert recent.find(1, "CNT", None, at(1), 1) is None


def test_after_it_was_cleared_it_knows_nothing_until_it_is_told() -> None:
    recent = filled(10, 5)
    recent.clear()
    assert found(recent, None, 100, 1) is None
    recent.add(5, "CNT", at(7), b"\x07")
    assert found(recent, None, 100, 1) == [7]
    assert found(recent, None, 100, 2) is None


def test_all_values_together_have_a_bound() -> None:
    recent = Recent(256, max_bytes=1_000_000)
    for number in range(20_000):
        recent.add(number % 100, "CNT", at(number), b"x" * 255)
        assert recent.size <= 1_000_000
    assert recent.find(99, "CNT", None, at(20_000), 1) is not None
    recent.clear()
    recent.add(5, "CNT", at(0), b"x")
    assert recent.size < 2000


def test_what_is_counted_is_what_it_takes() -> None:
    tracemalloc.start()
    recent = Recent(256)
    for number in range(20_000):
        recent.add(number % 100, "CNT", at(number), number.to_bytes(6))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.7 < recent.size / taken < 1.5
