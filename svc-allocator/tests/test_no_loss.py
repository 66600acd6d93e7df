"""Nothing is lost and nothing is mixed twice, whoever is killed.

Four replicas of the domain share the work; one of them is killed with -9 every second, and now and
then the combinators' edge. At the end every job is done, once.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, free_port, mosquitto_part, reaches, store_part
from patchbay_allocator.mixer import Mixer, waits
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job

REPLICAS = 4
COMBINATORS = 8
MOST_KILLS = 60
"""One a second. 2,000 jobs take some 25 seconds; a machine on which a replica needs longer than
that from one kill to the next to start at all would never be done."""
SEED = 4


class House:
    """The processes of one installation with replicas."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        self.port = free_port()
        addresses = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        environ = {
            "PATCHBAY_RUNTIME__STATE_DIR": str(directory),
            "PATCHBAY_RUNTIME__DEMO": "true",
            "PATCHBAY_BROKER__PORT": str(self.broker.port),
            "PATCHBAY_BROKER__BACKOFF_MAX_S": "1",
            "PATCHBAY_STORE__URI": self.uri,
            "PATCHBAY_ALLOCATOR__PORT": str(self.port),
            "PATCHBAY_ALLOCATOR__COMBINATORS": f"[{addresses}]",
            "PATCHBAY_ALLOCATOR__SHARE_GROUP": "allocators",
            "PATCHBAY_ALLOCATOR__RECONNECT_GRACE_S": "1",
            "PATCHBAY_ALLOCATOR__RETRY_INITIAL_S": "0.1",
            "PATCHBAY_ALLOCATOR__REISSUE_S": "0.5",
        }
        self._env = ["env", *(f"{key}={value}" for key, value in environ.items())]
        self.intake = self._unit("allocator.intake", directory, self.port)
        self.edge = self._unit("allocator.combinators", directory, 0)
        self.replicas = [
            self._unit("allocator.domain", directory, 0, f"r{number}") for number in range(REPLICAS)
        ]
        self.parts = [self.broker, self.store, self.intake, self.edge, *self.replicas]

    def _unit(self, unit: str, directory: Path, port: int, instance: str = "one") -> Part:
        command = [*self._env, sys.executable, "-m", "patchbay.runtime", unit]
        command += ["--instance", instance]
        return Part(f"{unit}-{instance}", directory, lambda: command, port)


@pytest.fixture
async def mixers() -> AsyncIterator[list[Mixer]]:
    chance = random.Random(SEED)
    mixers = [
        Mixer(number, waits(0.005, 0, chance), keeps_answers=True)
        for number in range(1, COMBINATORS + 1)
    ]
    yield mixers
    for mixer in mixers:
        await mixer.stop()


@pytest.fixture
async def house(tmp_path: Path, mixers: list[Mixer]) -> AsyncIterator[House]:
    house = House(tmp_path, [await mixer.start("127.0.0.1", 0) for mixer in mixers])
    for part in house.parts:
        if part.port:
            await asyncio.to_thread(part.start)
        else:
            part.spawn()
    yield house
    for part in house.parts:
        await asyncio.to_thread(part.kill)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [600, pytest.param(2000, marks=pytest.mark.long)])
async def test_each_job_is_done_once_though_replicas_and_the_edge_are_killed(
    house: House, mixers: list[Mixer], count: int
) -> None:
    sending = asyncio.create_task(_send(house.port, count))
    edge_kills = 0
    async with Store(StoreSettings(), house.uri) as store:

        async def done() -> int:
            return await store.count("jobs", {"status": "done"})

        victims = itertools.cycle(house.replicas)
        for kill in range(1, MOST_KILLS + 1):
            await asyncio.sleep(1)
            victim = house.edge if kill % 4 == 0 else next(victims)
            edge_kills += victim is house.edge
            await asyncio.to_thread(victim.kill)
            victim.spawn()
            if await done() == count:
                break
        await sending
        await reaches(done, count)
        jobs = await store.find("jobs", {})
    assert len(jobs) == count
    assert Counter(job["status"] for job in jobs) == {"done": count}
    assert sorted(job["data"]["ColorCode"] for job in jobs) == [f"{n:06X}" for n in range(count)]
    for job in jobs:
        assert [change["status"] for change in job["history"]].count("done") == 1
    mixed = Counter(id for mixer in mixers for id in mixer.mixed)
    assert set(mixed) == {str(job["_id"]) for job in jobs}
    # Only an answer that an edge took with it into death is asked for again.
    assert mixed.total() - count <= edge_kills * COMBINATORS
    assert max(mixer.most_at_once for mixer in mixers) == 1


async def _send(port: int, count: int) -> None:
    for number in range(count):
        await send("127.0.0.1", port, Job("CHROMEBOOK_04", "이름", f"{number:06x}"))
