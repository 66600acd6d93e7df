"""What the mesh service costs beside the plainest thing that does the same.

    .venv/bin/python bench/mesh.py [--quick]

One run on one machine, everything on loopback:

    codec      200-byte frames of random bytes, decoded and encoded, beside a loop over the bytes
    store      frames from a pseudo-terminal to the store, as fast as they go, beside insert_many of
               the same documents into a collection with the same index (and into one without)
    sustained  2,000 frames a second: does the backlog grow?
    [GET]      beside a server (asyncio, uvloop) that answers a constant, a connection each
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from patchbay.messages import new_id, now
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, eventually, free_port
from patchbay_mesh.simulator import Root
from patchbay_mesh.store import reading
from patchbay_mesh.wire.content import Value, data_frame
from patchbay_mesh.wire.uart import Decoder, Frame, encode
from testbed import Installation, arguments, cpu_seconds, resident_mb, run, running, verdict

FRAME_BYTES = 200
NODES = 50
BARE = Path(__file__).with_name("bare_mesh.py")
ASKER = Path(__file__).with_name("mesh_asker.py")
ASKERS = 2
RATE = 2_000
GPS = bytes.fromhex("02f001be9200")


# The codec


def plain_decode(line: bytes) -> list[bytes]:
    """Frames by a loop over the bytes, as one writes it first."""
    contents = []
    content = bytearray()
    inside = escaped = False
    for byte in line:
        if byte == 0xFF:
            content = bytearray()
            inside, escaped = True, False
        elif not inside:
            continue
        elif byte == 0xFE:
            contents.append(bytes(content))
            inside = False
        elif escaped:
            content.append(byte ^ 0xFA)
            escaped = False
        elif byte == 0xFA:
            escaped = True
        else:
            content.append(byte)
    return contents


def plain_encode(content: bytes) -> bytes:
    """A frame by a loop over the bytes."""
    line = bytearray(b"\xff")
    for byte in content:
        if byte in (0xFF, 0xFE, 0xFA):
            line.append(0xFA)
            line.append(byte ^ 0xFA)
        else:
            line.append(byte)
    line.append(0xFE)
    return bytes(line)


def rate_of(work: Callable[[], object], size: int, seconds: float) -> float:
    """MB a second: the best of five rounds, since others disturb and nobody helps."""
    best = float("inf")
    rounds = 0
    until = time.perf_counter() + seconds
    while rounds < 5 or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
        rounds += 1
    return size / best / 1e6


def measure_codec(seconds: float) -> tuple[float, float]:
    """How many times the loop's rate decoding and encoding have."""
    chance = random.Random(7)
    contents = [chance.randbytes(FRAME_BYTES) for _ in range(2_000)]
    frames = [Frame(int.from_bytes(one[:2], "big"), one[2:5], one[5:]) for one in contents]
    line = b"".join(plain_encode(one) for one in contents)
    assert [one.content for one in Decoder().feed(line)] == contents == plain_decode(line)
    assert b"".join(map(encode, frames)) == line
    chunks = [line[at : at + 4096] for at in range(0, len(line), 4096)]

    def decode() -> None:
        decoder = Decoder()
        for chunk in chunks:
            decoder.feed(chunk)

    ours = rate_of(decode, len(line), seconds)
    loop = rate_of(lambda: plain_decode(line), len(line), seconds)
    print(f"decode     {ours / loop:5.1f} times a loop   {ours:6.1f} MB/s   (loop {loop:.2f} MB/s)")
    ours_written = rate_of(lambda: [encode(one) for one in frames], len(line), seconds)
    loop_written = rate_of(lambda: [plain_encode(one) for one in contents], len(line), seconds)
    print(
        f"encode     {ours_written / loop_written:5.1f} times a loop   {ours_written:6.1f} MB/s"
        f"   (loop {loop_written:.2f} MB/s)"
    )
    return ours / loop, ours_written / loop_written


# The processes


class House(Installation):
    """The processes of one mesh installation."""

    def __init__(self, directory: Path, link: Path) -> None:
        self.port = free_port()
        super().__init__(directory, "mesh", {"serial": link, "port": self.port})
        self.uart = self.unit("uart")
        self.domain = self.unit("domain")
        self.api = self.unit("api", self.port)
        self.parts = [self.uart, self.broker, self.domain, self.store, self.api]


def frame(number: int) -> bytes:
    """The line of the frame with this number: a value of six bytes."""
    return encode(data_frame(1 + number % NODES, [Value(b"GPS", number.to_bytes(6, "big"))]))


# To the store


async def floor(store: Store, collection: str, documents: int, *, indexed: bool) -> float:
    """Documents a second of plain inserts of 1,000, of the shape that readings have."""
    if indexed:
        await store.ensure_index(collection, [("at", 1)], expireAfterSeconds=2_592_000)
    epoch, at = new_id(), now()
    batches = [
        [
            reading(f"{epoch}/{number:012d}", 0, 1 + number % NODES, "GPS", at, GPS)
            for number in range(first, first + 1000)
        ]
        for first in range(0, documents, 1000)
    ]
    begin = time.perf_counter()
    for batch in batches:
        await store.collection(collection).insert_many(batch, ordered=False)
    return documents / (time.perf_counter() - begin)


@dataclass
class Burst:
    """What a load came to."""

    frames: int
    line_s: float
    """Until the port had taken all."""
    stored_s: float
    """Until all were in the store."""


async def stored(store: Store) -> int:
    """Frames that are in the store, by the nodes' own counts."""
    return sum(one["readings"] for one in await store.find("nodes", {}))


async def drained(store: Store, frames: int) -> None:
    """Wait until so many frames are in the store."""

    async def all_are_stored() -> bool:
        return await stored(store) >= frames

    await eventually(all_are_stored, timeout_s=300)


async def burst(root: Root, store: Store, done: int, frames: int) -> Burst:
    """Frames as fast as the port takes them."""
    lines = [
        b"".join(map(frame, range(first, first + 100))) for first in range(done, done + frames, 100)
    ]
    begin = time.perf_counter()
    for line in lines:
        await root.send(line)
    line_s = time.perf_counter() - begin
    await drained(store, done + frames)
    return Burst(frames, line_s, time.perf_counter() - begin)


async def sustained(root: Root, store: Store, done: int, seconds: int) -> tuple[int, int]:
    """Frames at `RATE`; how many were not in the store at half time and at the end."""
    loop = asyncio.get_running_loop()
    steps, each = seconds * 50, RATE // 50
    behind = [0, 0]
    begin = loop.time()
    for step in range(steps):
        first = done + step * each
        await root.send(b"".join(map(frame, range(first, first + each))))
        if step == steps // 2:
            behind[0] = first + each - await stored(store)
        await asyncio.sleep(max(0.0, begin + (step + 1) / 50 - loop.time()))
    behind[1] = done + steps * each - await stored(store)
    return behind[0], behind[1]


def show_cpu(parts: list[Part], before: dict[str, float], frames: int) -> None:
    used = {part.name: cpu_seconds(part) - before[part.name] for part in parts}
    shown = ", ".join(f"{name} {seconds / frames * 1e6:.0f}" for name, seconds in used.items())
    print(f"           CPU microseconds a frame: {shown}")


# [GET]


Asked: TypeAlias = tuple[float, float, float]


def ask(port: int, requests: int) -> Asked:
    """Requests a second of two askers, and p50 and p99 in milliseconds."""
    command = [sys.executable, str(ASKER), str(port), str(requests // ASKERS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(ASKERS)]
    taken: list[float] = []
    rate = 0.0
    for process in running:
        out, _ = process.communicate(timeout=300)
        if process.returncode:
            sys.exit("an asker failed")
        some = json.loads(out)
        taken += some
        rate += len(some) / sum(some)
    cuts = statistics.quantiles(taken, n=100)
    return rate, cuts[49] * 1e3, cuts[98] * 1e3


def ask_both(constant: int, get: int, requests: int) -> tuple[Asked, Asked]:
    """One after the other, three times; the best of each, since others disturb and nobody helps."""
    rounds = [(ask(constant, requests // 3), ask(get, requests // 3)) for _ in range(3)]
    return max(one for one, _ in rounds), max(other for _, other in rounds)


def show_get(name: str, result: Asked, of: float) -> None:
    rate, p50, p99 = result
    print(
        f"{name:10} {rate / of:6.1%} of the floor   {rate:6.0f} answers/s"
        f"   p50 {p50:5.2f} ms   p99 {p99:5.2f} ms"
    )


async def measure(given: argparse.Namespace, directory: Path) -> bool:
    decode, write = measure_codec(0.5 if given.quick else 2.0)
    frames = 20_000 if given.quick else 100_000
    requests = 4_000 if given.quick else 20_000

    root = Root(directory / "root", range(1, NODES + 1))
    root.plug()
    house = House(directory / "house", root.link)
    port = free_port()
    bare = Part("bare", directory, lambda: [sys.executable, str(BARE), str(port)], port)
    with running(bare, house.broker, house.store):
        async with Store(StoreSettings(timeout_s=120.0), house.uri) as store:
            plain = await floor(store, "bench_plain", frames, indexed=False)
            same = await floor(store, "bench_same", frames, indexed=True)
            print(
                f"floor      insert_many: {same:.0f} documents/s with the index,"
                f" {plain:.0f} without"
            )
            with running(house.domain, house.uart, house.api):
                done = 0

                async def begun() -> bool:
                    await root.send(frame(0))
                    return await stored(store) > 0

                await eventually(begun, 30)
                await asyncio.sleep(1.0)  # what was said meanwhile is on its way
                done = await stored(store)
                before = {part.name: cpu_seconds(part) for part in house.parts}
                result = await burst(root, store, done, frames)
                done += frames
                into_store = frames / result.stored_s
                print(
                    f"store      {into_store / same:6.3f} of the floor ({into_store / plain:.3f} of"
                    f" that without the index)   {into_store:.0f} frames/s into the store"
                    f"   the port took {frames / result.line_s:.0f}/s"
                )
                show_cpu(house.parts, before, frames)

                seconds = 5 if given.quick else 20
                before = {part.name: cpu_seconds(part) for part in house.parts}
                half, behind = await sustained(root, store, done, seconds)
                done += seconds * RATE
                await drained(store, done)
                print(
                    f"sustained  {RATE} frames/s: {half} not in the store at half time,"
                    f" {behind} at the end"
                )
                show_cpu(house.parts, before, seconds * RATE)
                counted = await store.count("readings", {})

                await root.report(5, Value(b"GPS", GPS))
                await drained(store, done + 1)
                constant, get = await asyncio.to_thread(ask_both, port, house.port, requests)
                show_get("constant", constant, constant[0])
                show_get("[GET]", get, constant[0])
                memory = ", ".join(f"{part.name} {resident_mb(part):.0f}" for part in house.parts)
                print(f"           memory MB: {memory}")
    root.unplug()
    reached = {
        "decode at least 5 times a loop": decode >= 5,
        "encode at least 20 times a loop": write >= 20,
        "into the store at least 0.15 of insert_many": into_store >= 0.15 * same,
        "a backlog that does not grow (under half a second at the end)": behind < RATE / 2,
        "every frame in the store once": counted == done,
        "[GET] at least 0.7 of a constant": get[0] >= 0.7 * constant[0],
    }
    return verdict(reached)


def main() -> int:
    """Measure, print, and exit with 1 if a figure is missed."""
    return run(measure, arguments(__doc__, "a fifth of everything").parse_args())


if __name__ == "__main__":
    sys.exit(main())
