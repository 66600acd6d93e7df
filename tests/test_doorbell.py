"""The doorbell of CONTRIBUTING.md runs, and loses nothing whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.bus import Bus, Message
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import (
    PATIENCE_S,
    broker_settings,
    eventually,
    free_port,
    mosquitto_part,
    store_part,
    until,
)
from patchbay.topics import Topics
from tests import doorbell
from tests.house import UnitPart, house_environ

KILLS = 3
"""Of each of the four processes."""


def test_it_has_at_most_120_lines_of_code() -> None:
    lines = [line for text in doorbell.sources().values() for line in text.splitlines()]
    assert len([line for line in lines if line.strip()]) <= 120


class Doorbells:
    """Broker, store, edge and domain."""

    def __init__(self, directory: Path) -> None:
        doorbell.install(directory / "site")
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.port = free_port()
        environ = house_environ(
            RUNTIME__STATE_DIR=directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.broker.port,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=f"mongodb://127.0.0.1:{self.store.port}",
            STORE__BACKOFF_MAX_S=0.5,
            BELL__PORT=self.port,
        )
        environ["PYTHONPATH"] = str(directory / "site")
        self.edge = UnitPart("bell.edge", directory, self.port, environ)
        self.domain = UnitPart("bell.domain", directory, 0, environ)
        self.parts = (self.broker, self.store, self.edge, self.domain)

    async def start(self, part: UnitPart) -> None:
        if part.port:
            await asyncio.to_thread(part.start)
        else:
            part.spawn()

    async def ring(self, bell: str, enough: asyncio.Event) -> int:
        """Press one after another, each until it is answered; how many were answered."""
        answered = 0
        while not enough.is_set():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    while not enough.is_set():
                        writer.write(f"RING {bell}\n".encode())
                        async with asyncio.timeout(5):
                            assert await reader.readexactly(3) == b"OK\n"
                        answered += 1
                        await asyncio.sleep(0.01)
                finally:
                    writer.close()
            await asyncio.sleep(0.05)
        return answered


@pytest.fixture
async def bells(tmp_path: Path) -> AsyncIterator[Doorbells]:
    bells = Doorbells(tmp_path)
    for part in bells.parts:
        await bells.start(part)
    yield bells
    for part in bells.parts:
        await asyncio.to_thread(part.kill)


@pytest.mark.timeout(600)
async def test_each_press_that_was_answered_is_counted_whoever_is_killed(bells: Doorbells) -> None:
    enough = asyncio.Event()
    names = ("front", "back", "garden")
    ringing = [asyncio.create_task(bells.ring(name, enough)) for name in names]
    for _ in range(KILLS):
        for part in bells.parts:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(part.kill)
            await bells.start(part)
    await asyncio.sleep(0.5)
    enough.set()
    answered = dict(zip(names, await asyncio.gather(*ringing), strict=True))
    assert all(answered.values())

    watcher = Bus(broker_settings(bells.broker.port), client_id="watcher", topics=Topics())
    states: dict[str, dict[str, object]] = {}

    def heard(message: Message) -> None:
        message.ack()
        states[message.topic.split("/")[2]] = json.loads(message.payload)

    watcher.listen(watcher.topics.state("bell", "+"), heard)
    async with watcher, Store(StoreSettings(), f"mongodb://127.0.0.1:{bells.store.port}") as store:

        async def counted() -> bool:
            found = {one["_id"]: one["rings"] for one in await store.find("bells", {})}
            # A press whose reply was killed on its way was pressed again, and counts again.
            return all(found.get(name, 0) >= answered[name] for name in names)

        await eventually(counted)
        await until(
            lambda: (
                {name: states.get(name, {}).get("bell") for name in names}
                == {name: name for name in names}
            )
        )

        async def shown() -> bool:
            found = {one["_id"]: one["rings"] for one in await store.find("bells", {})}
            return {name: states[name]["rings"] for name in names} == found

        await eventually(shown)
        topic = watcher.topics.command("bell", "all", "list")
        answer = json.loads(await watcher.request(topic, b"{}", timeout_s=PATIENCE_S))
        assert [one["device"] for one in answer["bells"]] == ["back", "front", "garden"]
