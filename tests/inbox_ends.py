"""Both ends of an inbox: an edge that speaks by hand, and a domain that fails when told to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from patchbay.bus import Bus, Message
from patchbay.inbox import Inbox
from patchbay.messages import Ack, Event, new_event
from patchbay.settings import StoreSettings
from patchbay.store import Store

EDGE = "tiny-edge-1"
ALONE = "patchbay/tiny/d1/event/said"
BATCH = f"patchbay/tiny/{EDGE}/event/batch"
SETTINGS = StoreSettings(backoff_initial_s=0.01, backoff_max_s=0.05)


def event(
    sequence: int, epoch: str = "e1", data: Any = None, source: str = EDGE, id: str = ""
) -> bytes:
    return new_event(
        id=id or f"{epoch}:{sequence}",
        source=source,
        type="patchbay.tiny.said",
        subject="D1",
        sequence=sequence,
        epoch=epoch,
        data=data,
    )


class Edge:
    """Publishes by hand, and hears the acknowledgements and dead letters."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.acks: list[Ack] = []
        """Without their times, which are in ``times``."""
        self.times: list[float] = []
        self.letters: list[dict[str, Any]] = []
        bus.listen("patchbay/ack/#", self._acknowledged)
        bus.listen("patchbay/dead/tiny", self._bury)

    def _acknowledged(self, message: Message) -> None:
        message.ack()
        ack = msgspec.json.decode(message.payload, type=Ack)
        self.times.append(ack.time)
        self.acks.append(msgspec.structs.replace(ack, time=0.0))

    def _bury(self, message: Message) -> None:
        message.ack()
        self.letters.append(json.loads(message.payload))

    async def say(self, *payloads: bytes, topic: str = ALONE) -> None:
        for payload in payloads:
            await self.bus.publish(topic, payload)

    @property
    def reasons(self) -> list[str]:
        return [letter["reason"] for letter in self.letters]


class Domain:
    """Remembers what it was given to persist; fails when told to."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self.bus = bus
        self.calls: list[list[str]] = []
        self.kept: list[Event] = []
        self.failing: Exception | None = None
        self.hanging: asyncio.Event | None = None
        self.poison = ""
        """The id of an event that cannot be read."""
        self.inbox = Inbox(bus, store, SETTINGS, "tiny", ["said"], self._apply)

    async def _apply(self, events: list[Event]) -> None:
        self.calls.append([one.id for one in events])
        if self.hanging is not None:
            await self.hanging.wait()
        if self.failing is not None:
            raise self.failing
        if any(bytes(one.data) == b'"poison"' or one.id == self.poison for one in events):
            raise ValueError("poison")
        self.kept += events

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.kept]

    async def start(self) -> None:
        self.inbox.start()
        self.bus.start()
        await self.bus.wait_connected(5)
