"""Those who mean no good, or nothing, on every device port: one connection closes, nothing else.

And who is honest is answered all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from patchbay.services import discover
from tests.containers.composed import System
from tests.containers.honest import VISITS

SILENT = 200
SLOW = 20
RANDOM_BYTES = 100_000
BYTE_PERIOD_S = 0.05
SLOW_BYTES = 40
PORTS = sorted(name for service in discover().values() for name in service.ports)


@pytest.mark.parametrize("port", PORTS)
async def test_a_device_port_bears_with_everybody(system: System, port: str) -> None:
    before = system.starts()
    number = system.ports[port]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SILENT):
            await stack.enter_async_context(_connection(number))
        await VISITS[port](system, number)  # while the silent ones are there, and no noise yet
        await asyncio.gather(*(_slow(number, seed) for seed in range(SLOW)), _random(number))
        await VISITS[port](system, number)
    await asyncio.to_thread(system.healthy)
    assert system.starts() == before, "something was started again"


@contextlib.asynccontextmanager
async def _connection(port: int):  # type: ignore[no-untyped-def]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _slow(port: int, seed: int) -> None:
    """A byte now and then, of something that begins as if it could become sense."""
    text = (b"ACon_V1.0\nID=slow\n", b'{"ClientName": "', b"POST / HTTP/1.1\r\nHost: ", b"[GET]")
    async with _connection(port) as (_, writer):
        for byte in (text[seed % len(text)] * SLOW_BYTES)[:SLOW_BYTES]:
            with contextlib.suppress(OSError):  # it may have had enough of us
                writer.write(bytes([byte]))
                await writer.drain()
            await asyncio.sleep(BYTE_PERIOD_S)


async def _random(port: int) -> None:
    """Random bytes, and more of them on a new connection when one is closed, until all are said."""
    chance = random.Random(port)
    left = RANDOM_BYTES
    while left:
        async with _connection(port) as (reader, writer):
            with contextlib.suppress(OSError):
                while left and not reader.at_eof():
                    size = min(left, 4096)
                    left -= size
                    writer.write(chance.randbytes(size))
                    await writer.drain()
                    await asyncio.sleep(0)
