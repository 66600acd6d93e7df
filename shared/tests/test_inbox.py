"""The inbox: each event once, in order, and persisted before anybody hears of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from patchbay.errors import Unavailable
from patchbay.inbox import Inbox
from patchbay.inbox import inbox as inbox_module
from patchbay.inbox.watermarks import SOURCES
from patchbay.messages import Ack, Event, batch, new_event, now
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, until
from tests.inbox_ends import ALONE, BATCH, EDGE, SETTINGS, Domain, Edge, event


class MakeDomain(Protocol):
    """Makes the one domain service, again after its end."""

    def __call__(self) -> Domain: ...


@pytest.fixture
async def make_domain(make_bus: MakeBus, store: Store) -> AsyncIterator[MakeDomain]:
    made: list[Domain] = []

    def make() -> Domain:
        made.append(Domain(make_bus("tiny-domain-1", durable=True), store))
        return made[-1]

    yield make
    for domain in made:
        domain.failing = domain.hanging = None
        await domain.inbox.stop()


@pytest.fixture
async def domain(make_domain: MakeDomain) -> Domain:
    domain = make_domain()
    await domain.start()
    return domain


@pytest.fixture
async def edge(make_bus: MakeBus) -> Edge:
    edge = Edge(make_bus(EDGE))
    edge.bus.start()
    await edge.bus.wait_connected(5)
    return edge


async def test_events_are_persisted_in_order_and_then_acknowledged(
    domain: Domain, edge: Edge, store: Store
) -> None:
    await edge.say(event(1), event(2))
    await edge.say(batch([event(n) for n in range(3, 53)]), topic=BATCH)
    await edge.say(event(53))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 53)])
    assert domain.ids == [f"e1:{n}" for n in range(1, 54)]
    assert not any(ack.nak for ack in edge.acks)
    assert all(abs(time - now().timestamp()) < 600 for time in edge.times)
    assert domain.inbox.taken == 53
    assert domain.inbox.waiting == 0
    assert await store.find(SOURCES, {}) == [{"_id": EDGE, "epoch": "e1", "upto": 53, "past": []}]


async def test_an_event_that_is_persisted_already_is_acknowledged_again(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(event(1), event(2))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    edge.acks.clear()
    await edge.say(event(1))
    await until(lambda: edge.acks == [Ack("e1", 2)])
    assert domain.ids == ["e1:1", "e1:2"]


async def test_behind_a_gap_nothing_is_taken_and_the_missing_is_asked_for(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(event(1), event(3))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 1, nak=True)])
    await edge.say(event(2), event(3))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    assert domain.ids == ["e1:1", "e1:2", "e1:3"]


async def test_a_source_that_begins_in_the_middle_is_asked_for_its_start(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(event(7))
    await until(lambda: edge.acks == [Ack("e1", 0, nak=True)])
    assert domain.calls == []


async def test_a_new_epoch_is_taken_and_a_straggler_of_the_past_one_is_dropped(
    domain: Domain, edge: Edge, store: Store
) -> None:
    await edge.say(event(1), event(2), event(1, "e2"), event(3, "e1"), event(2, "e2"))
    await until(lambda: edge.acks[-1:] == [Ack("e2", 2)])
    await until(lambda: domain.inbox.waiting == 0)
    assert domain.ids == ["e1:1", "e1:2", "e2:1", "e2:2"]
    [source] = await store.find(SOURCES, {})
    assert source == {"_id": EDGE, "epoch": "e2", "upto": 2, "past": ["e1"], "ended": [2]}


async def test_nothing_is_acknowledged_before_it_is_persisted(domain: Domain, edge: Edge) -> None:
    domain.failing = Unavailable("the store is away")
    await edge.say(event(1), event(2))
    await until(lambda: len(domain.calls) >= 4)
    assert edge.acks == []
    assert domain.bus.dead_letters == 0
    assert all(call == domain.calls[0] for call in domain.calls)
    domain.failing = None
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    assert domain.ids == ["e1:1", "e1:2"]


async def test_while_the_store_is_away_the_inbox_holds_one_copy_of_what_is_sent_again(
    domain: Domain, edge: Edge
) -> None:
    domain.failing = Unavailable("the store is away")
    await edge.say(event(1))
    await until(lambda: domain.calls)
    one, several = event(2), batch([event(1), event(2), event(3)])
    for _ in range(20):
        await edge.say(several, topic=BATCH)
        await edge.say(one)
    assert domain.inbox.waiting == 2
    for reconnects in range(1, 4):
        assert domain.bus.connection is not None
        domain.bus.connection.abort("cut by the test")
        await until(lambda wanted=reconnects: domain.bus.reconnects == wanted)
        await domain.bus.wait_connected(PATIENCE_S)
        calls = len(domain.calls)
        await edge.say(one)
        await until(lambda calls=calls: len(domain.calls) > calls)
        assert domain.inbox.waiting <= 3
    domain.failing = None
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    await until(lambda: domain.inbox.waiting == 0)
    assert domain.ids == ["e1:1", "e1:2", "e1:3"]


async def test_two_bare_objects_of_the_same_content_are_two_events(
    domain: Domain, edge: Edge
) -> None:
    domain.failing = Unavailable("the store is away")
    await edge.say(event(1))
    await until(lambda: domain.calls)
    await edge.say(b'{"a": 1}', b'{"a": 1}')
    await until(lambda: domain.inbox.waiting == 2)
    domain.failing = None
    await until(lambda: len(domain.ids) == 3)


async def test_a_replica_without_a_session_does_not_pile_up_what_edges_send_again(
    make_bus: MakeBus, store: Store, edge: Edge
) -> None:
    domain = Domain(make_bus("tiny-domain-2"), store)
    await domain.start()
    domain.failing = Unavailable("the store is away")
    await edge.say(event(1))
    await until(lambda: domain.calls)
    await edge.say(b'{"a": 1}')
    for reconnects in range(1, 6):
        await edge.say(*(event(n) for n in range(2, 12)))
        assert domain.bus.connection is not None
        domain.bus.connection.abort("cut by the test")
        await until(lambda wanted=reconnects: domain.bus.reconnects == wanted)
        await domain.bus.wait_connected(PATIENCE_S)
    await edge.say(event(2))
    await until(lambda: domain.inbox.waiting == 2)  # the object, which nobody sends again
    await domain.inbox.stop()


async def test_what_a_killed_domain_had_in_hand_comes_again_to_the_next(
    make_domain: MakeDomain, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "STOP_TIMEOUT_S", 0.0)
    killed = make_domain()
    killed.hanging = asyncio.Event()
    await killed.start()
    await edge.say(event(1))
    await until(lambda: killed.calls == [["e1:1"]])
    await edge.say(event(2))
    assert killed.bus._connection is not None
    killed.bus._connection.abort("killed by the test")
    await killed.bus.stop()
    await killed.inbox.stop()
    assert edge.acks == []

    domain = make_domain()
    await domain.start()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    assert domain.ids == ["e1:1", "e1:2"]


async def test_a_restarted_domain_goes_on_where_the_last_one_stopped(
    make_domain: MakeDomain, edge: Edge
) -> None:
    first = make_domain()
    await first.start()
    await edge.say(event(1), event(2))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    await first.inbox.stop()
    await first.bus.stop()
    second = make_domain()
    await second.start()
    await edge.say(event(2), event(3))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    assert second.ids == ["e1:3"]


async def test_a_poison_event_becomes_a_dead_letter_and_the_others_are_persisted(
    domain: Domain, edge: Edge
) -> None:
    domain.hanging = asyncio.Event()
    await edge.say(event(1))
    await until(lambda: len(domain.calls) == 1)
    some = [event(2), event(3, data="poison"), event(4)]
    await edge.say(batch(some), topic=BATCH)
    await until(lambda: domain.inbox.waiting == 1)
    domain.hanging.set()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 4)])
    assert domain.ids == ["e1:1", "e1:2", "e1:4"]
    await until(lambda: edge.reasons == ["ValueError: poison"])
    original = bytes.fromhex(edge.letters[0]["hex"])
    assert json.loads(original)["id"] == "e1:3"


NO_EVENTS = {
    "nothing": b"",
    "no JSON": b"{",
    "bytes": b"\xff\x00",
    "a number": b"17",
    "a list of numbers": b"[1]",
    "an object with text that is no UTF-8": b'{"minutes": "\xff"}',
    "a nesting too deep": b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
}


@pytest.mark.parametrize("payload", NO_EVENTS.values(), ids=list(NO_EVENTS))
async def test_what_is_no_event_becomes_a_dead_letter_and_the_next_is_taken(
    domain: Domain, edge: Edge, payload: bytes
) -> None:
    await edge.say(payload, event(1))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 1)])
    await until(lambda: len(edge.letters) == 1)
    assert edge.reasons[0].startswith("invalid event: ")
    assert edge.letters[0]["topic"] == ALONE
    assert edge.letters[0]["size"] == len(payload)
    assert domain.ids == ["e1:1"]


async def test_a_bare_object_is_an_event_and_gets_an_id_on_arrival(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(b'{"minutes": 60}', b'{"minutes": 60}')
    await until(lambda: len(domain.kept) == 2)
    one, two = domain.kept
    assert one.id != two.id
    assert (one.type, one.subject, one.sequence) == ("patchbay.tiny.said", "d1", 0)
    assert json.loads(bytes(one.data)) == {"minutes": 60}
    assert one.time.endswith("Z")
    assert (edge.acks, edge.letters) == ([], [])


async def test_a_bare_object_keeps_its_id_while_it_cannot_be_persisted(
    domain: Domain, edge: Edge
) -> None:
    domain.failing = Unavailable("the store is away")
    await edge.say(b"{}")
    await until(lambda: len(domain.calls) >= 3)
    domain.failing = None
    await until(lambda: len(domain.kept) == 1)
    assert {call[0] for call in domain.calls} == {domain.kept[0].id}


async def test_an_event_without_a_sequence_is_taken_and_nobody_is_told(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(event(0, id="once"))
    await edge.say(event(1))
    await until(lambda: edge.acks == [Ack("e1", 1)])
    assert domain.ids == ["once", "e1:1"]


async def test_two_sources_are_told_apart(domain: Domain, edge: Edge) -> None:
    await edge.say(event(1, "e1"), event(1, "f1", source="tiny-edge-2"), event(2, "e1"))
    await until(lambda: {Ack("e1", 2), Ack("f1", 1)} <= set(edge.acks))
    assert domain.ids == ["e1:1", "f1:1", "e1:2"]


async def test_an_error_of_the_store_that_is_none_of_ours_is_tried_again(
    domain: Domain, edge: Edge, store: Store
) -> None:
    """Here an index that refuses the second watermark; a wrong password looks the same."""
    await store.ensure_index(SOURCES, [("epoch", 1)], unique=True)
    await edge.say(event(1))
    await until(lambda: edge.acks == [Ack("e1", 1)])
    await edge.say(event(1, source="tiny-edge-2", id="second"))
    await until(lambda: len([call for call in domain.calls if call == ["second"]]) >= 2)
    await store.collection(SOURCES).drop_index("epoch_1")
    await until(lambda: len(edge.acks) == 2)


async def test_a_round_is_bounded_and_the_rest_follows(
    domain: Domain, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "ROUND_EVENTS", 10)
    domain.hanging = asyncio.Event()
    await edge.say(event(1))
    await until(lambda: len(domain.calls) == 1)
    for first in range(2, 50, 6):
        await edge.say(batch([event(n) for n in range(first, first + 6)]), topic=BATCH)
    await until(lambda: domain.inbox.waiting == 8)
    domain.hanging.set()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 49)])
    assert max(len(call) for call in domain.calls) == 12
    assert domain.ids == [f"e1:{n}" for n in range(1, 50)]


async def test_stop_ends_the_round_in_hand_first(domain: Domain, edge: Edge) -> None:
    domain.hanging = asyncio.Event()
    await edge.say(event(1))
    await until(lambda: len(domain.calls) == 1)
    stopping = asyncio.create_task(domain.inbox.stop())
    await asyncio.sleep(0)
    domain.hanging.set()
    await stopping
    await until(lambda: edge.acks == [Ack("e1", 1)])
    assert domain.ids == ["e1:1"]


async def test_an_inbox_of_one_device_leaves_the_others_alone(
    make_bus: MakeBus, store: Store, edge: Edge
) -> None:
    taken: list[str] = []

    async def apply(events: list[Event]) -> None:
        taken.extend(one.id for one in events)

    bus = make_bus("tiny-domain-1", durable=True)
    inbox = Inbox(bus, store, SETTINGS, "tiny", ["said"], apply, device="d1")
    inbox.start()
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    await edge.say(event(1, source="another"), topic="patchbay/tiny/d2/event/said")
    others = new_event(
        id="x",
        source="another",
        type="patchbay.tiny.said",
        subject="D2",
        sequence=2,
        epoch="e",
        data=None,
    )
    await edge.say(batch([others]), topic="patchbay/tiny/another/event/batch")
    await edge.say(event(1))
    await edge.say(batch([event(2), event(3)]), topic=BATCH)
    await until(lambda: edge.acks[-1:] == [Ack("e1", 3)])
    assert taken == ["e1:1", "e1:2", "e1:3"]
    assert {ack.epoch for ack in edge.acks} == {"e1"}
    await inbox.stop()


INFO = f"patchbay/status/{EDGE}/info"


async def test_an_epoch_that_is_not_named_by_the_info_of_its_source_does_not_begin(
    domain: Domain, edge: Edge
) -> None:
    await edge.bus.publish(INFO, b'{"unit":"tiny.edge","epoch":"e1"}', retain=True)
    await edge.say(event(1), event(1, "forged"), event(2, "forged"), event(2), event(1, "forged"))
    await until(lambda: Ack("forged", 0, nak=True) in edge.acks)
    await edge.say(event(3))
    await until(lambda: domain.ids == ["e1:1", "e1:2", "e1:3"])
    await edge.bus.publish(INFO, b'{"unit":"tiny.edge","epoch":"e2"}', retain=True)
    await edge.say(event(1, "e2"))
    await until(lambda: domain.ids[3:] == ["e2:1"])


async def test_the_info_that_stood_there_before_the_domain_came_counts(
    make_domain: MakeDomain, edge: Edge
) -> None:
    await edge.bus.publish(INFO, b'{"unit":"tiny.edge","epoch":"e1"}', retain=True)
    domain = make_domain()
    await domain.start()
    await until(lambda: domain.inbox._watermarks._announced == {EDGE: "e1"})
    await edge.say(event(1, "forged"))
    await until(lambda: edge.acks == [Ack("forged", 0, nak=True)])
    for info in (b"", b"not JSON", b'{"epoch":7}', b"{}"):
        await edge.bus.publish(INFO, info, retain=True)
    await edge.say(event(1, "e2"))
    await until(lambda: domain.ids == ["e2:1"])


async def test_of_an_epoch_that_is_over_the_edge_learns_what_is_persisted_and_what_never_will_be(
    domain: Domain, edge: Edge
) -> None:
    await edge.say(event(1), event(2), event(1, "e2"))
    await until(lambda: edge.acks[-1:] == [Ack("e2", 1)])
    edge.acks.clear()
    await edge.say(event(2))
    await until(lambda: edge.acks == [Ack("e1", 2)])
    await edge.say(event(3))
    await until(lambda: edge.acks[1:] == [Ack("e1", 2, nak=True, over=True)])
    await edge.say(event(2, "e2"))
    await until(lambda: domain.ids[3:] == ["e2:2"])


async def test_a_batch_counts_only_from_the_instance_on_whose_topic_it_comes(
    domain: Domain, edge: Edge
) -> None:
    both = batch([event(1), event(1, "e9", source="tiny-edge-2")])
    await edge.say(both, topic=BATCH)
    await until(lambda: domain.ids == ["e1:1"] and len(edge.letters) == 1)
    assert edge.reasons == [f"invalid event: it is in a batch of {EDGE} and not of it"]
    await edge.say(batch([event(2), event(3)]), topic="patchbay/tiny/tiny-edge-2/event/batch")
    await until(lambda: len(edge.letters) == 2)
    await edge.say(event(2))
    await until(lambda: domain.ids == ["e1:1", "e1:2"])
