"""Events for a document that is set aside wait, and are applied when it can be read."""

from __future__ import annotations

import pytest
from msgspec import Raw

from patchbay.errors import Unavailable
from patchbay.inbox import Parked
from patchbay.inbox import parked as parked_module
from patchbay.messages import Event
from patchbay.store import Store


def event(sequence: int, data: bytes = b"\x81\xa1x\xff") -> Event:
    return Event(
        id=f"e:{sequence}",
        source="tiny-edge-1",
        type="patchbay.tiny.said",
        time="t",
        sequence=sequence,
        epoch="e",
        data=Raw(data),
    )


class Domain:
    """Applies events, unless told otherwise."""

    def __init__(self) -> None:
        self.applied: list[Event] = []
        self.failed: list[tuple[str, str]] = []
        self.poison = ""
        self.away = False

    async def apply(self, events: list[Event]) -> None:
        if self.away:
            raise Unavailable("the store is away")
        if any(one.id == self.poison for one in events):
            raise ValueError("poison")
        self.applied += events

    async def fail(self, event: Event, why: str) -> None:
        self.failed.append((event.id, why))


async def test_parked_events_are_applied_in_order_once_the_document_can_be_read(
    store: Store,
) -> None:
    domain = Domain()
    parked = Parked(store, "boards")
    await parked.keep([("b1", event(1)), ("b2", event(2)), ("b1", event(3))], domain.fail)
    await parked.keep([("b1", event(1)), ("b1", event(4))], domain.fail)
    assert await parked.replay({"b1", "b2"}, domain.apply, domain.fail) is False
    again = Parked(store, "boards")  # after a restart
    assert await again.replay({"b2"}, domain.apply, domain.fail) is True
    assert domain.applied == [event(1), event(3), event(4)]
    assert await again.replay({"b2"}, domain.apply, domain.fail) is False
    assert await Parked(store, "nodes").replay((), domain.apply, domain.fail) is False
    assert await again.replay((), domain.apply, domain.fail) is True
    assert domain.applied[3:] == [event(2)]
    assert await store.count("parked", {}) == 0
    assert domain.failed == []


async def test_while_the_store_is_away_parked_events_stay(store: Store) -> None:
    domain = Domain()
    parked = Parked(store, "boards")
    await parked.keep([("b1", event(1))], domain.fail)
    domain.away = True
    with pytest.raises(Unavailable):
        await parked.replay((), domain.apply, domain.fail)
    domain.away = False
    await parked.replay((), domain.apply, domain.fail)
    assert domain.applied == [event(1)]


async def test_a_parked_event_at_fault_holds_up_no_other(store: Store) -> None:
    domain = Domain()
    domain.poison = "e:2"
    parked = Parked(store, "boards")
    await parked.keep([("b1", event(n)) for n in (1, 2, 3)], domain.fail)
    await parked.replay((), domain.apply, domain.fail)
    assert [one.id for one in domain.applied] == ["e:1", "e:3"]
    assert domain.failed == [("e:2", "ValueError: poison")]


async def test_what_is_parked_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked_module, "MAX_PARKED", 2)
    domain = Domain()
    parked = Parked(store, "boards")
    await parked.keep([("b1", event(n)) for n in (1, 2, 3)], domain.fail)
    assert [id for id, _ in domain.failed] == ["e:3"]
    assert await store.count("parked", {}) == 2
