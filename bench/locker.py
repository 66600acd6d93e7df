"""What the locker service costs beside a server that does nothing.

    .venv/bin/python bench/locker.py [--synchronous NORMAL] [--quick]

One run on one machine, everything on loopback: Mosquitto, the embedded store, ``locker.edge`` and
``locker.domain`` as processes of their own, two load generators with 25 boards each (one generator
in Python saturates a core). Prints ratios to a floor that is measured in the same run:

    floor      asyncio + uvloop, finds CLOSE and writes 52 bytes back
    burst      50,000 reports as fast as they are answered; the outbox absorbs what the store cannot
    one board  the same adapter with one board
    sustained  reports offered at a fixed rate, until all are in the store; does the backlog grow?
    lean ...   floor and burst once more, with generators that only patch SEND into prepared bytes:
               then nearly all of the floor's time is the bare server's, and none is a board's
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, eventually, free_port
from patchbay_locker.load import LoadResult
from testbed import Installation, arguments, cpu_seconds, resident_mb, run, running, verdict

BOARDS = 50
GENERATORS = 2
BARE = Path(__file__).with_name("bare_locker.py")
PLAIN = (str(Path(__file__).with_name("boards.py")),)
LEAN = ("-m", "patchbay_locker.load")


class House(Installation):
    """The processes of one locker installation; the store steps back, as in use."""

    def __init__(self, directory: Path, synchronous: str) -> None:
        self.port = free_port()
        port = free_port()
        command = [sys.executable, "-m", "patchbay.embedded", "--storage", str(directory / "store")]
        store = Part("store", directory, lambda: [*command, "--port", str(port)], port)
        settings = {"port": self.port, "outbox_synchronous": synchronous}
        super().__init__(directory, "locker", settings, store)
        self.edge = self.unit("edge", self.port)
        self.domain = self.unit("domain")
        self.parts = [self.edge, self.broker, self.domain, self.store]


def fsync_ms(directory: Path) -> float:
    """The median time of an fsync of 4 KiB appended, in milliseconds."""
    taken = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e3


def load(
    port: int, boards: int, reports: int, *options: str, generator: Sequence[str] = PLAIN
) -> LoadResult:
    """Load from generator processes, added up; the worst of their percentiles."""
    generators = min(GENERATORS, boards)
    command = [sys.executable, *generator, "--port", str(port)]
    command += ["--boards", str(boards // generators), "--reports", str(reports // generators)]
    running = [
        subprocess.Popen(
            [*command, "--prefix", f"g{number}", *options], stdout=subprocess.PIPE, text=True
        )
        for number in range(generators)
    ]
    results = []
    for process in running:
        out, _ = process.communicate(timeout=600)
        if process.returncode:
            sys.exit("a load generator failed")
        results.append(LoadResult(**json.loads(out)))
    return LoadResult(
        reports=sum(one.reports for one in results),
        lost=sum(one.lost for one in results),
        seconds=max(one.seconds for one in results),
        rate=sum(one.rate for one in results),
        p50_ms=max(one.p50_ms for one in results),
        p99_ms=max(one.p99_ms for one in results),
        max_ms=max(one.max_ms for one in results),
        cpu_seconds=sum(one.cpu_seconds for one in results),
    )


async def stored(store: Store) -> int:
    """Reports that are in the store, by the boards' own counts."""
    return sum(board["reports"] for board in await store.find("boards", {}))


async def drained(store: Store, reports: int) -> None:
    """Wait until so many reports are in the store."""

    async def all_are_stored() -> bool:
        return await stored(store) >= reports

    await eventually(all_are_stored, timeout_s=300)


def show(name: str, result: LoadResult, floor: LoadResult) -> None:
    print(
        f"{name:10} {result.rate / floor.rate:6.1%} of the floor   {result.rate:6.0f} answers/s"
        f"   p50 {result.p50_ms:6.2f} ms   p99 {result.p99_ms:6.2f} ms"
        f"   ({result.reports} reports, {result.lost} refused)"
    )


def show_cpu(before: dict[str, float], house: House, load: LoadResult) -> None:
    used = {part.name: cpu_seconds(part) - before[part.name] for part in house.parts}
    each = {name: seconds / load.reports * 1e6 for name, seconds in used.items()}
    each["each generator's"] = load.cpu_seconds / load.reports * 1e6
    print(
        "           CPU microseconds a report:",
        ", ".join(f"{name} {one:.0f}" for name, one in each.items()),
    )


async def measure(given: argparse.Namespace, directory: Path) -> bool:
    reports = 10_000 if given.quick else 50_000
    print(f"fsync of 4 KiB: {fsync_ms(directory):.2f} ms; synchronous={given.synchronous}")

    port = free_port()
    bare = Part("bare", directory, lambda: [sys.executable, str(BARE), str(port)], port)
    with running(bare):
        floor = load(port, BOARDS, reports, "--blind")
        floor_cpu = cpu_seconds(bare) / floor.reports * 1e6
        floor_of_one = load(port, 1, reports // 10, "--blind")
        lean_floor = load(port, BOARDS, reports, "--blind", generator=LEAN)
    show("floor", floor, floor)
    print(f"           CPU microseconds a report: bare server {floor_cpu:.0f}")

    house = House(directory / "house", given.synchronous)
    with running(house.broker, house.store, house.edge, house.domain):
        async with Store(StoreSettings(timeout_s=120.0), house.uri) as store:
            await asyncio.to_thread(load, house.port, BOARDS, BOARDS * 4)  # everything is warm
            done = BOARDS * 4
            await drained(store, done)

            before = {part.name: cpu_seconds(part) for part in house.parts}
            begin = time.perf_counter()
            burst = await asyncio.to_thread(load, house.port, BOARDS, reports)
            done += reports
            await drained(store, done)
            drain_s = time.perf_counter() - begin
            show("burst", burst, floor)
            show_cpu(before, house, burst)
            print(f"           all in the store at {reports / drain_s:.0f} reports a second")

            one = await asyncio.to_thread(load, house.port, 1, reports // 10)
            done += reports // 10
            await drained(store, done)
            show("one board", one, floor_of_one)

            lean = await asyncio.to_thread(load, house.port, BOARDS, reports, generator=LEAN)
            done += reports
            await drained(store, done)
            show("lean burst", lean, lean_floor)

            before = {part.name: cpu_seconds(part) for part in house.parts}
            rate = str(given.rate / GENERATORS)
            seconds = 5 if given.quick else 20
            offered = int(given.rate * seconds)
            loading = asyncio.create_task(
                asyncio.to_thread(load, house.port, BOARDS, offered, "--rate", rate)
            )
            begin = time.perf_counter()
            await asyncio.sleep(seconds * 0.5)
            half = await stored(store) - done
            half_s = time.perf_counter() - begin
            sustained = await loading
            behind = done + offered - await stored(store)
            done += offered
            await drained(store, done)
            into_store = offered / (time.perf_counter() - begin)
            show("sustained", sustained, floor)
            show_cpu(before, house, sustained)
            print(
                f"           {into_store:.0f} reports a second into the store"
                f" ({half / half_s:.0f} in the first half); offered {given.rate}; behind at the"
                f" end by {behind} reports ({behind / given.rate:.1f} s)"
            )
            accesses = await store.count("accesses", {})
            memory = ", ".join(f"{part.name} {resident_mb(part):.0f}" for part in house.parts)
            print(f"           memory MB: {memory}")
    reached = {
        "burst at least 40 % of the floor": burst.rate >= 0.4 * floor.rate,
        "p99 of the burst under 25 ms": burst.p99_ms < 25,
        "at least 3,500 a second into the store": into_store >= 3_500,
        "every access in the store": accesses == 3 * done,
        "a backlog that does not grow (under a second at the end)": behind < given.rate,
        "nothing refused": not lean.lost,
    }
    return verdict(reached)


def main() -> int:
    """Measure, print, and exit with 1 if a figure is missed."""
    parser = arguments(__doc__, "a fifth of the reports")
    parser.add_argument("--synchronous", default="FULL", help="of the outbox (FULL or NORMAL)")
    parser.add_argument("--rate", type=float, default=3_600, help="offered in the sustained part")
    return run(measure, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
