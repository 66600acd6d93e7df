"""What is kept, and put right after a kill between two writes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from patchbay.store import Store
from patchbay_bartender.bar import Bar, Ended, Pump, Run
from patchbay_bartender.rules import Record
from patchbay_bartender.store import LOST, BartenderStore

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def made(store: Store, bar: str = "bar") -> BartenderStore:
    return BartenderStore(store, 3600, Bar(bar=bar, pumps=[Pump(refill_time=2)]), 213)


def run(number: int, bar: str = "bar") -> Run:
    return Run(
        id=f"{bar}:{number:013d}-x",
        kind="blend",
        by="Ann",
        ordered_at=AT,
        seconds={"0": 2.0},
        millilitres={"0": 10.0},
        cup_size=0.01,
        ratios={"0": 1},
    )


@pytest.fixture
async def kept(store: Store) -> BartenderStore:
    kept = made(store)
    await kept.prepare()
    return kept


async def test_a_new_bar_is_made_once(kept: BartenderStore, store: Store) -> None:
    kept.bar.state.pumps[0].millilitres = 7.5
    kept.bar.changed = True
    await kept.bars.save([kept.bar])
    again = made(store)
    await again.prepare()
    assert again.bar.state.pumps[0].millilitres == 7.5
    assert await store.count("pumps", {}) == 1


async def test_the_history_is_newest_first_and_of_one_bar(
    kept: BartenderStore, store: Store
) -> None:
    other = made(store, "bar2")
    await other.prepare()
    other.record(Record(run(9, "bar2"), "done"))
    await other.save_records()
    for number in (1, 2, 3):
        kept.record(Record(run(number), "done"))
    await kept.save_records()
    found = await kept.history(skip=1, limit=5)
    assert [one["run_id"] for one in found] == [run(2).id, run(1).id]
    assert found[0]["ordered_at"] == "2026-11-20T12:00:00.000Z"
    assert found[0]["ratios"] == {"0": 1}


async def test_a_run_without_a_record_gets_one(kept: BartenderStore, store: Store) -> None:
    kept.bar.state.run = run(1)
    kept.bar.changed = True
    await kept.bars.save([kept.bar])
    again = made(store)
    await again.prepare()
    (record,) = await store.find("blends", {})
    assert (record["_id"], record["status"], record["ended_at"]) == (run(1).id, "ordered", None)


async def test_a_record_that_says_running_of_what_has_ended_is_put_right(
    kept: BartenderStore, store: Store
) -> None:
    kept.record(Record(run(1), "running"))
    await kept.save_records()
    kept.bar.state.ended = Ended(run=run(1), status="done", reason="", at=AT, pumped={"0": 10.0})
    kept.bar.changed = True
    await kept.bars.save([kept.bar])
    await made(store).prepare()
    (record,) = await store.find("blends", {})
    assert (record["status"], record["ended_at"]) == ("done", AT)
    assert record["millilitres"] == {"0": 10.0}


async def test_a_run_that_the_bar_knows_no_more_is_not_running_for_ever(
    kept: BartenderStore, store: Store
) -> None:
    kept.record(Record(run(1), "running"))
    await kept.save_records()
    await made(store).prepare()
    (record,) = await store.find("blends", {})
    assert (record["status"], record["reason"], record["ended_at"]) == ("failed", LOST, AT)


async def test_seconds_a_litre_are_kept_for_each_bar(kept: BartenderStore, store: Store) -> None:
    await kept.set_sec_per_liter(99.5)
    again, other = made(store), made(store, "bar2")
    await again.prepare()
    await other.prepare()
    assert (again.sec_per_liter, other.sec_per_liter) == (99.5, 213)
