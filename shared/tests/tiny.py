"""A tiny edge and a tiny domain, each a process, for the test that nothing is lost.

    python tiny.py edge  BROKER_PORT STATE_DIR LISTEN_PORT
    python tiny.py domain BROKER_PORT STORE_URI

The device's protocol: it sends a line ``<device> <number>`` and gets ``<number>`` back once the
event is in the outbox. A device without an answer says the same line again, to whatever edge is
there. The domain counts the events of each device in the device's own document and keeps each as a
fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path

import msgspec

from patchbay.bus import Bus
from patchbay.inbox import Aggregate, Aggregates, Inbox, Outgoing, Publisher
from patchbay.messages import Event, event_type, new_event
from patchbay.outbox import Outbox, OutboxFull
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import broker_settings
from patchbay.topics import Topics

SERVICE = "tiny"
FACTS = "facts"
COUNTERS = "counters"


class Said(msgspec.Struct):
    device: str
    number: int


class Counter(msgspec.Struct):
    count: int = 0
    total: int = 0


class TinyEdge(asyncio.Protocol):
    """One device's connection."""

    def __init__(self, outbox: Outbox, last: dict[str, bytes]) -> None:
        self.outbox = outbox
        self.last = last
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            device, number = line.decode().split()
            if self.last.get(device) != number.encode():
                try:
                    self.outbox.add(
                        device,
                        "said",
                        key=f"{device}:{int(number):08}",
                        subject=device,
                        time="2026-01-01T00:00:00Z",
                        data=Said(device, int(number)),
                    )
                except OutboxFull:
                    self.transport.close()
                    return
                self.last[device] = number.encode()
                self.outbox.note(f"last/{device}", number.encode())
            self.outbox.after_commit(partial(self.answer, number.encode() + b"\n"))

    def answer(self, answer: bytes, ok: bool) -> None:
        if ok:
            self.transport.write(answer)


async def edge(broker_port: int, state: Path, port: int) -> None:
    bus = Bus(broker_settings(broker_port), client_id="tiny-edge-1", topics=Topics())
    async with Outbox(bus, SERVICE, state / "outbox.sqlite") as outbox:
        last = dict(outbox.notes("last/"))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: TinyEdge(outbox, last), "127.0.0.1", port)
        async with bus, server:
            await bus.set_ready()
            await asyncio.Event().wait()


class TinyDomain:
    """Counts, and tells everybody of each device's hundredth."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self.bus = bus
        self.store = store
        self.counters = Aggregates(store, COUNTERS, Counter)
        self.publisher: Publisher[Counter] = Publisher(bus, SERVICE)
        self.publisher.follow(self.counters)
        self.inbox = Inbox(bus, store, StoreSettings(), SERVICE, ["said"], self.apply)
        bus.on_connect(self.connected)

    async def connected(self) -> None:
        async with self.counters.lock:
            await self.counters.load()
            self.publisher.flush(self.counters)

    async def apply(self, events: list[Event]) -> None:
        async with self.counters.lock:
            await self.counters.load()
            changed: dict[str, Aggregate[Counter]] = {}
            facts = []
            for event in events:
                said = msgspec.json.decode(event.data, type=Said)
                counter = self.counters.get(said.device)
                if counter is None:
                    counter = Aggregate(said.device, Counter())
                    self.counters.add(counter)
                facts.append({"_id": event.id, "device": said.device, "number": said.number})
                if counter.knows(event):
                    continue
                counter.apply(event)
                counter.state.count += 1
                counter.state.total += said.number
                id = f"{event.id}/counted"
                counted = new_event(
                    id=id,
                    source=self.bus.client_id,
                    type=event_type(SERVICE, "counted"),
                    subject=said.device,
                    data={"count": counter.state.count},
                )
                counter.publish(id, Outgoing(said.device, "counted", counted))
                changed[counter.id] = counter
            try:
                await self.store.insert_new(FACTS, facts)
                await self.counters.save(changed.values())
            except BaseException:
                # They have taken in what is not stored: else it would count as known next time.
                self.counters.doubt(changed)
                raise
            self.publisher.flush(changed.values())


async def domain(broker_port: int, uri: str) -> None:
    bus = Bus(
        broker_settings(broker_port), client_id="tiny-domain-1", topics=Topics(), durable=True
    )
    async with Store(StoreSettings(database="tiny", timeout_s=5.0), uri) as store:
        tiny = TinyDomain(bus, store)
        tiny.inbox.start()
        async with bus:
            await bus.set_ready()
            await asyncio.Event().wait()


def main() -> None:
    role, broker_port, *rest = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        if role == "edge":
            asyncio.run(edge(int(broker_port), Path(rest[0]), int(rest[1])))
        else:
            asyncio.run(domain(int(broker_port), rest[0]))


if __name__ == "__main__":
    main()
