"""A link moves bytes as a network does, and stops doing so in each of its ways."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from patchbay.chaos import Link, Way
from patchbay.testing import PATIENCE_S, until

QUIET_S = 0.3
"""For so long nothing may come. A link that moved the bytes would need a hundredth of it."""


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that answers with what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def link(echo: int) -> AsyncIterator[Link]:
    async with Link("127.0.0.1", echo) as link:
        yield link


class Client:
    """A connection through the link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(len(data))

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(QUIET_S):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


async def connected(link: Link) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", link.port))


async def test_bytes_and_both_ends_pass_through(link: Link) -> None:
    client = await connected(link)
    big = bytes(range(256)) * 8000
    assert await client.ask(big) == big
    client.writer.write_eof()
    assert await client.reader.read() == b""
    await until(lambda: link.connections == 0)
    assert link.moved == {"up": len(big), "down": len(big)}


@pytest.mark.parametrize("way", ["both", "up", "down"])
async def test_a_stalled_link_moves_nothing_and_loses_nothing(link: Link, way: Way) -> None:
    client = await connected(link)
    assert await client.ask(b"before") == b"before"
    link.stall(way)
    client.writer.write(b"during")
    assert await client.silent()
    assert link.connections == 1
    assert link.moved["up"] == (len("beforeduring") if way == "down" else len("before"))
    link.resume()
    assert await client.reader.readexactly(6) == b"during"


async def test_the_end_of_a_stream_waits_for_a_stalled_link(link: Link) -> None:
    client = await connected(link)
    await client.ask(b"x")
    link.stall()
    client.writer.write_eof()
    assert await client.silent()
    link.resume()
    assert await client.reader.read() == b""


async def test_a_connection_made_during_a_stall_works_after_it(link: Link) -> None:
    link.stall()
    client = await connected(link)
    client.writer.write(b"x")
    assert await client.silent()
    link.resume()
    assert await client.reader.readexactly(1) == b"x"


async def test_a_cut_resets_both_sides_and_new_connections_work(link: Link) -> None:
    for stalled in (False, True):
        client = await connected(link)
        await client.ask(b"x")
        if stalled:
            link.stall()
        link.cut()
        with pytest.raises(ConnectionResetError):
            await client.reader.read(1)
        await until(lambda: link.connections == 0)
    link.resume()
    assert await (await connected(link)).ask(b"x") == b"x"


async def test_a_refusing_link_keeps_its_port_and_accepts_again(link: Link) -> None:
    client = await connected(link)
    await client.ask(b"x")
    port = link.port
    link.refuse()
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await connected(link)
    link.resume()
    assert link.port == port
    assert await (await connected(link)).ask(b"x") == b"x"


async def test_a_delay_holds_each_answer(link: Link) -> None:
    client = await connected(link)
    link.delay(QUIET_S / 2)
    began = asyncio.get_running_loop().time()
    assert await client.ask(b"x") == b"x"
    assert asyncio.get_running_loop().time() - began >= QUIET_S - 0.02


async def test_a_target_that_is_away_is_a_reset(link: Link) -> None:
    link.target_port = 1
    client = await connected(link)
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)


async def test_a_process_of_its_own_obeys_lines(echo: int) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220  it is spoken to in threads
        [sys.executable, "-m", "patchbay.chaos.proxy", f"127.0.0.1:{echo}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def order(**what: object) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        return (await asyncio.to_thread(process.stdout.readline)).strip()

    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        assert await client.ask(b"x") == b"x"
        assert await order(do="stall", way="down") == "ok"
        client.writer.write(b"y")
        assert await client.silent()
        assert await order(do="resume") == "ok"
        assert await client.reader.readexactly(1) == b"y"
        assert "unknown order" in await order(do="burn")
        process.stdin.close()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
