"""The skeleton of a domain: events are folded into states, each once, and states are published."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec import Raw, Struct

from patchbay.bus import Bus, Message
from patchbay.domain import Ledger, Table
from patchbay.errors import Unavailable
from patchbay.messages import Event, encode
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, eventually, until


class Said(Struct, frozen=True):
    number: int


class Total(Struct, frozen=True):
    count: int = 0
    total: int = 0


def fold(state: Total | None, said: Said) -> Total:
    if said.number < 0:
        raise ValueError("number must be at least 0")
    before = state or Total()
    return Total(before.count + 1, before.total + said.number)


TABLE = Table(
    "tiny", "said", Said, Total, fold, states="totals", facts="numbers", facts_ttl_s=86_400
)
SOURCE = "tiny-edge-1"


class Running:
    def __init__(self, ledger: Ledger[Said, Total], store: Store, edge: Bus) -> None:
        self.ledger = ledger
        self.store = store
        self.edge = edge
        self.states: dict[str, dict[str, Any]] = {}
        self.dead: list[dict[str, Any]] = []

    def say(self, device: str, sequence: int, data: bytes) -> None:
        """Publish an event, as an edge does."""
        event = Event(
            id=f"e{sequence}",
            source=SOURCE,
            type="patchbay.tiny.said",
            subject=device,
            time="2026-01-01T00:00:00.000Z",
            sequence=sequence,
            epoch="one",
            data=Raw(data),
        )
        self.edge.post(self.edge.topics.event("tiny", device.lower(), "said"), encode(event))

    async def documents(self, collection: str) -> list[dict[str, Any]]:
        return await self.store.find(collection, {}, sort=[("_id", 1)])


Start = Callable[[], contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(make_bus: MakeBus, store: Store) -> Start:
    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[Running]:
        bus, edge = make_bus("tiny-domain-1", durable=True), make_bus(SOURCE)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(bus.stop)
            ledger = await stack.enter_async_context(
                Ledger(bus, store, StoreSettings(backoff_max_s=0.2), TABLE)
            )
            running = Running(ledger, store, edge)

            def state(message: Message) -> None:
                message.ack()
                running.states[message.topic.split("/")[2]] = json.loads(message.payload)

            edge.listen(edge.topics.state("tiny", "+"), state)
            edge.listen(edge.topics.dead("tiny"), lambda one: running.dead.append(_read(one)))
            await stack.enter_async_context(edge)
            bus.start()
            await bus.set_ready()
            await bus.wait_online(PATIENCE_S)
            yield running

    return start


def _read(message: Message) -> dict[str, Any]:
    message.ack()
    letter: dict[str, Any] = json.loads(message.payload)
    return letter


async def test_events_are_folded_once_and_the_state_is_published(start: Start) -> None:
    async with start() as tiny:
        for sequence in (1, 2, 1, 2, 3):
            tiny.say("D1", sequence, b'{"number": %d}' % sequence)
        await until(lambda: tiny.states.get("d1", {}).get("count") == 3)
        assert tiny.states["d1"]["total"] == 6
        facts = await tiny.documents("numbers")
        assert [(one["_id"], one["device"], one["number"]) for one in facts] == [
            ("e1", "D1", 1),
            ("e2", "D1", 2),
            ("e3", "D1", 3),
        ]
    async with start() as tiny:  # what is retained is published again after each connect
        await until(lambda: tiny.states.get("d1", {}).get("count") == 3)


async def test_what_cannot_be_folded_is_set_aside_and_the_rest_goes_on(start: Start) -> None:
    async with start() as tiny:
        tiny.say("d1", 1, b'{"number": 1}')
        tiny.say("d1", 2, b'{"number": -1}')
        tiny.say("d1", 3, b'{"number": "x"}')
        tiny.say("d1", 4, b'{"number": 4}')
        await until(lambda: tiny.states.get("d1", {}).get("total") == 5)

        async def stored() -> bool:
            return len(await tiny.documents("dead")) == 2

        await eventually(stored)
        await until(lambda: any("number must be at least 0" in one["reason"] for one in tiny.dead))


async def test_a_round_that_fails_changes_nothing_in_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as tiny:
        tiny.say("d1", 1, b'{"number": 1}')
        await until(lambda: tiny.states.get("d1", {}).get("count") == 1)
        save, failures = tiny.ledger.states.save, iter(range(2))

        async def fail_twice(changed: Any) -> None:
            if next(failures, None) is not None:
                raise Unavailable("the store is away")
            await save(changed)

        monkeypatch.setattr(tiny.ledger.states, "save", fail_twice)
        tiny.say("d1", 2, b'{"number": 2}')
        await until(lambda: tiny.states["d1"]["count"] == 2)
        assert tiny.states["d1"]["total"] == 3


async def test_devices_are_listed_in_pages(start: Start, make_bus: MakeBus) -> None:
    async with start() as tiny, make_bus("asker") as asker:
        for sequence, device in enumerate(("c", "a", "b"), 1):
            tiny.say(device, sequence, b'{"number": 1}')
        await until(lambda: len(tiny.states) == 3)
        topic = asker.topics.command("tiny", "all", "list")

        async def ask(body: bytes) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(
                await asker.request(topic, body, timeout_s=PATIENCE_S)
            )
            return found

        answer = await ask(b'{"limit": 2, "skip": 1}')
        assert answer["total"] == 3
        assert [one["device"] for one in answer["totals"]] == ["b", "c"]
        refused = await ask(b'{"limit": 1000}')
        assert "limit must be an integer from 1 to 200" in refused["error"]["message"]


async def test_an_event_that_a_person_publishes_counts_too(start: Start) -> None:
    async with start() as tiny:
        topic = tiny.edge.topics.event("tiny", "d9", "said")
        tiny.edge.post(topic, b'{"number": 7}')
        await until(lambda: tiny.states.get("d9", {}).get("total") == 7)
