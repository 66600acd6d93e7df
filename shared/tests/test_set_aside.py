"""What is set aside is stored before anybody is told that it is done with; what is not, waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from patchbay.bus import Bus, Message
from patchbay.bus.letters import DeadLetters, OnAck, read_letter, write_letter
from patchbay.chaos.store_link import How, Refusal, StoreLink, containing
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox import Inbox
from patchbay.messages import Ack, DeadLetter, Event, batch, encode
from patchbay.settings import BrokerSettings
from patchbay.store import DEAD_LETTERS, Document, Store
from patchbay.testing import MakeBus, Part, eventually, until
from tests.inbox_ends import ALONE, BATCH, EDGE, SETTINGS, Edge, event


class Facts:
    """A domain whose events become one document each."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self.bus = bus
        self.store = store
        self.inbox = Inbox(bus, store, SETTINGS, "tiny", ["said"], self._apply)
        self.rounds = 0
        self.broken: Exception | None = None
        bus.subscribe("patchbay/dead/tiny", self._bury)

    async def _apply(self, events: list[Event]) -> None:
        self.rounds += 1
        if self.broken is not None:
            raise self.broken
        documents = [{"_id": one.id, "data": bytes(one.data)} for one in events]
        await self.store.insert_new("facts", documents)

    async def _bury(self, message: Message) -> None:
        await self.store.bury(DEAD_LETTERS, read_letter(message.payload, self.bus.client_id))

    async def facts(self) -> list[str]:
        return sorted(one["_id"] for one in await self.store.find("facts", {}))

    async def dead(self) -> list[Document]:
        return await self.store.find(DEAD_LETTERS, {})


@pytest.fixture
async def facts(make_bus: MakeBus, linked_store: Store) -> AsyncIterator[Facts]:
    facts = Facts(make_bus("tiny-domain-1", durable=True), linked_store)
    facts.inbox.start()
    facts.bus.start()
    await facts.bus.wait_connected(5)
    yield facts
    await facts.inbox.stop()


@pytest.fixture
async def edge(make_bus: MakeBus) -> Edge:
    edge = Edge(make_bus(EDGE))
    edge.bus.start()
    await edge.bus.wait_connected(5)
    return edge


async def test_an_event_whose_document_is_rejected_is_stored_whole_and_the_others_go_on(
    facts: Facts, edge: Edge, store_link: StoreLink
) -> None:
    odd = "odd" + "x" * 20_000
    refusal = Refusal(code=121, how="documents", only=containing("odd"), collections={"facts"})
    store_link.refuse_writes(refusal)
    await edge.say(
        batch([event(n, data={"say": odd if n == 3 else ""}) for n in range(1, 7)]), topic=BATCH
    )
    await until(lambda: edge.acks[-1:] == [Ack("e1", 6)])
    assert await facts.facts() == [f"e1:{n}" for n in (1, 2, 4, 5, 6)]
    [letter] = await facts.dead()
    assert json.loads(letter["original"])["data"] == {"say": odd}
    assert letter["topic"] == ALONE
    assert "121" in letter["reason"]


@pytest.mark.parametrize("how", ["command", "documents"])
@pytest.mark.parametrize("code", [14031, 121])
async def test_while_the_dead_letter_cannot_be_stored_nothing_is_acknowledged(
    facts: Facts, edge: Edge, store_link: StoreLink, how: How, code: int
) -> None:
    store_link.refuse_writes(Refusal(code=code, how=how, collections={DEAD_LETTERS}))
    await edge.say(b"not an event", event(1))
    await until(lambda: store_link.refused > 3)
    assert edge.acks == []
    assert edge.letters == []
    store_link.accept_writes()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 1)])
    [letter] = await facts.dead()
    assert bytes.fromhex(letter["hex"]) in (b"not an event", b"")  # of 121 perhaps a part only
    if code == 14031:
        assert letter["original"] == b"not an event"


async def test_a_failure_without_any_event_is_no_events_fault(facts: Facts, edge: Edge) -> None:
    facts.broken = KeyError("a document that cannot be read")
    await edge.say(event(1), event(2))
    await until(lambda: facts.rounds > 10)
    assert (edge.acks, edge.letters) == ([], [])
    facts.broken = None
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    assert await facts.dead() == []


async def test_messages_that_are_delivered_again_take_the_place_of_their_old_copies(
    facts: Facts, edge: Edge, store_link: StoreLink
) -> None:
    store_link.refuse_writes(Refusal(code=14031))
    await edge.say(*[event(n) for n in range(1, 101)])

    def held() -> int:
        return len(facts.inbox._arrived) + len(facts.inbox._in_hand)

    await until(lambda: held() == 100)
    for _ in range(5):
        connections = facts.bus.reconnects
        assert facts.bus.connection is not None
        facts.bus.connection.abort("by the test")
        await until(lambda: facts.bus.reconnects > connections and facts.bus.connected)  # noqa: B023
        await until(lambda: held() >= 90)
        await asyncio.sleep(0.1)
        assert held() <= 100
    store_link.accept_writes()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 100)])
    assert len(await facts.facts()) == 100


async def test_messages_in_hand_when_the_store_is_closed_come_again_and_are_never_set_aside(
    make_bus: MakeBus, store_server: Part, store: Store, edge: Edge
) -> None:
    bus = make_bus("tiny-domain-1", durable=True)
    database = store.collection("x").database.name
    async with Store(
        replace(SETTINGS, database=database), f"mongodb://127.0.0.1:{store_server.port}"
    ) as own:
        facts = Facts(bus, own)
        handled: list[bytes] = []

        async def handle(message: Message) -> None:
            await own.insert_new("commands", [{"_id": message.payload.decode()}])
            handled.append(message.payload)

        bus.subscribe("patchbay/tiny/d1/cmd/do", handle)
        facts.inbox.start()
        bus.start()
        await bus.wait_connected(5)
        await edge.say(event(1))
        await until(lambda: edge.acks[-1:] == [Ack("e1", 1)])
    # As a unit ends: the store is closed, the bus is not yet.
    await edge.say(*[event(n) for n in range(2, 20)])
    await edge.bus.publish("patchbay/tiny/d1/cmd/do", b"late")
    await until(lambda: facts.inbox._store_is_away)
    await asyncio.sleep(0.3)
    await facts.inbox.stop()
    await bus.stop()
    assert (handled, edge.letters) == ([], [])

    again = make_bus("tiny-domain-1", durable=True)
    late: list[bytes] = []

    async def take(message: Message) -> None:
        late.append(message.payload)

    again.subscribe("patchbay/tiny/d1/cmd/do", take)
    second = Facts(again, store)
    second.inbox.start()
    again.start()
    await until(lambda: edge.acks[-1:] == [Ack("e1", 19)] and late == [b"late"])
    assert await second.dead() == []
    await second.inbox.stop()


# Messages that a handler or a callback cannot take


async def test_a_message_that_cannot_be_handled_is_acknowledged_when_its_letter_is_stored(
    facts: Facts, edge: Edge, store_link: StoreLink
) -> None:
    def refuse(message: Message) -> None:
        raise RuntimeError("cannot take it")

    async def fail(message: Message) -> None:
        raise RuntimeError("cannot handle it")

    facts.bus.listen("patchbay/tiny/d1/state", refuse)
    facts.bus.subscribe("patchbay/tiny/d1/cmd/do", fail)
    for one in facts.bus._router.subscriptions:
        if one.adding is not None:
            await one.adding
    store_link.refuse_writes(Refusal(code=14031, collections={DEAD_LETTERS}))
    await edge.bus.publish("patchbay/tiny/d1/state", b"\xff" * 3000)
    await edge.bus.publish("patchbay/tiny/d1/cmd/do", b"\xfe" * 3000)
    await until(lambda: store_link.refused > 3)
    assert edge.letters == []
    store_link.accept_writes()
    await until(lambda: len(edge.letters) == 2)
    originals = sorted(one["original"] for one in await facts.dead())
    assert originals == [b"\xfe" * 3000, b"\xff" * 3000]


async def test_a_dead_letter_about_a_dead_letter_is_never_written(
    facts: Facts, edge: Edge, make_bus: MakeBus
) -> None:
    other = make_bus("other-domain-1", durable=True)

    async def fail(message: Message) -> None:
        raise RuntimeError("cannot handle it")

    def refuse(message: Message) -> None:
        raise RuntimeError("cannot take it")

    other.subscribe("patchbay/dead/tiny", fail)
    other.listen("patchbay/dead/other", refuse)
    other.start()
    await other.wait_connected(5)
    edge.bus.dead_letter("tiny", "one", b"1")
    await edge.bus.publish("patchbay/dead/other", b"2")
    edge.bus.dead_letter("tiny", "two", b"3")
    await until(lambda: len(edge.letters) == 2)

    async def stored() -> bool:
        return len(await facts.dead()) == 2

    await eventually(stored)
    assert edge.reasons == ["one", "two"]
    assert other.dead_letters == 0


async def test_a_dead_letter_that_the_store_never_takes_is_stored_in_part(
    facts: Facts, store_link: StoreLink
) -> None:
    rejected = Refusal(code=10334, how="documents", only=containing("whole"))
    store_link.refuse_writes(rejected)
    letter = write_letter("tiny-domain-1", "why", b"whole", topic="a")
    await facts.store.bury(DEAD_LETTERS, letter, b"whole")
    [stored] = await facts.dead()
    assert (stored["_id"], stored["reason"], stored["size"]) == (letter.id, "why", 5)
    store_link.refuse_writes(Refusal(code=10334, how="documents"))
    with pytest.raises(Unavailable):
        await facts.store.bury(DEAD_LETTERS, write_letter("tiny-domain-1", "why", b"x"), b"x")


# Letters


class Broker:
    """Takes packets up to a size, while it is there."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.taken: list[DeadLetter] = []

    def post(self, topic: str, payload: bytes, *, on_ack: OnAck) -> None:
        if len(payload) > self.largest:
            raise TooLarge("too large")
        self.taken.append(read_letter(payload, "x"))
        on_ack(0)


@pytest.mark.parametrize("largest", [0, 200, 300, 500, 1500, 100_000])
def test_a_letter_that_is_too_large_for_the_broker_keeps_no_other_waiting(largest: int) -> None:
    broker = Broker(largest)
    letters = DeadLetters("u", BrokerSettings(), broker.post, lambda: True)
    letters.refuse("dead/x", "r" * 5000, b"\xff" * 5000, topic="t" * 5000)
    broker.largest = 100_000
    for number in range(3):
        letters.refuse("dead/x", f"small {number}", b"a")
    assert [one.reason for one in broker.taken[-3:]] == ["small 0", "small 1", "small 2"]
    assert len(broker.taken) + letters.dropped == 4


def test_a_post_that_fails_in_any_way_keeps_no_letter_waiting() -> None:
    failures: list[Exception] = [ValueError("invalid topic"), RuntimeError("?")]
    taken: list[bytes] = []

    def post(topic: str, payload: bytes, *, on_ack: OnAck) -> None:
        if failures:
            raise failures.pop()
        taken.append(payload)

    letters = DeadLetters("u", BrokerSettings(), post, lambda: True)
    for number in range(3):
        letters.refuse("dead/x", str(number), b"")
    assert len(taken) == 1


def test_a_letter_waits_while_the_broker_is_away() -> None:
    broker = Broker(100_000)
    away = [Unavailable("away")]

    def post(topic: str, payload: bytes, *, on_ack: OnAck) -> None:
        if away:
            raise away.pop()
        broker.post(topic, payload, on_ack=on_ack)

    letters = DeadLetters("u", BrokerSettings(), post, lambda: True)
    letters.refuse("dead/x", "1", b"")
    assert not broker.taken
    letters.send()
    assert [one.reason for one in broker.taken] == ["1"]


@pytest.mark.parametrize("text", ["\ud800", "\0", "x" * 100_000, "\x1b[31m", "등"])
def test_any_text_can_stand_in_a_letter(text: str) -> None:
    letter = write_letter(text, text, text.encode(errors="surrogatepass"), topic=text, peer=text)
    read = read_letter(encode(letter), "reader")
    assert read == letter
    assert len(encode(letter)) < 30_000


async def test_an_event_that_was_set_aside_can_be_replayed(
    facts: Facts, edge: Edge, store_link: StoreLink
) -> None:
    """By publishing its original on its topic, without its place in the sequence."""
    store_link.refuse_writes(
        Refusal(code=121, how="documents", only=containing("odd"), collections={"facts"})
    )
    await edge.say(event(1, data={"say": "odd"}), event(2, data={"say": "even"}))
    await until(lambda: edge.acks[-1:] == [Ack("e1", 2)])
    store_link.accept_writes()
    [letter] = await facts.dead()
    again = json.loads(letter["original"])
    del again["sequence"], again["epoch"]
    for _ in range(2):
        await edge.bus.publish(letter["topic"], encode(again))

    async def all_there() -> bool:
        return await facts.facts() == ["e1:1", "e1:2"]

    await eventually(all_there)
