"""Nothing is lost and nothing counts twice, whoever is killed.

Twenty devices talk to a tiny edge; edge, domain, broker and store are killed with -9 at random,
several at once. At the end the store holds every event that a device got an answer for once, and
the counters in the aggregates are the devices' own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, free_port, mosquitto_part, reaches, store_part

TINY = Path(__file__).with_name("tiny.py")
DEVICES = 20
SEED = 20


class House:
    """The four processes."""

    def __init__(self, directory: Path) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        python, script, broker = sys.executable, str(TINY), str(self.broker.port)
        port = free_port()
        self.edge = Part(
            "edge",
            directory,
            lambda: [python, script, "edge", broker, str(directory), str(port)],
            port,
        )
        self.domain = Part(
            "domain", directory, lambda: [python, script, "domain", broker, self.uri], 0
        )
        self.parts = [self.broker, self.store, self.edge, self.domain]

    def stop(self) -> None:
        for part in self.parts:
            part.kill()


class Device:
    """Says its numbers one after the other, each until it is answered."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.answered = 0

    async def talk(self, enough: asyncio.Event) -> None:
        number = 1
        while not enough.is_set():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    while not enough.is_set() or self.answered < number - 1:
                        writer.write(f"{self.name} {number}\n".encode())
                        async with asyncio.timeout(5):
                            answer = int(await reader.readuntil(b"\n"))
                        assert answer == number
                        self.answered = number
                        number += 1
                        await asyncio.sleep(random.uniform(0.001, 0.02))
                finally:
                    writer.close()
            await asyncio.sleep(0.05)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    for part in (house.broker, house.store, house.edge):
        part.start()
    house.domain.spawn()
    yield house
    house.stop()


async def counted(store: Store) -> int:
    """Facts that the store has counted. A fact is kept before it is counted."""
    return sum(one["count"] for one in await store.find("counters", {}))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [10, pytest.param(30, marks=pytest.mark.long)])
async def test_nothing_is_lost_and_nothing_counts_twice(house: House, kills: int) -> None:
    chance = random.Random(SEED)
    devices = [Device(f"d{n:02}", house.edge.port) for n in range(DEVICES)]
    enough = asyncio.Event()
    talking = [asyncio.create_task(device.talk(enough)) for device in devices]
    for _ in range(kills):
        victims = chance.sample(house.parts, chance.choice([1, 1, 1, 2, 2, 3]))
        for victim in victims:
            victim.kill()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        chance.shuffle(victims)
        for victim in victims:
            if victim is house.domain:
                victim.spawn()
            else:
                await asyncio.to_thread(victim.start)
        await asyncio.sleep(chance.uniform(0.2, 1.0))
    enough.set()
    await asyncio.gather(*talking)

    async with Store(StoreSettings(database="tiny"), house.uri) as store:
        # As many as devices got answers, or one more each, unanswered.
        await reaches(lambda: counted(store), sum(device.answered for device in devices))
        facts = await store.find("facts", {})
        counters = {one["_id"]: one for one in await store.find("counters", {})}
    assert sum(device.answered for device in devices) > 10 * kills
    for device in devices:
        numbers = sorted(fact["number"] for fact in facts if fact["device"] == device.name)
        assert numbers == list(range(1, device.answered + 1)), device.name
        assert counters[device.name]["count"] == device.answered, device.name
        assert counters[device.name]["total"] == sum(numbers), device.name
