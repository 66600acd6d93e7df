"""How far each source has come."""

from __future__ import annotations

import pytest

from patchbay.inbox import Verdict, Watermarks
from patchbay.inbox.watermarks import PAST_EPOCHS, SOURCES
from patchbay.messages import Ack, Event
from patchbay.store import Store

TAKE, KNOWN, GAP, OVER = Verdict.TAKE, Verdict.KNOWN, Verdict.GAP, Verdict.OVER


def event(sequence: int, epoch: str = "e1", source: str = "tiny-edge-1") -> Event:
    return Event(
        id=f"{epoch}:{sequence}", source=source, type="t", time="t", sequence=sequence, epoch=epoch
    )


def judged(watermarks: Watermarks, *events: Event) -> list[Verdict]:
    return [watermarks.judge(one) for one in events]


async def test_only_the_next_of_its_source_is_taken(store: Store) -> None:
    watermarks = Watermarks(store)
    numbers = [1, 2, 2, 1, 4, 5, 3, 4, 3]
    assert judged(watermarks, *map(event, numbers)) == [
        *(TAKE, TAKE, KNOWN, KNOWN, GAP, GAP, TAKE, TAKE, KNOWN)
    ]
    assert watermarks.upto("tiny-edge-1", "e1") == 4


async def test_a_source_that_is_not_known_begins_with_1(store: Store) -> None:
    watermarks = Watermarks(store)
    assert judged(watermarks, event(2), event(7)) == [GAP, GAP]
    assert watermarks.ack("tiny-edge-1", "e1", nak=True) == Ack("e1", 0, nak=True)
    assert judged(watermarks, event(1)) == [TAKE]


async def test_each_source_counts_for_itself(store: Store) -> None:
    watermarks = Watermarks(store)
    one, two = event(1), event(1, source="tiny-edge-2")
    assert judged(watermarks, one, two, one, two) == [TAKE, TAKE, KNOWN, KNOWN]


async def test_a_new_epoch_begins_with_1_and_the_old_one_is_over(store: Store) -> None:
    watermarks = Watermarks(store)
    judged(watermarks, event(1), event(2))
    assert judged(watermarks, event(2, "e2"), event(3, "e1")) == [GAP, TAKE]
    assert judged(watermarks, event(1, "e2"), event(2, "e2")) == [TAKE, TAKE]
    stragglers = [event(1, "e1"), event(3, "e1"), event(4, "e1")]
    assert judged(watermarks, *stragglers) == [KNOWN, KNOWN, OVER]
    assert judged(watermarks, event(3, "e2")) == [TAKE]
    assert watermarks.upto("tiny-edge-1", "e1") == 3
    assert watermarks.upto("tiny-edge-1", "e2") == 3


async def test_the_last_epochs_are_remembered_as_over(store: Store) -> None:
    watermarks = Watermarks(store)
    epochs = [f"e{number}" for number in range(PAST_EPOCHS + 2)]
    assert judged(watermarks, *(event(1, epoch) for epoch in epochs)) == [TAKE] * len(epochs)
    verdicts = judged(watermarks, *(event(2, epoch) for epoch in epochs))
    assert verdicts == [GAP] + [OVER] * PAST_EPOCHS + [TAKE]


async def test_what_is_saved_is_there_after_a_restart_also_what_is_over(store: Store) -> None:
    watermarks = Watermarks(store)
    judged(watermarks, event(1, "e1"), event(1, "e2"), event(2, "e2"))
    judged(watermarks, event(1, source="tiny-edge-2"))
    await watermarks.save()
    again = Watermarks(store)
    await again.load()
    assert again.ack("tiny-edge-1", "e2", nak=False) == Ack("e2", 2)
    assert judged(again, event(2, "e1"), event(2, "e2"), event(3, "e2")) == [OVER, KNOWN, TAKE]
    assert judged(again, event(2, source="tiny-edge-2")) == [TAKE]


async def test_what_was_not_saved_is_forgotten_by_loading_again(store: Store) -> None:
    watermarks = Watermarks(store)
    judged(watermarks, event(1))
    await watermarks.save()
    judged(watermarks, event(2), event(1, source="tiny-edge-2"))
    await watermarks.load()
    assert judged(watermarks, event(3), event(2)) == [GAP, TAKE]
    assert watermarks.upto("tiny-edge-2", "e1") == 0


async def test_only_what_has_risen_is_written(store: Store) -> None:
    watermarks = Watermarks(store)
    judged(watermarks, event(1))
    await watermarks.save()
    await store.save(SOURCES, [{"_id": "tiny-edge-1", "epoch": "theirs", "upto": 9}])
    judged(watermarks, event(1), event(7), event(1, source="tiny-edge-2"))
    await watermarks.save()
    found = {one["_id"]: one["epoch"] for one in await store.find(SOURCES, {})}
    assert found == {"tiny-edge-1": "theirs", "tiny-edge-2": "e1"}


async def test_sources_that_somebody_makes_up_take_no_room_without_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has announced itself is taken all the same, and those that are there go on."""
    monkeypatch.setattr("patchbay.inbox.watermarks.MAX_SOURCES", 3)
    watermarks = Watermarks(store)
    invented = [event(1, source=f"made-up-{number}") for number in range(10)]
    assert judged(watermarks, *invented) == [TAKE] * 3 + [Verdict.WAIT] * 7
    assert judged(watermarks, event(2, source="made-up-0"), event(7, source="nobody")) == [
        TAKE,
        Verdict.WAIT,
    ]
    watermarks.announce("tiny-edge-1", "e1")
    assert judged(watermarks, event(1), event(2)) == [TAKE, TAKE]
    assert (len(watermarks), watermarks.refused) == (4, 8)


async def test_an_event_that_is_not_taken_leaves_nothing_in_memory(store: Store) -> None:
    watermarks = Watermarks(store)
    assert judged(watermarks, *(event(2, source=f"s{n}") for n in range(100))) == [GAP] * 100
    assert len(watermarks) == 0
