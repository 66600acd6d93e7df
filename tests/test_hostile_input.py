"""No input stops a service: all of `tests.hostile`, on the bus and on device ports, under load.

The demo's devices are the load. After each input, or at the end of the quick round, every domain
still persists what its devices report and answers its commands, and every unit is the process that
it was. At the end the logs are small.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from patchbay.bus import Bus
from patchbay.services import discover, resolve
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, broker_settings, eventually
from patchbay.topics import Topics
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from tests.hostile import COMMANDS, INPUTS, Frame, Input, Message
from tests.running import System

LOG_BYTES = 400_000
"""What a unit may log of the whole matrix, the tracebacks of a debug run included; ten times as
much would fill a card in days."""

ASK: dict[str, tuple[str, str]] = {
    "allocator": ("queue", "list"),
    "bartender": ("bar", "state"),
    "lantern": ("all", "state"),
    "locker": ("all", "boards"),
    "mesh": ("nodes", "list"),
}

GROWS = {"allocator": "jobs", "mesh": "readings"}


class Demo:
    """A demo system, an MQTT client of its broker, and a client of its store."""

    def __init__(self, system: System, bus: Bus, store: Store) -> None:
        self.system = system
        self.bus = bus
        self.store = store
        self.pids = system.pids()
        edges = [unit["instance"] for unit in system.status()["units"]]
        self.edges = [one for one in edges if "-domain-" not in one]

    def port(self, name: str) -> int:
        service, key = name.split(".")
        settings = resolve(discover()[service].settings)()
        return int(getattr(settings, key)) + self.system.offset

    async def give(self, hostile: Input) -> None:
        for part in hostile.parts:
            if isinstance(part, Frame):
                await self._feed(part)
                continue
            edges = self.edges if "{edge}" in part.topic else [""]
            for edge in edges:
                await self._publish(part, part.topic.replace("{edge}", edge))

    async def _publish(self, part: Message, topic: str) -> None:
        await self.bus.publish(topic, part.payload, content_type=part.content_type)

    async def _feed(self, frame: Frame) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port(frame.port))
                writer.write(frame.data)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    async def works(self) -> None:
        """Every domain answers, and persists what its devices report now."""
        since = {name: await self.store.count(kind, {}) for name, kind in GROWS.items()}
        name = f"probe {time.time_ns()}"
        await send("127.0.0.1", self.port("allocator.port"), Job("probe", name, "123456"))
        for service in COMMANDS:
            device, command = ASK[service]
            topic = self.bus.topics.command(service, device, command)
            answer = json.loads(await self.bus.request(topic, b"{}", timeout_s=PATIENCE_S))
            assert answer["ok"], (service, answer)
        boards = {one["_id"]: one["send"] for one in await self.store.find("boards", {})}

        async def persisted() -> bool:
            found = {one["_id"]: one["send"] for one in await self.store.find("boards", {})}
            reported = any(found[id] > boards.get(id, 0) for id in found if id.startswith("demo"))
            grown = [await self.store.count(kind, {}) > since[one] for one, kind in GROWS.items()]
            query = {"data.CustomerName": name}
            return reported and all(grown) and bool(await self.store.count("jobs", query))

        await eventually(persisted)

    def is_as_before(self) -> None:
        """Every unit is online, as the process that it was."""
        units = {unit["unit"]: unit["status"] for unit in self.system.status()["units"]}
        assert set(units.values()) == {"online"}, units
        assert self.system.pids() == self.pids

    def logs(self) -> dict[str, int]:
        logs = (self.system.state / "log").iterdir()
        return {one.name: one.stat().st_size for one in logs if one.stat().st_size > LOG_BYTES}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    services = ",".join(sorted(COMMANDS))
    system = System(tmp_path_factory.mktemp("hostile"), "--demo", "--only", services)
    try:
        system.start()
        yield system
    finally:
        system.clean_up()


@pytest.fixture
async def demo(system: System) -> AsyncIterator[Demo]:
    bus = Bus(
        broker_settings(1883 + system.offset),
        client_id="hostile",
        topics=Topics(),
        announce=False,
    )
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    async with Store(StoreSettings(), f"mongodb://127.0.0.1:{27017 + system.offset}") as store:
        yield Demo(system, bus, store)
    await bus.stop()


async def test_after_all_hostile_input_every_service_works(demo: Demo) -> None:
    """All of it at once, and one look at the end."""
    await demo.works()
    for hostile in INPUTS:
        await demo.give(hostile)
    await demo.works()
    demo.is_as_before()
    assert demo.logs() == {}


def _id(hostile: Input) -> str:
    return f"{hostile.service or 'edges'} {hostile.name}"


@pytest.mark.long
@pytest.mark.parametrize("hostile", INPUTS, ids=map(_id, INPUTS))
async def test_after_one_hostile_input_every_service_works(demo: Demo, hostile: Input) -> None:
    await demo.give(hostile)
    await demo.works()
    demo.is_as_before()


@pytest.mark.long
async def test_all_hostile_input_again_and_again_leaves_small_logs(demo: Demo) -> None:
    for _ in range(5):
        for hostile in INPUTS:
            await demo.give(hostile)
    await demo.works()
    demo.is_as_before()
    assert demo.logs() == {}
