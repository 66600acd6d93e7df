"""Against the real embedded store: what it has acknowledged with ``j: true`` survives kill -9."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from patchbay import embedded
from patchbay.testing import Part, free_port, store_part, until

JOURNALED = WriteConcern(w=1, j=True)


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = store_part(tmp_path / "store")
    part.start()
    yield part
    part.stop()


def collection(client: AsyncMongoClient[Any]) -> AsyncCollection[Any]:
    return client["test"].get_collection("facts", write_concern=JOURNALED)


def connect(part: Part) -> AsyncMongoClient[Any]:
    return AsyncMongoClient(f"mongodb://127.0.0.1:{part.port}", retryWrites=False)


async def test_acknowledged_writes_survive_a_kill_in_the_middle_of_writing(part: Part) -> None:
    acknowledged: list[str] = []

    async def write(client: AsyncMongoClient[Any], writer: int) -> None:
        facts = collection(client)
        for number in range(10_000):
            name = f"{writer}-{number}"
            try:
                await facts.insert_one({"_id": name, "text": "x" * 200})
            except PyMongoError:
                return
            acknowledged.append(name)

    async with connect(part) as client:
        writers = [asyncio.create_task(write(client, writer)) for writer in range(4)]
        await until(lambda: len(acknowledged) >= 200)
        part.kill()
        await asyncio.gather(*writers)
    part.start()
    async with connect(part) as client:
        there = {one["_id"] async for one in collection(client).find({}, {"_id": 1})}
    assert set(acknowledged) <= there


async def test_updates_and_batches_survive_a_kill(part: Part) -> None:
    async with connect(part) as client:
        facts = collection(client)
        await facts.insert_many([{"_id": number} for number in range(100)], ordered=False)
        await facts.update_one({"_id": 7}, {"$set": {"seen": True}})
        await facts.delete_one({"_id": 8})
    part.kill()
    part.start()
    async with connect(part) as client:
        facts = collection(client)
        assert await facts.count_documents({}) == 99
        assert await facts.find_one({"_id": 7}) == {"_id": 7, "seen": True}


async def test_the_supervised_process_becomes_the_store(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "patchbay.embedded", "--storage", str(tmp_path / "data")]
    part = Part("module", tmp_path, lambda: [*command, "--port", str(port)], port)
    part.start()
    try:
        async with connect(part) as client:
            assert (await client.admin.command("ping"))["ok"] == 1
        assert b"secantusd-py" in Path(f"/proc/{part.pid}/cmdline").read_bytes()
        os.kill(part.pid, 0)
    finally:
        part.stop()


def test_the_store_listens_on_loopback_only(tmp_path: Path) -> None:
    argv = embedded.command(tmp_path, 27017, "64M")
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--cache-size") + 1] == "64M"


async def test_what_lies_where_it_is_started_says_nothing_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secantusd.toml").write_text('host = "127.0.0.77"\nport = 1\nauth = true\n')
    monkeypatch.chdir(tmp_path)
    part = store_part(tmp_path / "store")
    part.start()
    try:
        async with connect(part) as client:
            await collection(client).insert_one({"_id": 1})
    finally:
        part.stop()
