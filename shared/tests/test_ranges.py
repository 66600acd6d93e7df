"""Events acknowledged in any order: the range sender and the range inbox, over a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.bus import Bus
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox import RangeInbox
from patchbay.messages import AckRanges, Event, encode, ranges_of
from patchbay.outbox import Outbox
from patchbay.outbox import ranges as ranges_module
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, Lateness, MakeBus, Part, until
from patchbay.topics import matches, shared

INSTANCE = "tiny-edge-1"


def test_numbers_are_told_as_ranges() -> None:
    assert ranges_of([]) == []
    assert ranges_of({9, 3, 5, 4}) == [(3, 5), (9, 9)]


def test_a_shared_filter_matches_what_its_filter_matches() -> None:
    assert shared(None, "a/+") == "a/+"
    assert shared("g", "a/+") == "$share/g/a/+"
    assert matches(shared("g", "a/+"), "a/b")
    assert not matches(shared("g", "a/+"), "b/b")


class Replica:
    """Takes events, and persists them when the test lets it."""

    def __init__(self, bus: Bus, store: Store, group: str | None) -> None:
        self.taken: list[str] = []
        self.away = False
        self.tried = 0
        self.bus = bus
        settings = StoreSettings(backoff_initial_s=0.02, backoff_max_s=0.05)
        self.inbox = RangeInbox(bus, store, settings, "tiny", ["said"], self._apply, group=group)

    async def _apply(self, events: list[Event]) -> None:
        self.tried += 1
        if self.away:
            raise Unavailable("as told")
        if any(event.id == "bad" for event in events):
            raise ValueError("bad")
        self.taken += [event.id for event in events]

    async def start(self) -> None:
        self.inbox.start()
        self.bus.start()
        await self.bus.wait_connected(PATIENCE_S)

    async def die(self) -> None:
        self.inbox._stopping = True
        await self.bus.stop()


@pytest.fixture
async def edge(make_bus: MakeBus, tmp_path: Path) -> AsyncIterator[tuple[Bus, Outbox]]:
    bus = make_bus(INSTANCE)
    async with Outbox(bus, "tiny", tmp_path / "outbox.sqlite", in_order=False) as outbox:
        yield bus, outbox
        await bus.stop()


@pytest.fixture
async def replicas(make_bus: MakeBus, store: Store) -> AsyncIterator[list[Replica]]:
    replicas = [Replica(make_bus(f"tiny-domain-{n}"), store, "g") for n in range(3)]
    yield replicas
    for one in replicas:
        await one.inbox.stop()


def say(outbox: Outbox, *keys: object) -> None:
    for key in keys:
        outbox.add("d1", "said", key=str(key), subject="D1", time="t", data={})


def taken(replicas: list[Replica]) -> Counter[str]:
    return Counter(id for one in replicas for id in one.taken)


async def test_replicas_share_events_and_all_are_forgotten(
    edge: tuple[Bus, Outbox], replicas: list[Replica]
) -> None:
    bus, outbox = edge
    for one in replicas:
        await one.start()
    bus.start()
    for turn in range(30):
        say(outbox, *range(turn * 20, turn * 20 + 20))
        await asyncio.sleep(0)
    await until(lambda: outbox.waiting == 0)
    assert set(taken(replicas)) == {str(n) for n in range(600)}
    assert all(one.taken for one in replicas)
    await until(lambda: outbox._journal.rows == 0)


async def test_what_a_replica_had_in_hand_when_it_died_is_sent_again(
    edge: tuple[Bus, Outbox], replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges_module, "PATIENCE_S", 0.3)
    bus, outbox = edge
    for one in replicas:
        await one.start()
    replicas[0].away = True
    bus.start()
    for turn in range(10):
        say(outbox, *range(turn * 20, turn * 20 + 20))
        await asyncio.sleep(0)
    await until(lambda: len(taken(replicas[1:])) > 50)
    await replicas[0].die()
    await until(lambda: outbox.waiting == 0)
    assert set(taken(replicas[1:])) == {str(n) for n in range(200)}


async def test_what_was_not_acknowledged_is_sent_by_the_next_process(
    make_bus: MakeBus, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.sqlite"
    bus = make_bus(INSTANCE)
    async with Outbox(bus, "tiny", path, in_order=False) as outbox:
        say(outbox, *range(40))
        await asyncio.sleep(0)
        bus.start()
        await bus.wait_connected(PATIENCE_S)
        domain = make_bus("tiny-domain-0")
        domain.start()
        await domain.wait_connected(PATIENCE_S)
        ack = AckRanges(outbox.epoch, [(2, 5), (11, 11), (39, 40)])
        await domain.publish(domain.topics.ack(INSTANCE), encode(ack))
        await until(lambda: outbox.waiting == 33)
        await domain.publish(domain.topics.ack(INSTANCE), encode(ack))
        other = AckRanges("another epoch", [(1, 40)])
        await domain.publish(domain.topics.ack(INSTANCE), encode(other))
        beyond = AckRanges(outbox.epoch, [(1, 99)])
        await domain.publish(domain.topics.ack(INSTANCE), encode(beyond))
        await domain.publish(domain.topics.ack(INSTANCE), b"nonsense")
        await bus.stop()
    bus = make_bus(INSTANCE)
    replica = Replica(make_bus("tiny-domain-1"), store, None)
    await replica.start()
    async with Outbox(bus, "tiny", path, in_order=False) as outbox:
        assert outbox.waiting == 33
        bus.start()
        await until(lambda: outbox.waiting == 0)
        await bus.stop()
    gone = {1, 2, 3, 4, 10, 38, 39}
    assert Counter(replica.taken) == Counter(str(n) for n in range(40) if n not in gone)
    await replica.inbox.stop()


async def test_an_event_that_cannot_be_applied_is_set_aside_and_the_others_count(
    edge: tuple[Bus, Outbox], replicas: list[Replica]
) -> None:
    bus, outbox = edge
    await replicas[0].start()
    bus.start()
    say(outbox, "a", "bad", "b")
    await until(lambda: outbox.waiting == 0)
    assert sorted(replicas[0].taken) == ["a", "b"]
    assert replicas[0].bus.dead_letters == 1


async def test_a_broker_that_is_killed_costs_a_delay_and_no_event(
    edge: tuple[Bus, Outbox], replicas: list[Replica], mosquitto: Part
) -> None:
    bus, outbox = edge
    for one in replicas:
        one.away = True
        await one.start()
    bus.start()
    say(outbox, *range(100))
    await until(lambda: any(one.tried for one in replicas))
    await asyncio.to_thread(mosquitto.kill)
    say(outbox, *range(100, 200))
    await asyncio.to_thread(mosquitto.start)
    for one in replicas:
        one.away = False
    await until(lambda: outbox.waiting == 0)
    assert set(taken(replicas)) == {str(n) for n in range(200)}


async def test_more_than_a_window_waits_its_turn(
    edge: tuple[Bus, Outbox], replicas: list[Replica]
) -> None:
    bus, outbox = edge
    say(outbox, *range(2500))
    await asyncio.sleep(0)
    bus.start()
    await replicas[0].start()
    await until(lambda: outbox.waiting == 0)
    assert set(replicas[0].taken) == {str(n) for n in range(2500)}


async def test_an_acknowledgement_costs_no_more_than_what_was_sent_however_large_its_ranges(
    edge: tuple[Bus, Outbox], make_bus: MakeBus, lateness: Lateness
) -> None:
    bus, outbox = edge
    say(outbox, *range(2500))
    await asyncio.sleep(0)
    bus.start()
    forger = make_bus("tiny-domain-7")
    forger.start()
    await forger.wait_connected(PATIENCE_S)
    await bus.wait_connected(PATIENCE_S)
    epoch = outbox.epoch
    hostile: list[object] = [
        [[-(10**11), 0]],
        [[0, 2**53]],
        [[1, 2**53]],
        [[1, 10**30]],
        [[0, 0]] * 100_000,
        [[2**53, 0]],
        [[9, 3]],
        [["1", 2]],
        [[1]],
        [[0, 2]] * 2_000,
        "all",
    ]
    for ranges in hostile:
        with contextlib.suppress(TooLarge):
            await forger.publish(
                forger.topics.ack(INSTANCE), encode({"epoch": epoch, "ranges": ranges})
            )
    await until(lambda: outbox.waiting == 2498)  # the first two, which one of them names
    overlapping = [(low, 2000) for low in range(1, 2000)]
    began = time.monotonic()
    await forger.publish(forger.topics.ack(INSTANCE), encode(AckRanges(epoch, overlapping)))
    await until(lambda: outbox.waiting <= 1500)  # of what it names, what was sent
    assert time.monotonic() - began < 5 + lateness.worst_s


async def test_what_the_process_before_us_sent_may_be_acknowledged_to_us(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.sqlite"
    bus = make_bus(INSTANCE)
    async with Outbox(bus, "tiny", path, in_order=False) as outbox:
        say(outbox, *range(40))
        epoch = outbox.epoch
    bus = make_bus(INSTANCE)
    domain = make_bus("tiny-domain-0")
    domain.start()
    await domain.wait_connected(PATIENCE_S)
    async with Outbox(bus, "tiny", path, in_order=False) as outbox:
        assert outbox.epoch != epoch
        bus.start()
        await bus.wait_connected(PATIENCE_S)
        await domain.publish(domain.topics.ack(INSTANCE), encode(AckRanges(epoch, [(1, 99)])))
        await until(lambda: outbox.waiting == 0)
        await bus.stop()
