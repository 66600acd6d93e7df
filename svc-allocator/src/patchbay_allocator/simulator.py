"""Colour devices that speak real bytes: Chromebooks for tests and the demo; the combinators are
`mixer.Mixer`, the program that is also shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from patchbay_allocator.mixer import Mixer, waits
from patchbay_allocator.settings import DEMO_PORTS, AllocatorSettings
from patchbay_allocator.wire.intake import Job, encode

if TYPE_CHECKING:
    from patchbay.settings import Config

CUSTOMERS = ("김민준", "이서연", "Анна", "José", "Ada", "박지호", "Zoë", "최수아", "たろう", "Omar")
"""Names in several scripts, since names are."""

RETRY_S = 0.5
CHROMEBOOKS = 6
FAIL_RATE = 0.05
"""How often a combinator of the demo fails: often enough to be seen."""


async def send(host: str, port: int, *jobs: Job) -> None:
    """What the seed's client does: connect, say each job, close at once. Raises OSError."""
    _, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"".join(encode(job) for job in jobs))
        await writer.drain()
    finally:
        writer.close()
    await writer.wait_closed()


async def run(config: Config, stop: asyncio.Event) -> None:
    """The devices of ``up --demo``: Chromebooks that send now and then, combinators that mix."""
    settings = config.table("allocator", AllocatorSettings)
    chance = random.Random()
    async with contextlib.AsyncExitStack() as stack:
        if settings.combinators is None:
            for device, port in enumerate(DEMO_PORTS, start=1):
                mixer = Mixer(device, waits(settings.demo_mixing_s, FAIL_RATE, chance))
                await stack.enter_async_context(mixer)
                await mixer.start("127.0.0.1", config.port(port))
        classroom = asyncio.create_task(
            _classroom(
                config.runtime.demo_host,
                config.port(settings.port),
                settings.demo_interval_s,
                chance,
            )
        )
        await stop.wait()
        classroom.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await classroom


async def _classroom(host: str, port: int, interval_s: float, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.expovariate(1 / interval_s))
        number = chance.randint(1, CHROMEBOOKS)
        color = f"{chance.randrange(0x1000000):06x}"
        job = Job(f"DEMO_CHROMEBOOK_{number:02}", chance.choice(CUSTOMERS), color)
        while True:
            try:
                await send(host, port, job)
                break
            except OSError:
                await asyncio.sleep(RETRY_S)
