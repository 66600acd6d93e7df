"""The lantern itself, against a server that the test is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from patchbay.testing import PATIENCE_S, free_port, until
from patchbay_lantern.commands import COMMANDS, KINDS, Byte, Kind, Light, Registry
from patchbay_lantern.lantern import Lantern
from patchbay_lantern.messages import Order

RED = b"\x20\x00\x03\xff\x00\x00"


class Seen:
    """What the lantern shows."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.light = Light()
        self.lines: list[str] = []

    def obeyed(self, order: Order, light: Light) -> None:
        self.orders.append(order)
        self.light = light

    def connected(self, address: str) -> None:
        self.lines.append("connected")

    def cut_off(self, address: str, why: str) -> None:
        self.lines.append(why)


class Stand:
    """The seed's test stand: a server that says what the test wants."""

    def __init__(self) -> None:
        self.port = free_port()
        self.lanterns: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for _, writer in self.lanterns:
            writer.close()
        self.lanterns.clear()

    def say(self, data: bytes) -> None:
        self.lanterns[-1][1].write(data)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lanterns.append((reader, writer))


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    yield stand
    await stand.stop()


@contextlib.asynccontextmanager
async def lantern(stand: Stand, registry: Registry = COMMANDS) -> AsyncIterator[Seen]:
    seen = Seen()
    one = Lantern("127.0.0.1", stand.port, seen, registry, retry_s=0.02)
    life = asyncio.create_task(one.run())
    try:
        yield seen
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life


async def test_it_obeys_whole_commands_however_they_are_split(stand: Stand) -> None:
    await stand.start()
    async with lantern(stand) as seen:
        await until(lambda: stand.lanterns)
        for byte in RED + b"\x12\x00\x00":
            stand.say(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: len(seen.orders) == 2)
        assert seen.orders == [Order("COLOR", "ff0000"), Order("ON")]
        assert (seen.light.on, seen.light.color) == (True, "ff0000")


async def test_it_ignores_what_it_does_not_know_in_silence(stand: Stand) -> None:
    await stand.start()
    async with lantern(stand) as seen:
        await until(lambda: stand.lanterns)
        stand.say(b"\x99\x00\x03abc" + b"\x20\x00\x01\xff" + b"\x00\x00\x00" + RED)
        await until(lambda: seen.orders)
        assert seen.orders == [Order("COLOR", "ff0000")]
        assert seen.lines == ["connected"]


async def test_it_comes_back_when_the_connection_breaks(stand: Stand) -> None:
    async with lantern(stand) as seen:
        await until(lambda: seen.lines)
        await stand.start()
        await until(lambda: seen.lines[-1] == "connected")
        await until(lambda: stand.lanterns)
        await stand.stop()
        await until(lambda: len(seen.lines) >= 3)
        await stand.start()
        await until(lambda: seen.lines[-1] == "connected")
        await until(lambda: stand.lanterns)
        stand.say(RED)
        await until(lambda: seen.orders)
    assert seen.lines[0] != "connected"


async def test_half_a_command_of_a_broken_connection_is_forgotten(stand: Stand) -> None:
    await stand.start()
    async with lantern(stand) as seen:
        await until(lambda: stand.lanterns)
        stand.say(b"\x20\x00")
        stand.lanterns.pop()[1].close()
        await until(lambda: stand.lanterns)
        stand.say(RED)
        await until(lambda: seen.orders)
        assert seen.orders == [Order("COLOR", "ff0000")]


async def test_it_closes_the_connection_properly_at_the_end(stand: Stand) -> None:
    await stand.start()
    async with lantern(stand):
        await until(lambda: stand.lanterns)
    async with asyncio.timeout(PATIENCE_S):
        assert await stand.lanterns[0][0].read() == b""  # the end of the stream, and no reset


async def test_a_new_command_is_one_entry_of_the_table(stand: Stand) -> None:
    registry = Registry([*KINDS, Kind("BRIGHTNESS", 0x21, Byte(), "brightness", "Brightness")])
    await stand.start()
    async with lantern(stand, registry) as seen:
        await until(lambda: stand.lanterns)
        stand.say(b"\x21\x00\x01\x80")
        await until(lambda: seen.orders)
        assert seen.orders == [Order("BRIGHTNESS", "128")]
