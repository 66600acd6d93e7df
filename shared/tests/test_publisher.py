"""What follows from a saved change is published until the broker has it."""

from __future__ import annotations

import msgspec
import pytest

from patchbay.bus import Bus, Message
from patchbay.inbox import Aggregate, Aggregates, Outgoing, Publisher
from patchbay.messages import Event, decode_events, event_type, new_event
from patchbay.store import Store
from patchbay.testing import MakeBus, Part, until


class Counter(msgspec.Struct):
    total: int = 0


class Domain:
    """A publisher and its aggregates, as a service has them."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self.bus = bus
        self.counters = Aggregates(store, "counters", Counter)
        self.publisher: Publisher[Counter] = Publisher(bus, "tiny")
        bus.on_connect(self.connected)

    async def connected(self) -> None:
        async with self.counters.lock:
            await self.counters.load()
            self.publisher.flush(self.counters)

    async def decide(self, device: str, *names: str, padding: str = "") -> Aggregate[Counter]:
        """A change from which events of these names follow, saved."""
        async with self.counters.lock:
            await self.counters.load()
            counter = self.counters.get(device)
            if counter is None:
                counter = Aggregate(device, Counter())
                self.counters.add(counter)
            for name in names:
                counter.state.total += 1
                id = f"{device}/{counter.state.total}"
                body = new_event(
                    id=id,
                    source=self.bus.client_id,
                    type=event_type("tiny", name),
                    subject=device,
                    data=padding,
                )
                counter.publish(id, Outgoing(device, name, body))
            await self.counters.save([counter])
        return counter


class Ears:
    """Hears every event of the service."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.topics: list[str] = []
        self.events: list[Event] = []
        self.letters: list[bytes] = []
        bus.listen("patchbay/tiny/+/event/+", self._hear)
        bus.listen("patchbay/dead/tiny", lambda message: self.letters.append(message.payload))

    def _hear(self, message: Message) -> None:
        message.ack()
        self.topics.append(message.topic)
        self.events += decode_events(message.payload)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


@pytest.fixture
async def ears(make_bus: MakeBus) -> Ears:
    ears = Ears(make_bus("watch"))
    ears.bus.start()
    await ears.bus.wait_connected(5)
    return ears


async def test_events_are_published_in_order_and_forgotten_when_the_broker_has_them(
    make_bus: MakeBus, store: Store, ears: Ears
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    counter = await domain.decide("d1", "counted", "halved", "counted")
    domain.publisher.flush([counter])
    await until(lambda: ears.ids == ["d1/1", "d1/2", "d1/3"] and not counter.outgoing)
    assert ears.topics == [
        "patchbay/tiny/d1/event/counted",
        "patchbay/tiny/d1/event/halved",
        "patchbay/tiny/d1/event/counted",
    ]
    assert counter.pruned


async def test_an_event_for_which_nobody_has_subscribed_is_forgotten_too(
    make_bus: MakeBus, store: Store
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    counter = await domain.decide("d1", "counted")
    domain.publisher.flush([counter])
    await until(lambda: not counter.outgoing)


async def test_what_is_under_way_is_not_published_twice(
    make_bus: MakeBus, store: Store, ears: Ears
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    counter = await domain.decide("d1", "counted")
    domain.publisher.flush([counter])
    domain.publisher.flush([counter])
    await until(lambda: not counter.outgoing)
    counter = await domain.decide("d1", "counted")
    domain.publisher.flush([counter])
    await until(lambda: ears.ids[-1:] == ["d1/2"])
    assert ears.ids == ["d1/1", "d1/2"]


async def test_what_a_killed_domain_had_saved_is_published_after_its_restart(
    make_bus: MakeBus, store: Store, ears: Ears
) -> None:
    killed = Domain(make_bus("tiny-domain-1"), store)
    await killed.decide("d1", "counted")
    await killed.decide("d2", "counted", "halved")

    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await until(lambda: sorted(ears.ids) == ["d1/1", "d2/1", "d2/2"])
    assert sorted(ears.topics) == [
        "patchbay/tiny/d1/event/counted",
        "patchbay/tiny/d2/event/counted",
        "patchbay/tiny/d2/event/halved",
    ]
    await until(lambda: not any(counter.outgoing for counter in domain.counters))
    await domain.counters.save(domain.counters)
    assert {one["outgoing"] for one in await store.find("counters", {})} == {""}


async def test_while_the_broker_is_away_nothing_is_lost(
    make_bus: MakeBus, store: Store, mosquitto: Part, ears: Ears
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    mosquitto.kill()
    counter = await domain.decide("d1", "counted")
    domain.publisher.flush([counter])
    await until(lambda: not domain.bus.connected and not ears.bus.connected)
    domain.publisher.flush([counter])
    assert list(counter.outgoing) == ["d1/1"]
    mosquitto.start()
    await until(lambda: not counter.outgoing)


async def test_an_event_too_large_for_the_broker_is_set_aside_and_the_next_is_published(
    make_bus: MakeBus, store: Store, ears: Ears
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    large = await domain.decide("d1", "counted", padding="x" * 300_000)
    small = await domain.decide("d2", "counted")
    domain.publisher.flush([large, small])
    await until(lambda: ears.ids == ["d2/1"] and len(ears.letters) == 1)
    assert not large.outgoing


async def test_more_events_than_one_turn_takes_are_all_published_in_order(
    make_bus: MakeBus, store: Store, ears: Ears
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    counter = await domain.decide("d1", *["counted"] * 120)
    domain.publisher.flush([counter])
    domain.publisher.flush([counter])
    await until(lambda: not counter.outgoing)
    await until(lambda: ears.ids == [f"d1/{number}" for number in range(1, 121)])


@pytest.mark.parametrize("in_flight", [False, True])
async def test_what_a_document_holds_that_was_read_again_is_published_and_forgotten(
    make_bus: MakeBus, store: Store, ears: Ears, in_flight: bool
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), store)
    domain.publisher.follow(domain.counters)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    counter = await domain.decide("d1", "counted")
    if in_flight:
        domain.publisher.flush([counter])
    domain.counters.doubt(["d1"])  # as after a save that failed
    async with domain.counters.lock:
        await domain.counters.load()
    again = domain.counters.get("d1")
    assert again is not None
    assert again is not counter
    await until(lambda: ears.ids and not again.outgoing)
    assert set(ears.ids) == {"d1/1"}
