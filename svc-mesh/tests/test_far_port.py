"""The port of a simulated root, at the other end of a TCP connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

from patchbay.testing import PATIENCE_S, until
from patchbay_mesh.far_port import FarPort
from patchbay_mesh.simulator import BOOT_LOG, Root
from patchbay_mesh.wire.content import message_frame
from patchbay_mesh.wire.uart import encode


async def test_both_ways_lead_through_the_connection(tmp_path: Path) -> None:
    root = Root(tmp_path / "port", [5])
    root.plug()
    async with FarPort(root.link, "127.0.0.1", 0) as far:
        reader, writer = await asyncio.open_connection("127.0.0.1", far.port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(len(BOOT_LOG)) == BOOT_LOG
            await root.say(5, b"hello")
            frame = encode(message_frame(5, b"hello"))
            assert await reader.readexactly(len(frame)) == frame
        writer.write(b"NINFO\n")
        await until(lambda: [one.name for one in root.commands] == [b"NINFO"])
        writer.close()
    root.unplug()


async def test_who_connects_later_has_the_port(tmp_path: Path) -> None:
    root = Root(tmp_path / "port", [5])
    root.plug()
    async with FarPort(root.link, "127.0.0.1", 0) as far:
        first, _ = await asyncio.open_connection("127.0.0.1", far.port)
        async with asyncio.timeout(PATIENCE_S):
            await first.readexactly(len(BOOT_LOG))
            second, writer = await asyncio.open_connection("127.0.0.1", far.port)
            assert await first.read() == b""
            await root.say(5, b"hello")
            assert await second.read(1)
        writer.close()
    root.unplug()


async def test_while_it_is_unplugged_nobody_is_connected(tmp_path: Path) -> None:
    root = Root(tmp_path / "port", [5])
    async with FarPort(root.link, "127.0.0.1", 0) as far:
        reader, _ = await asyncio.open_connection("127.0.0.1", far.port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
            root.plug()
            reader, _ = await asyncio.open_connection("127.0.0.1", far.port)
            await reader.readexactly(len(BOOT_LOG))
            root.unplug()
            assert await reader.read() == b""
