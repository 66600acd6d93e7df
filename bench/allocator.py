"""What the colour-job service costs beside a store that is written to without it.

    .venv/bin/python bench/allocator.py [--quick] [--jobs 10000]

One run on one machine, everything on loopback: Mosquitto, the embedded store, the three units as
processes of their own. Prints ratios to floors that are measured in the same run:

    intake     1,000 jobs from 8 clients at a time, one connection each, until all are in the
               store; the floor puts the same jobs straight into it, `insert_one`, 8 at a time
    mixing     100 combinators that answer at once: jobs finished a second, beside that floor
    replicas   4 replicas of the domain, one of them killed with -9 every second: is each of
               10,000 jobs done exactly once?
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from patchbay.messages import now
from patchbay.settings import StoreSettings
from patchbay.store import Document, ObjectId, Store
from patchbay.testing import free_port
from patchbay_allocator.mixer import Mixer, waits
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from testbed import Installation, cpu_seconds

AT_ONCE = 8
COMBINATORS = 100
REPLICAS = 4
POLL_S = 0.05


class House(Installation):
    """The processes of one installation; ``ports``: where its combinators are."""

    def __init__(self, directory: Path, ports: list[int], replicas: int = 1) -> None:
        self.port = free_port()
        addresses = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        settings: dict[str, object] = {
            "port": self.port,
            "combinators": f"[{addresses}]",
            "reconnect_grace_s": 2,
        }
        if replicas > 1:
            settings["share_group"] = "bench"
        super().__init__(directory, "allocator", settings)
        self.domains = [
            self.unit("domain", instance=f"r{n}", name=f"domain-r{n}") for n in range(replicas)
        ]
        edges = [self.unit("intake", self.port), self.unit("combinators")]
        self.parts = [self.broker, self.store, *edges, *self.domains]


@asynccontextmanager
async def running(combinators: int, replicas: int = 1) -> AsyncIterator[tuple[House, list[Mixer]]]:
    """A house with so many combinators that answer at once."""
    chance = random.Random(1)
    mixers = [
        Mixer(number, waits(0, 0, chance), keeps_answers=True)
        for number in range(1, combinators + 1)
    ]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        ports = [await mixer.start("127.0.0.1", 0) for mixer in mixers]
        house = House(Path(directory), ports, replicas)
        for part in house.parts:
            stack.callback(part.stop)
            await asyncio.to_thread(part.start) if part.port else part.spawn()
        yield house, mixers
        for mixer in mixers:
            await mixer.stop()


def document(number: int) -> Document:
    """A job as the seed has it."""
    return {
        "_id": ObjectId(),
        "ClientName": "CHROMEBOOK_04",
        "data": {"CustomerName": "이름", "ColorCode": f"{number:06X}"},
        "status": "waiting",
        "assignedAt": 0,
    }


async def floor(store: Store, jobs: int) -> float:
    """Seconds to put so many jobs into the store, one by one, 8 at a time."""
    numbers = iter(range(jobs))
    collection = store.collection("floor")

    async def worker() -> None:
        for number in numbers:
            await collection.insert_one(document(number))

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return time.perf_counter() - begin


async def send_jobs(port: int, jobs: int) -> None:
    """One connection a job, 8 at a time."""
    numbers = iter(range(jobs))

    async def worker() -> None:
        for number in numbers:
            await send("127.0.0.1", port, Job("CHROMEBOOK_04", "이름", f"{number:06x}"))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def counted(store: Store, query: Document, jobs: int) -> None:
    """Wait until so many jobs match."""
    async with asyncio.timeout(600):
        while await store.count("jobs", query) < jobs:  # noqa: ASYNC110  a store tells nobody
            await asyncio.sleep(POLL_S)


async def bench_intake(jobs: int) -> None:
    async with running(0) as (house, _), Store(StoreSettings(), house.uri) as store:
        await send_jobs(house.port, AT_ONCE)  # everything is connected and has its indexes
        await counted(store, {}, AT_ONCE)
        bare = await floor(store, jobs)
        used = [cpu_seconds(part) for part in house.parts]
        begin = time.perf_counter()
        await send_jobs(house.port, jobs)
        sent = time.perf_counter() - begin
        await counted(store, {}, AT_ONCE + jobs)
        ours = time.perf_counter() - begin
        used = [cpu_seconds(part) - before for part, before in zip(house.parts, used, strict=True)]
    print(f"floor      {jobs} jobs, insert_one, {AT_ONCE} at a time     {jobs / bare:8.0f} jobs/s")
    print(
        f"intake     sent in {sent:.2f} s, all stored in {ours:.2f} s    {jobs / ours:8.0f} jobs/s"
    )
    print(f"           ratio to the floor                   {bare / ours:8.2f}   (at least 1.0)")
    names = [part.name.partition("-")[0] for part in house.parts]
    shown = ", ".join(f"{name} {s:.2f}" for name, s in zip(names, used, strict=True))
    print(f"           CPU seconds: {shown}")


async def bench_mixing(jobs: int) -> None:
    async with running(COMBINATORS) as (house, mixers), Store(StoreSettings(), house.uri) as store:
        bare = await floor(store, jobs)
        await send_jobs(house.port, AT_ONCE)
        await counted(store, {"status": "done"}, AT_ONCE)
        begin = time.perf_counter()
        await send_jobs(house.port, jobs)
        await counted(store, {"status": "done"}, AT_ONCE + jobs)
        ours = time.perf_counter() - begin
        most = max(mixer.most_at_once for mixer in mixers)
    print(
        f"mixing     {COMBINATORS} combinators, {jobs} jobs              {jobs / ours:8.0f} jobs/s"
    )
    print(f"           ratio to the floor                   {bare / ours:8.2f}")
    print(f"           most jobs at once at one             {most:8d}   (1)")


async def bench_replicas(jobs: int) -> None:
    async with (
        running(COMBINATORS, REPLICAS) as (house, mixers),
        Store(StoreSettings(), house.uri) as store,
        asyncio.timeout(900),
    ):
        begin = time.perf_counter()
        sending = asyncio.create_task(send_jobs(house.port, jobs))
        kills = 0
        for victim in itertools.cycle(house.domains):
            await asyncio.sleep(1)
            await asyncio.to_thread(victim.kill)
            victim.spawn()
            kills += 1
            if await store.count("jobs", {"status": "done"}) >= jobs:
                break
        await sending
        took = time.perf_counter() - begin
        found = await store.find("jobs", {})
    statuses = Counter(job["status"] for job in found)
    done = Counter(sum(change["status"] == "done" for change in job["history"]) for job in found)
    mixed = Counter(id for mixer in mixers for id in mixer.mixed)
    print(f"replicas   {REPLICAS}, {kills} kills, {jobs} jobs in {took:.0f} s   {dict(statuses)}")
    print(f"           times done: jobs {dict(done)}; mixed: {dict(Counter(mixed.values()))}")
    if statuses != {"done": jobs} or done != {1: jobs}:
        sys.exit("a job was lost, or done twice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    parser.add_argument("--jobs", type=int, default=10_000, help="for the replicas")
    given = parser.parse_args()
    part = 10 if given.quick else 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{now():%Y-%m-%d}, {AT_ONCE} clients at a time")
    asyncio.run(bench_intake(1000))
    asyncio.run(bench_mixing(2000 // part))
    asyncio.run(bench_replicas(given.jobs // part))


if __name__ == "__main__":
    main()
