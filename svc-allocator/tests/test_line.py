"""The head of the line of waiting jobs."""

from __future__ import annotations

from datetime import UTC, datetime

from patchbay_allocator.ids import JobIds, id_of, is_id
from patchbay_allocator.line import HEAD, Line


def test_a_line_that_was_read_whole_takes_what_comes_in_order() -> None:
    line = Line()
    assert line.exhausted
    line.add(["5"])
    assert len(line) == 0
    line.read(["3", "1"])
    line.add(["2", "4", "3"])
    assert line.first(9) == ["1", "2", "3", "4"]
    line.discard(["1", "2", "3", "4"])
    assert not line.exhausted


def test_behind_an_incomplete_head_nothing_is_put() -> None:
    line = Line()
    line.read([f"{n:04}" for n in range(0, 2 * HEAD, 2)])
    line.add(["9999", "0001"])
    assert line.first(3) == ["0000", "0001", "0002"]
    assert len(line) == HEAD + 1
    line.discard(line.first(HEAD + 1))
    assert line.exhausted


def test_what_comes_while_the_store_is_read_is_kept() -> None:
    line = Line()
    line.read([])
    line.begin()
    line.add(["2", "1"])
    line.discard(["1"])
    line.read(["0"])
    assert line.first(9) == ["0", "2"]


def test_ids_rise_also_when_the_clock_does_not() -> None:
    ids = JobIds(lambda: 1_700_000_000.5)
    made = [ids.next() for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(is_id(one) for one in made)


def test_an_event_asks_for_the_same_job_each_time() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    own = JobIds(at.timestamp).next()
    assert id_of(own, at) == own
    made = id_of("somebody's event", at)
    assert is_id(made)
    assert made == id_of("somebody's event", at)
    assert made[:14] == own[:14]
