"""Documents that are changed by compare-and-set, in a real store."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from patchbay.errors import Rejected, Unavailable
from patchbay.inbox import Aggregate, Aggregates, Outgoing
from patchbay.inbox.aggregates import APPLIED_SOURCES, DONE_COMMANDS
from patchbay.messages import Event, decode_events, event_type, new_event
from patchbay.store import Store
from patchbay.testing import Part

COUNTERS = "counters"


class Counter(msgspec.Struct):
    total: int = 0
    seen_at: datetime | None = None
    by_day: dict[str, int] = {}


def event(sequence: int, epoch: str = "e1", source: str = "tiny-edge-1") -> Event:
    return Event(
        id=f"{epoch}:{sequence}", source=source, type="t", time="t", sequence=sequence, epoch=epoch
    )


def counted(id: str) -> Outgoing:
    body = new_event(
        id=id,
        source="tiny-domain-1",
        type=event_type("tiny", "counted"),
        subject="Board 7",
        data={"total": 1},
    )
    return Outgoing("board_7-c2e3b8b8", "counted", body)


def counters(store: Store) -> Aggregates[Counter]:
    return Aggregates(store, COUNTERS, Counter)


def count(counter: Aggregate[Counter], sequence: int) -> None:
    """What a domain does with an event."""
    counter.state.total += sequence
    counter.apply(event(sequence))


async def one(store: Store, id: str = "b7") -> tuple[Aggregates[Counter], Aggregate[Counter]]:
    """The aggregates, loaded, and one of them, which is made if it is not there."""
    all_of_them = counters(store)
    await all_of_them.load()
    counter = all_of_them.get(id)
    if counter is None:
        counter = Aggregate(id, Counter())
        all_of_them.add(counter)
    return all_of_them, counter


async def kept(store: Store, id: str = "b7") -> dict[str, Any]:
    [document] = await store.find(COUNTERS, {"_id": id})
    return document


async def test_a_document_is_read_as_it_was_saved(store: Store) -> None:
    aggregates, counter = await one(store)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    counter.state = Counter(2**40, moment, {"월": 1})
    counter.apply(event(1))
    counter.publish("x", counted("x"))
    counter.finish("c1", '{"ok": true}')
    await aggregates.save([counter])

    _, again = await one(store)
    assert again.state == counter.state
    assert again.applied == {"tiny-edge-1": ("e1", 1)}
    outgoing = again.outgoing["x"]
    assert (outgoing.device, outgoing.name) == (counted("x").device, "counted")
    assert decode_events(outgoing.event) == decode_events(counter.outgoing["x"].event)
    assert again.done == {"c1": '{"ok": true}'}
    assert again.version == counter.version == 1
    assert not again.changed


async def test_every_change_raises_the_version(store: Store) -> None:
    aggregates, counter = await one(store)
    for sequence in range(1, 4):
        count(counter, sequence)
        await aggregates.save([counter])
    assert counter.version == 3
    document = await kept(store)
    assert (document["v"], document["total"]) == (3, 6)
    assert document["applied"] == {"tiny-edge-1": {"epoch": "e1", "seq": 3}}


async def test_what_has_not_changed_is_not_written(store: Store) -> None:
    aggregates, counter = await one(store)
    await aggregates.save([counter])
    assert await store.count(COUNTERS, {}) == 0
    count(counter, 1)
    await aggregates.save([counter, counter])
    await aggregates.save([counter])
    assert (await kept(store))["v"] == 1


async def test_new_and_old_documents_are_saved_together(store: Store) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save(aggregates)
    count(counter, 2)
    for number in range(3):
        fresh = Aggregate(f"n{number}", Counter(number))
        fresh.changed = True
        aggregates.add(fresh)
    await aggregates.save(aggregates)
    again = counters(store)
    await again.load()
    assert {one.id: (one.state.total, one.version) for one in again} == {
        "b7": (3, 2),
        "n0": (0, 1),
        "n1": (1, 1),
        "n2": (2, 1),
    }
    assert len(again) == 4
    assert again.get("n3") is None


def test_an_aggregate_knows_what_it_has_applied() -> None:
    counter = Aggregate("b7", Counter())
    assert not counter.knows(event(1))
    counter.apply(event(5))
    assert [counter.knows(event(number)) for number in (1, 5, 6)] == [True, True, False]
    assert not counter.knows(event(5, "e2"))
    assert not counter.knows(event(5, source="tiny-edge-2"))
    counter.apply(event(1, "e2"))
    assert counter.knows(event(1, "e2"))
    assert not counter.knows(event(2, "e2"))


def test_sources_that_somebody_invents_do_not_make_a_document_grow() -> None:
    one = Aggregate("b7", Counter())
    for number in range(1000):
        one.apply(event(1, source=f"invented-{number}"))
        one.apply(event(number + 1))
    assert len(one.applied) == APPLIED_SOURCES
    assert one.knows(event(1000))


def test_an_event_without_a_sequence_is_never_known() -> None:
    counter = Aggregate("b7", Counter())
    bare = Event(id="x", source="", type="t", time="t")
    counter.apply(bare)
    assert counter.changed
    assert not counter.knows(bare)
    assert counter.applied == {}


def test_the_last_commands_are_remembered_with_their_answers() -> None:
    counter = Aggregate("b7", Counter())
    for number in range(DONE_COMMANDS + 3):
        counter.finish(f"c{number}", f"a{number}")
    assert list(counter.done) == [f"c{number}" for number in range(3, DONE_COMMANDS + 3)]
    assert counter.done["c3"] == "a3"


async def test_what_somebody_else_has_changed_is_not_overwritten(store: Store) -> None:
    ours, counter = await one(store)
    count(counter, 1)
    await ours.save([counter])
    theirs, same = await one(store)
    count(same, 2)
    same.state.total = 100
    await theirs.save([same])

    counter.state.total = -1
    counter.apply(event(3))
    with pytest.raises(Unavailable, match="somebody else"):
        await ours.save([counter])
    assert (await kept(store))["total"] == 100

    await ours.load()
    read = ours.get("b7")
    assert read is not None
    assert (read.state.total, read.version) == (100, 2)
    count(read, 3)
    await ours.save([read])
    assert (await kept(store))["total"] == 103


async def test_a_document_that_somebody_else_has_made_is_not_overwritten(store: Store) -> None:
    ours, counter = await one(store)
    theirs, same = await one(store)
    count(same, 2)
    await theirs.save([same])
    count(counter, 1)
    with pytest.raises(Unavailable, match="somebody else"):
        await ours.save([counter])
    await ours.load()
    read = ours.get("b7")
    assert read is not None
    assert read.state.total == 2


async def test_a_document_that_is_gone_is_in_doubt_and_then_unknown(store: Store) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save([counter])
    await store.collection(COUNTERS).delete_one({"_id": "b7"})
    count(counter, 2)
    with pytest.raises(Unavailable):
        await aggregates.save([counter])
    await aggregates.load()
    assert aggregates.get("b7") is None


@pytest.mark.parametrize("saved", [0, 1])
async def test_a_drivers_second_try_of_the_same_change_is_recognised_as_done(
    store: Store, saved: int
) -> None:
    """The change that the first try made is in the store; the second finds its filter unmatched."""
    aggregates, counter = await one(store)
    for sequence in range(1, saved + 1):
        count(counter, sequence)
        await aggregates.save([counter])
    first_try, same = await one(store)
    for each in (same, counter):
        count(each, saved + 1)
        each.publish("x", counted("x"))
        each.finish("c1", "done")
        each.outgoing["x"] = same.outgoing["x"]
    await first_try.save([same])
    await aggregates.save([counter])
    assert counter.version == saved + 1
    count(counter, saved + 2)
    await aggregates.save([counter])
    document = await kept(store)
    assert (document["v"], document["total"]) == (saved + 2, sum(range(saved + 3)))


async def test_of_a_save_that_failed_all_is_read_again(store: Store) -> None:
    aggregates, counter = await one(store)
    other = Aggregate("n1", Counter())
    aggregates.add(other)
    for each in (counter, other):
        count(each, 1)
    await aggregates.save(aggregates)
    await store.save(COUNTERS, [{**await kept(store), "v": 9, "total": 90}])
    for each in (counter, other):
        count(each, 2)
    with pytest.raises(Unavailable):
        await aggregates.save(aggregates)
    await aggregates.load()
    read = {each.id: (each.state.total, each.version) for each in aggregates}
    assert read == {"b7": (90, 9), "n1": (3, 2)}
    untouched = aggregates.get("n1")
    await aggregates.load()
    assert aggregates.get("n1") is untouched


async def test_what_is_doubted_is_read_again_and_load_says_so(store: Store) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save([counter])
    assert not await aggregates.load()
    counter.state.total = 666
    count(counter, 2)
    aggregates.add(Aggregate("new", Counter(5)))
    aggregates.doubt(["b7", "new"])
    assert await aggregates.load()
    read = aggregates.get("b7")
    assert read is not None
    assert (read.state.total, read.knows(event(2))) == (1, False)
    assert aggregates.get("new") is None
    assert not await aggregates.load()


async def test_a_save_that_is_cancelled_is_in_doubt(store: Store, store_server: Part) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save([counter])
    count(counter, 2)
    with store_server.frozen(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await aggregates.save([counter])
    assert await aggregates.load()
    assert aggregates.get("b7") is not counter


async def test_one_who_only_asks_does_not_disturb_a_save_that_is_under_way(store: Store) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    saving = asyncio.create_task(aggregates.save([counter]))
    await asyncio.sleep(0)
    await aggregates.load()
    await saving
    assert aggregates.get("b7") is counter
    count(counter, 2)
    await aggregates.save([counter])
    assert (await kept(store))["total"] == 3


async def test_two_who_ask_at_once_find_the_same_documents(store: Store) -> None:
    first, counter = await one(store)
    count(counter, 1)
    await first.save([counter])
    aggregates = counters(store)

    async def ask() -> Aggregate[Counter] | None:
        await aggregates.load()
        return aggregates.get("b7")

    found = await asyncio.gather(ask(), ask(), ask())
    assert found[0] is not None
    assert all(each is found[0] for each in found)


async def test_what_is_published_while_it_is_saved_is_taken_out_by_the_next_save(
    store: Store,
) -> None:
    aggregates, counter = await one(store)
    counter.publish("x", counted("x"))
    counter.publish("y", counted("y"))
    saving = asyncio.create_task(aggregates.save([counter]))
    await asyncio.sleep(0)
    counter.published("x")
    await saving
    assert "x" in (await kept(store))["outgoing"]
    assert counter.pruned
    await aggregates.save([counter])
    _, again = await one(store)
    assert list(again.outgoing) == ["y"]
    counter.published("never there")
    assert not counter.pruned


async def test_what_is_published_while_a_second_try_is_recognised_does_not_confuse_it(
    store: Store,
) -> None:
    aggregates, counter = await one(store)
    first_try, same = await one(store)
    for each in (same, counter):
        count(each, 1)
        each.publish("x", counted("x"))
        each.outgoing["x"] = same.outgoing["x"]
    await first_try.save([same])
    saving = asyncio.create_task(aggregates.save([counter]))
    await asyncio.sleep(0)
    counter.published("x")
    await saving
    assert counter.version == 1


GOOD = {"v": 3, "applied": {}, "outgoing": "", "done": [], "total": 5}
BAD: dict[str, dict[str, Any]] = {
    "a field of the wrong type": {"total": "five"},
    "a field nested once more": {"total": {"total": 5}},
    "no version": {"v": None},
    "a version that is a text": {"v": "3"},
    "a version that is a fraction": {"v": 3.5},
    "a version that is NaN": {"v": float("nan")},
    "a version below 1": {"v": 0},
    "a version above 2^53": {"v": 2**62},
    "a number above 2^53": {"total": 2**62},
    "a number above 2^53 inside": {"by_day": {"mon": 2**62}},
    "a time that is a text": {"seen_at": "yesterday"},
    "applied is a list": {"applied": [1]},
    "applied without a sequence": {"applied": {"e": {"epoch": "1"}}},
    "outgoing is no JSON": {"outgoing": "[{"},
    "outgoing is a list": {"outgoing": [1]},
    "an outgoing event without an id": {"outgoing": '[{"type": "t"}]'},
    "done is a number": {"done": 7},
    "an answer that is no text": {"done": [["c", 5]]},
}


class Reports(list[tuple[str, Any, str]]):
    """What an aggregate reports."""

    async def take(self, collection: str, id: Any, fault: str) -> None:
        self.append((collection, id, fault))


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_an_unreadable_document_is_set_aside_and_the_others_load(
    store: Store, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay.inbox.aggregates.RECHECK_S", 0.0)
    bad = {"_id": "bad", **GOOD, **fields}
    await store.insert_new(COUNTERS, [bad, {"_id": "good", **GOOD}])
    aggregates, reports = counters(store), Reports()
    aggregates.report = reports.take
    await aggregates.load()
    assert [one.id for one in aggregates] == ["good"]
    assert aggregates.faults.keys() == {"bad"}
    assert [(collection, id) for collection, id, _ in reports] == [(COUNTERS, "bad")]
    with pytest.raises(Rejected, match="unreadable"):
        aggregates.require_readable("bad")
    [good] = aggregates
    count(good, 1)
    await aggregates.save([good])
    [left] = await store.find(COUNTERS, {"_id": "bad"})
    assert json.dumps(left) == json.dumps(bad)  # NaN is not equal to itself

    assert await aggregates.load() is False
    await store.save(COUNTERS, [{"_id": "bad", **GOOD}])
    assert await aggregates.load() is True
    assert aggregates.get("bad") is not None
    assert aggregates.faults == {}
    aggregates.require_readable("bad")


async def test_an_unreadable_document_that_is_removed_is_not_in_the_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay.inbox.aggregates.RECHECK_S", 0.0)
    await store.insert_new(COUNTERS, [{"_id": "b7"}, {"_id": 7}])
    aggregates, counter = await one(store)
    assert aggregates.faults.keys() == {"b7"}
    await store.remove(COUNTERS, {"_id": "b7"})
    assert await aggregates.load() is True
    counter.changed = True
    aggregates.add(counter)
    await aggregates.save([counter])
    assert (await kept(store))["v"] == 1


async def test_a_version_that_a_javascript_shell_wrote_is_read(store: Store) -> None:
    await store.insert_new(COUNTERS, [{"_id": "b7", **GOOD, "v": 3.0}])
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save([counter])
    assert (await kept(store))["v"] == 4


async def test_a_document_that_becomes_unreadable_while_we_run_is_set_aside(store: Store) -> None:
    aggregates, counter = await one(store)
    count(counter, 1)
    await aggregates.save([counter])
    await store.save(COUNTERS, [{"_id": "b7", "v": "broken"}])
    count(counter, 2)
    with pytest.raises(Unavailable):
        await aggregates.save([counter])
    await aggregates.load()
    assert (aggregates.get("b7"), list(aggregates.faults)) == (None, ["b7"])
    assert await kept(store) == {"_id": "b7", "v": "broken"}


async def test_documents_are_read_in_pages_and_what_there_is_no_room_for_stays_in_the_store(
    store: Store,
) -> None:
    await store.insert_new(
        COUNTERS,
        [
            {"_id": f"b{n:04d}", "v": 1, "applied": {}, "outgoing": "", "done": [], "total": n}
            for n in range(1200)
        ],
    )
    most: list[int] = []

    def trim(known: dict[str, Aggregate[Counter]]) -> None:
        most.append(len(known))
        for id in [id for id, one in known.items() if one.state.total >= 100]:
            del known[id]

    all_of_them = counters(store)
    all_of_them.trim = trim
    await all_of_them.load()
    assert len(all_of_them) == 100
    assert max(most) <= 600
    assert await store.count(COUNTERS, {}) == 1200
    all_of_them.doubt(["b1100"])
    await all_of_them.load()
    found = all_of_them.get("b1100")
    assert found is not None
    assert found.state.total == 1100


async def test_a_document_that_is_removed_is_gone_from_memory_and_store(store: Store) -> None:
    all_of_them, counter = await one(store)
    count(counter, 1)
    all_of_them.add(counter)
    await all_of_them.save([counter])
    assert await all_of_them.remove(["b7", "nobody"]) == 1
    assert all_of_them.get("b7") is None
    assert await store.count(COUNTERS, {}) == 0
    again = Aggregate("b7", Counter())
    count(again, 1)
    all_of_them.add(again)
    await all_of_them.save([again])
    assert await store.count(COUNTERS, {}) == 1
