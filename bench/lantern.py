"""What the lantern service costs beside a loop that writes the same bytes to as many connections.

    .venv/bin/python bench/lantern.py [--quick]

One run on one machine, everything on loopback: Mosquitto, the embedded store and the four units as
processes of their own, and the lanterns in one more. Prints ratios to a floor of the same run:

    all        1,000 and 5,000 lanterns: from the POST until the last of them has the bytes. The
               floor gets the six bytes on a socket and writes them to as many lanterns
    one        one lantern: from the POST until it has the bytes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from patchbay.log import get_logger
from patchbay.messages import now
from patchbay.sockets import allow_connections
from patchbay.testing import Part, free_port
from testbed import Installation, arguments, cpu_seconds, resident_mb, run, verdict

HERE = Path(__file__).parent
CROWDS = (1000, 5000)
DEADLINE_S = 60.0
RATIO, P99_MS = 2.0, 15.0


class House(Installation):
    """The processes of one installation."""

    def __init__(self, directory: Path) -> None:
        self.port, self.api_port, self.page_port = free_port(), free_port(), free_port()
        settings = {"port": self.port, "api_port": self.api_port, "page_port": self.page_port}
        super().__init__(directory, "lantern", settings)
        units = {"tlv": self.port, "api": self.api_port, "page": self.page_port, "domain": 0}
        self.units = [self.unit(role, port) for role, port in units.items()]
        self.parts = [self.broker, self.store, *self.units]


class Lanterns:
    """The process with the lanterns."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> list[str]:
        """The next line that it prints, in words."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return (await self._process.stdout.readline()).decode().split()

    async def last(self, value: str) -> float:
        """When the last lantern had this colour."""
        while (words := await self.line())[0] != value:
            pass
        return float(words[2])


@asynccontextmanager
async def lanterns(port: int, count: int) -> AsyncIterator[Lanterns]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "lanterns.py"),
        str(port),
        str(count),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        found = Lanterns(process)
        while (words := await found.line()) != ["ready"]:
            assert words, "the lanterns have ended"  # else: they have the present state already
        yield found
    finally:
        process.terminate()
        await process.wait()


class Api:
    """Gives commands by HTTP, over one connection."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/"

    async def color(self, value: str) -> int:
        body = json.dumps(
            {"method": "message", "params": {"command": "COLOR", "value": value}}
        ).encode()
        async with self._session.post(self._url, data=body) as response:
            await response.read()
            return response.status

    async def wait(self) -> None:
        """Until it answers with 200."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.color("ffffff") != 200:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.1)


async def through_us(api: Api, crowd: Lanterns, rounds: int) -> list[float]:
    took = []
    for number in range(rounds):
        value = f"{number:06x}"
        began = time.monotonic()
        status, last = await asyncio.gather(api.color(value), crowd.last(value))
        assert status == 200
        took.append(last - began)
    return took


async def floor_with(control: int, count: int) -> asyncio.StreamWriter:
    """The control of the floor when it has so many lanterns. They think so earlier: the kernel
    says that they are connected, and the floor knows of those alone that it has accepted."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", control)
            if int(await reader.readline()) == count:
                return writer
            writer.close()
            await asyncio.sleep(0.1)


async def through_the_floor(
    writer: asyncio.StreamWriter, crowd: Lanterns, rounds: int
) -> list[float]:
    took = []
    for number in range(rounds):
        began = time.monotonic()
        writer.write(b"\x20\x00\x03" + number.to_bytes(3, "big"))
        took.append(await crowd.last(f"{number:06x}") - began)
    writer.close()
    return took


async def bench_crowd(house: House, api: Api, count: int, rounds: int, directory: Path) -> float:
    """Returns the ratio to the floor."""
    port, control = free_port(), free_port()
    command = [sys.executable, str(HERE / "bare_lantern.py"), str(port), str(control)]
    bare = Part(f"bare-{count}", directory, lambda: command, control)
    await asyncio.to_thread(bare.start)
    try:
        async with lanterns(port, count) as crowd:
            writer = await floor_with(control, count)
            floor = statistics.median(await through_the_floor(writer, crowd, rounds))
    finally:
        bare.stop()
    async with lanterns(house.port, count) as crowd:
        await api.color("fffffe")
        used = [cpu_seconds(part) for part in house.parts]
        took = await through_us(api, crowd, rounds)
        used = [cpu_seconds(part) - before for part, before in zip(house.parts, used, strict=True)]
    ours = statistics.median(took)
    print(
        f"all        {count} lanterns, {rounds} commands: {ours * 1000:.1f} ms to the last of them"
        f" (longest {max(took) * 1000:.1f} ms); the floor {floor * 1000:.1f} ms"
    )
    print(f"           ratio to the floor {ours / floor:.2f}   (at most {RATIO:g} with 5,000)")
    shown = ", ".join(
        f"{part.name} {seconds / rounds * 1000:.1f}"
        for part, seconds in zip(house.parts, used, strict=True)
    )
    resident = f"{resident_mb(house.units[0]):.0f}"
    print(f"           CPU ms a command: {shown}; resident MB: {resident} (tlv)")
    return ours / floor


async def bench_one(house: House, api: Api, rounds: int) -> float:
    """Returns the 99th percentile, in ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    await reader.readexactly(6)  # the present state
    took = []
    for number in range(rounds):
        began = time.monotonic()
        calling = asyncio.create_task(api.color(f"{number:06x}"))
        assert (await reader.readexactly(6))[3:] == number.to_bytes(3, "big")
        took.append((time.monotonic() - began) * 1000)
        assert await calling == 200
    writer.close()
    cuts = statistics.quantiles(took, n=100)
    print(
        f"one        {rounds} commands: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"
        f"   (p99 under {P99_MS:g} ms)"
    )
    return cuts[98]


async def measure(given: argparse.Namespace, directory: Path) -> bool:
    part = 5 if given.quick else 1
    with ExitStack() as stack:
        house = House(directory)
        for one in house.parts:
            stack.callback(one.stop)
            await asyncio.to_thread(one.start) if one.port else one.spawn()
        async with aiohttp.ClientSession() as session:
            api = Api(session, house.api_port)
            await api.wait()
            p99_ms = await bench_one(house, api, 1000 // part)
            ratios = [
                await bench_crowd(house, api, count, 50 // part, directory) for count in CROWDS
            ]
    reached = {
        f"5,000 lanterns within {RATIO:g} times the floor": ratios[-1] <= RATIO,
        f"p99 to one lantern under {P99_MS:g} ms": p99_ms < P99_MS,
    }
    return verdict(reached)


def main() -> int:
    """Measure, print, and exit with 1 if a figure is missed."""
    given = arguments(__doc__, "a fifth of the commands").parse_args()
    allow_connections(1000, get_logger("bench"))
    print(f"{now():%Y-%m-%d}")
    return run(measure, given)


if __name__ == "__main__":
    sys.exit(main())
