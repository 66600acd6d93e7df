"""What the UART edge took in is in the store once, whoever is killed, at 2,000 frames a second (500
in quick runs).

The line itself promises nothing: what an edge had read and not yet committed goes with it when it
is killed. What it committed has a number in its file, and these numbers have no gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, eventually, free_port, mosquitto_part, reaches, store_part
from patchbay_mesh.simulator import Root
from patchbay_mesh.wire.content import Value, data_frame
from patchbay_mesh.wire.uart import encode

STEP_S = 0.01
RATES = pytest.mark.parametrize("rate", [500, pytest.param(2000, marks=pytest.mark.long)])
"""Frames a second."""

NODES = 20


class Installation:
    """The processes of a mesh service, each killed and started again on its own files."""

    def __init__(self, directory: Path, link: Path) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        self.outbox = directory / "units/mesh-uart-one/outbox/mesh-uart-one.sqlite"
        environ = {
            "PATCHBAY_RUNTIME__STATE_DIR": str(directory),
            "PATCHBAY_RUNTIME__DEMO": "true",
            "PATCHBAY_BROKER__PORT": str(self.broker.port),
            "PATCHBAY_BROKER__BACKOFF_MAX_S": "0.5",
            "PATCHBAY_STORE__URI": self.uri,
            "PATCHBAY_STORE__BACKOFF_MAX_S": "0.5",
            "PATCHBAY_MESH__SERIAL": str(link),
            "PATCHBAY_MESH__PORT": str(free_port()),
            "PATCHBAY_MESH__MONITOR_PORT": str(free_port()),
        }
        env = ["env", *(f"{key}={value}" for key, value in environ.items())]

        def unit(role: str) -> Part:
            command = [*env, sys.executable, "-m", "patchbay.runtime", f"mesh.{role}"]
            return Part(role, directory, lambda: [*command, "--instance", "one"], 0)

        self.uart, self.domain, self.api, self.monitor = map(
            unit, ("uart", "domain", "api", "monitor")
        )
        self.parts = [
            self.broker,
            self.store,
            self.uart,
            self.domain,
            self.api,
            self.monitor,
        ]

    def start(self, part: Part) -> None:
        if part.port:
            part.start()
        else:
            part.spawn()

    def committed(self) -> int:
        """The number of the last event that the edge has committed, of an edge that is gone."""
        with contextlib.closing(sqlite3.connect(self.outbox)) as db:
            (number,) = db.execute("SELECT seq FROM meta").fetchone()
        return int(number)


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Root]:
    root = Root(tmp_path / "root", range(1, NODES + 1))
    root.plug()
    yield root
    root.unplug()


@pytest.fixture
async def here(tmp_path: Path, root: Root) -> AsyncIterator[Installation]:
    here = Installation(tmp_path, root.link)
    for part in here.parts:
        await asyncio.to_thread(here.start, part)
    yield here
    for part in here.parts:
        await asyncio.to_thread(part.kill)


class Load:
    """Frames with a number of their own, at a steady rate; what cannot be sent comes later."""

    def __init__(self, root: Root, rate: int) -> None:
        self.step = int(rate * STEP_S)
        """Frames that are sent together."""
        self.sent = 0
        self._root = root
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for step in itertools.count(1):
            frames = range(self.sent, self.sent + self.step)
            line = [
                encode(data_frame(1 + one % NODES, [Value(b"CNT", one.to_bytes(4))]))
                for one in frames
            ]
            self.sent = frames.stop
            await self._root.send(b"".join(line))
            await asyncio.sleep(max(0.0, begin + step * STEP_S - loop.time()))


async def numbers_in(store: Store) -> list[int]:
    return [int.from_bytes(one["data"]) for one in await store.find("readings", {})]


@pytest.mark.timeout(900)
@RATES
async def test_all_that_was_sent_is_there_once_though_all_but_the_uart_edge_are_killed(
    here: Installation, root: Root, rate: int
) -> None:
    async with Store(StoreSettings(), here.uri) as store:

        async def readings() -> int:
            return await store.count("readings", {})

        probing = Load(root, rate)
        await eventually(readings)
        first = probing.sent  # what came before the edge had opened the port was said to nobody
        for part in (here.domain, here.broker, here.store, here.api, here.monitor, here.domain):
            await asyncio.sleep(0.7)
            await asyncio.to_thread(part.kill)
            await asyncio.to_thread(here.start, part)
        await asyncio.sleep(0.7)
        await probing.stop()

        await reaches(readings, probing.sent - first)
        wanted = set(range(first, probing.sent - probing.step))
        await reaches(lambda: _found(store, wanted), len(wanted))
        counted = Counter(await numbers_in(store))
        assert set(counted.values()) == {1}
        await _nodes_agree(store, sum(counted.values()))


@pytest.mark.timeout(900)
@RATES
async def test_all_that_the_uart_edge_committed_is_there_once_though_it_is_killed(
    here: Installation, root: Root, rate: int
) -> None:
    async with Store(StoreSettings(), here.uri) as store:

        async def readings() -> int:
            return await store.count("readings", {})

        load = Load(root, rate)
        await eventually(readings)
        seen = [0]
        for _ in range(4):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(here.uart.kill)
            seen.append(here.committed())
            here.uart.spawn()
        assert seen == sorted(seen)
        await asyncio.sleep(2.0)
        await load.stop()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(here.uart.kill)
        last = here.committed()
        assert last > seen[1] > 0
        here.uart.spawn()

        await reaches(readings, last)
        ids = [one["_id"] for one in await store.find("readings", {})]  # an epoch for each start
        numbers = sorted(int(one.rpartition("/")[2].split(":")[0]) for one in ids)
        assert numbers == list(range(1, last + 1))
        counted = Counter(await numbers_in(store))
        assert set(counted.values()) == {1}
        await _nodes_agree(store, last)


async def _found(store: Store, wanted: set[int]) -> int:
    await asyncio.sleep(0.5)  # it reads all there is
    return len(wanted.intersection(await numbers_in(store)))


async def _nodes_agree(store: Store, readings: int) -> None:
    """What the nodes count is what there is."""

    async def agree() -> bool:
        return sum(one["readings"] for one in await store.find("nodes", {})) == readings

    await eventually(agree)
