"""Jobs arrive whatever else is sent to the intake: garbage, silence, one byte a second.

Real processes. The intake's memory stays within what its container may take (compose.yaml).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, eventually, free_port, mosquitto_part, store_part
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job, encode

JOBS = 50
SLOTS = 60
SERVED_S = 20.0
"""A flood must not keep the jobs for longer. Without bounds it was 68 s on a free machine; this
leaves room for one that is busy with other tests."""

LIMIT_MIB = int(re.findall(r"PATCHBAY_OUTBOX_MEMORY:-(\d+)m", Path("compose.yaml").read_text())[0])

Attack = Callable[[int], Awaitable[list[asyncio.StreamWriter]]]


class House:
    """A broker, a store, an intake with ``SLOTS`` slots, and a domain."""

    def __init__(self, directory: Path) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        self.port = free_port()
        environ = {
            "PATCHBAY_RUNTIME__STATE_DIR": str(directory),
            "PATCHBAY_RUNTIME__DEMO": "true",
            "PATCHBAY_BROKER__PORT": str(self.broker.port),
            "PATCHBAY_STORE__URI": self.uri,
            "PATCHBAY_ALLOCATOR__PORT": str(self.port),
            "PATCHBAY_ALLOCATOR__MAX_CONNECTIONS": str(SLOTS),
            "PATCHBAY_ALLOCATOR__COMBINATORS": "[]",
        }
        env = ["env", *(f"{key}={value}" for key, value in environ.items())]

        def unit(name: str, port: int) -> Part:
            command = [*env, sys.executable, "-m", "patchbay.runtime", name]
            return Part(name, directory, lambda: command, port)

        self.intake = unit("allocator.intake", self.port)
        self.domain = unit("allocator.domain", 0)
        self.parts = [self.broker, self.store, self.intake, self.domain]

    async def connect(self) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return writer

    async def send_jobs(self) -> None:
        """Fifty Chromebooks, each on a connection of its own that it closes at once."""
        for number in range(JOBS):
            await send("127.0.0.1", self.port, Job(f"CHROMEBOOK_{number}", "이름", "696969"))

    async def arrived(self) -> None:
        """Wait until all jobs are in the store, each once."""
        async with Store(StoreSettings(), self.uri) as store:

            async def all_there() -> bool:
                return await store.count("jobs", {"data.ColorCode": "696969"}) == JOBS

            await eventually(all_there)

    def peak_mib(self) -> float:
        """The most memory that the intake has taken, without what it shares with others."""
        status = Path(f"/proc/{self.intake.pid}/status").read_text()
        rollup = Path(f"/proc/{self.intake.pid}/smaps_rollup").read_text()
        kib = {key: int(found) for key, found in re.findall(r"(\w+):\s+(\d+) kB", status + rollup)}
        return (kib["VmHWM"] - kib["Rss"] + kib["Pss"]) / 1024


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    for part in house.parts:
        if part.port:
            await asyncio.to_thread(part.start)
        else:
            part.spawn()
    yield house
    for part in house.parts:
        await asyncio.to_thread(part.kill)


async def _garbage(house: House, size: int) -> None:
    """``{}`` after ``{}``, on one connection after the other until all is sent."""
    left = size
    while left > 0:
        writer = await house.connect()
        with contextlib.suppress(OSError):
            while left > 0:
                writer.write(b"{}" * 8_192)
                left -= 16_384
                await writer.drain()
        writer.transport.abort()


@pytest.mark.parametrize(
    ("mb", "connections"),
    [
        (1, 1),
        *(
            pytest.param(mb, connections, marks=pytest.mark.long)
            for mb, connections in ((5, 1), (1, 20), (5, 20))
        ),
    ],
)
async def test_jobs_are_taken_within_seconds_while_garbage_comes(
    house: House, mb: int, connections: int
) -> None:
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_garbage(house, mb * 1_000_000))
        group.create_task(house.send_jobs())
    await house.arrived()
    took_s = asyncio.get_running_loop().time() - began
    peak = house.peak_mib()
    print(f"{mb} MB on {connections}: all jobs after {took_s:.1f} s, intake {peak:.1f} MiB")
    assert took_s < SERVED_S
    assert peak < LIMIT_MIB
    assert house.intake.running


async def _chat(writer: asyncio.StreamWriter) -> None:
    """One byte a second of an object that never ends."""
    with contextlib.suppress(OSError):
        writer.write(b"{")
        while True:
            await asyncio.sleep(1)
            writer.write(b" ")
            await writer.drain()


@pytest.mark.parametrize(
    "chatting",
    [
        pytest.param(False, id="silent", marks=pytest.mark.long),
        pytest.param(True, id="one byte a second"),
    ],
)
async def test_jobs_arrive_while_idle_connections_take_all_slots(
    house: House, chatting: bool
) -> None:
    writers = [await house.connect() for _ in range(2 * SLOTS)]
    chats = [asyncio.ensure_future(_chat(writer)) for writer in writers if chatting]
    await asyncio.sleep(1.5 if chatting else 0)  # each has sent something, and nothing valid
    await house.send_jobs()
    await house.arrived()
    for chat in chats:
        chat.cancel()
    for writer in writers:
        writer.transport.abort()


async def test_jobs_wait_for_a_slot_while_chromebooks_have_all_of_them(house: House) -> None:
    """They are in the kernel's buffers until one leaves, and none is lost."""
    writers = [await house.connect() for _ in range(SLOTS)]
    for writer in writers:
        writer.write(encode(Job("SITS", "이름", "000000")))
    async with Store(StoreSettings(), house.uri) as store:

        async def identified() -> bool:
            return await store.count("jobs", {"ClientName": "SITS"}) == SLOTS

        await eventually(identified)
        await house.send_jobs()
        assert await store.count("jobs", {"data.ColorCode": "696969"}) == 0
    writers.pop().transport.abort()
    await house.arrived()
    for writer in writers:
        assert not writer.transport.is_closing()
        writer.transport.abort()
