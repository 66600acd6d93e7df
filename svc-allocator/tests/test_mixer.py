"""The combinator program."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from patchbay.testing import until
from patchbay_allocator.mixer import Mixer, Mixing, serial_port, waits
from patchbay_allocator.wire.combinator import Mix, encode


@asynccontextmanager
async def connected(
    mixing: Mixing,
) -> AsyncIterator[tuple[Mixer, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with Mixer(3, mixing) as mixer:
        port = await mixer.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield mixer, reader, writer
        writer.close()


async def answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await reader.readuntil(b"}"))
    return found


async def test_jobs_are_mixed_one_after_the_other_and_answered() -> None:
    async with connected(waits(0, 0, random.Random())) as (mixer, reader, writer):
        writer.write(encode(Mix("a", "1")) + encode(Mix("b", "2")))
        assert await answer(reader) == {"_id": "a", "status": "done", "device": 3}
        assert await answer(reader) == {"_id": "b", "status": "done", "device": 3}
        assert (mixer.mixed, mixer.most_at_once) == (["a", "b"], 2)


async def test_it_fails_as_often_as_it_is_told_to() -> None:
    async with connected(waits(0, 1, random.Random())) as (mixer, reader, writer):
        writer.write(encode(Mix("a", "1")))
        assert (await answer(reader))["status"] == "error"
        assert mixer.mixed == []


async def test_nonsense_ends_the_connection() -> None:
    async with connected(waits(0, 0, random.Random())) as (_, reader, writer):
        writer.write(b"mix!")
        assert await reader.read() == b""


@pytest.mark.parametrize(("said", "status"), [(b"done\n", "done"), (b"error\n", "error")])
async def test_a_machine_at_a_serial_port_is_asked(said: bytes, status: str) -> None:
    import socket

    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def machine() -> None:
            connection, _ = listener.accept()
            with connection:
                got.append(connection.recv(64))
                connection.sendall(said)
                connection.recv(1)

        thread = threading.Thread(target=machine, daemon=True)
        thread.start()
        url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
        async with connected(serial_port(url)) as (_, reader, writer):
            writer.write(encode(Mix("a", "696969")))
            assert (await answer(reader))["status"] == status
    assert got == [b"696969\n"]


async def test_a_serial_port_that_is_not_there_is_an_error() -> None:
    async with connected(serial_port("/dev/no such port")) as (_, reader, writer):
        writer.write(encode(Mix("a", "696969")))
        assert (await answer(reader))["status"] == "error"


async def test_an_answer_that_is_kept_goes_out_on_the_next_connection() -> None:
    gate = asyncio.Event()

    async def mix(_job: Mix) -> Any:
        await gate.wait()
        return "done"

    async with Mixer(1, mix, keeps_answers=True) as mixer:
        port = await mixer.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode(Mix("a", "1")))
        await until(lambda: mixer.most_at_once == 1)
        mixer.hang_up()
        writer.close()
        await until(lambda: not mixer._writers)
        gate.set()
        await until(lambda: mixer.mixed == ["a"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await answer(reader))["_id"] == "a"
        writer.close()
