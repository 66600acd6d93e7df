"""A locker house for a test: broker, store, edge and domain, each a process of its own.

Each part is started, killed, paused and started again on the same files and port, and ended by its
process id. The test itself is the operator, with an MQTT client and a look into the store, and the
boards (`patchbay_locker.simulator`, or a `Line` where the bytes matter).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from patchbay.bus import Bus, Message
from patchbay.errors import Rejected
from patchbay.messages import UnitInfo, encode
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.testing import (
    PATIENCE_S,
    Part,
    broker_settings,
    eventually,
    free_port,
    mosquitto_part,
    reaches,
    store_part,
    until,
)
from patchbay.topics import Topics, device_id
from patchbay_locker.simulator import Behaviour, Board
from patchbay_locker.wire import Answer

HOST = "test"
STEADY = Behaviour()


def house_environ(**settings: object) -> dict[str, str]:
    """Our environment without what is set for a Patchbay in it, and with these settings."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PATCHBAY_")}
    return {**clean, **{f"PATCHBAY_{name}": str(value) for name, value in settings.items()}}


class UnitPart(Part):
    """A unit, as ``python -m patchbay.runtime`` runs it."""

    def __init__(self, unit: str, directory: Path, port: int, environ: dict[str, str]) -> None:
        command = [sys.executable, "-m", "patchbay.runtime", unit, "--instance", HOST]
        super().__init__(unit, directory, lambda: command, port)
        self.instance = f"{unit.replace('.', '-')}-{HOST}"
        self.environ = dict(environ)

    def spawn(self) -> None:
        """Start without waiting, in a directory where no settings lie."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env=self.environ,
            )

    def terminate(self) -> tuple[int, float]:
        """SIGTERM, and wait for its end. Returns the exit code and the seconds that it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        code = self._process.wait(30)
        return code, time.monotonic() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


class House:
    """The four parts and the operator. ``async with`` starts all and waits until they are online.

    ``watch`` is a topic filter: what comes there, live and retained, is in ``said``.
    """

    def __init__(self, directory: Path, watch: str = "") -> None:
        self.directory = directory
        self.broker = mosquitto_part(directory / "broker", free_port())
        self.store = store_part(directory / "store", free_port())
        port = free_port()
        self.environ = house_environ(
            RUNTIME__STATE_DIR=directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.broker.port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=f"mongodb://127.0.0.1:{self.store.port}",
            STORE__TIMEOUT_S=3,
            STORE__BACKOFF_INITIAL_S=0.05,
            STORE__BACKOFF_MAX_S=0.5,
            LOCKER__PORT=port,
        )
        self.edge = UnitPart("locker.edge", directory, port, self.environ)
        self.domain = UnitPart("locker.domain", directory, 0, self.environ)
        self.parts: tuple[Part, ...] = (self.edge, self.domain, self.broker, self.store)
        self.topics = Topics()
        self.bus = Bus(
            broker_settings(self.broker.port),
            client_id="operator",
            topics=self.topics,
            announce=False,
        )
        self.status: dict[str, str] = {}
        """Instance id -> what its status topic said last."""
        self.infos: dict[str, UnitInfo] = {}
        """Instance id -> what it said last of itself."""
        self.said: dict[str, list[Message]] = defaultdict(list)
        """Topic -> what came there, if it is watched."""
        self.kept = Store(StoreSettings(), f"mongodb://127.0.0.1:{self.store.port}")
        self.bus.listen(self.topics.unit_status("+"), self._status)
        self.bus.listen(self.topics.unit_info("+"), self._info)
        if watch:
            self.bus.listen(watch, self._said)

    async def __aenter__(self) -> Self:
        try:
            await self.start(self.broker, self.store)
            self.bus.start()
            await self.bus.wait_connected(PATIENCE_S)
            await self.start(self.edge, self.domain)
            await self.online(self.edge)
            await self.online(self.domain)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        try:
            await self.bus.stop()
            await self.kept.__aexit__(None, None, None)
        finally:
            for part in self.parts:
                part.kill()

    # The parts

    async def start(self, *parts: Part) -> None:
        """Start parts at once, and wait until they listen; the domain does not."""
        await asyncio.gather(*(asyncio.to_thread(_start, part) for part in parts))

    async def kill(self, *parts: Part) -> None:
        """kill -9, and wait until they are gone."""
        await asyncio.gather(*(asyncio.to_thread(part.kill) for part in parts))

    async def online(self, unit: UnitPart) -> None:
        """Wait until this very process has said ``online``."""

        def is_online() -> bool:
            said = self.status.get(unit.instance)
            info = self.infos.get(unit.instance)
            return said == "online" and info is not None and info.pid == unit.pid

        await until(is_online)

    async def offline(self, unit: UnitPart) -> None:
        """Wait until its status says ``offline``."""
        await until(lambda: self.status.get(unit.instance) == "offline")

    def empty_the_store(self) -> None:
        """All that the store (not running) has kept is gone."""
        shutil.rmtree(self.store.log.parent / "data")

    def empty_the_broker(self) -> None:
        """What the broker (not running) has kept is gone: sessions and retained messages."""
        (self.broker.log.parent / "mosquitto.db").unlink(missing_ok=True)

    def empty_the_outbox(self) -> None:
        """The file of the edge (not running) is gone."""
        shutil.rmtree(self.directory / "state" / "units" / self.edge.instance)

    # The boards and the operator

    def board(self, id: str, behaviour: Behaviour = STEADY) -> Board:
        """A simulated board that reports to this edge."""
        return Board(id, self.edge.port, behaviour=behaviour)

    async def ask(self, board: str, command: str, **body: object) -> dict[str, Any]:
        """Send a command as an MQTT client does, and return the answer. Raises Rejected."""
        topic = self.topics.command("locker", device_id(board), command)
        payload = await self.bus.request(topic, encode(body), timeout_s=PATIENCE_S)
        answer: dict[str, Any] = msgspec.json.decode(payload)
        if not answer["ok"]:
            raise Rejected(answer["error"]["code"], answer["error"]["message"])
        return answer

    async def assign(self, board: Board, codes: dict[int, str], minutes: int = 600) -> None:
        """Give a board that has reported these codes, and wait until it has them and no other."""
        await self.persisted([board])
        for cell, code in codes.items():
            await self.ask(board.id, "assign", cell=cell, minutes=minutes, code=code)
        await eventually(lambda: lists(board, codes))

    # The store

    async def documents(self, collection: str, board: str | None = None) -> list[Document]:
        """The documents of a collection, of one board or all, by ``_id``."""
        query = {} if board is None else {"board": board}
        return await self.kept.find(collection, query, sort=[("_id", 1)])

    async def persisted(self, boards: Iterable[Board]) -> None:
        """Wait until the last report of each of these boards is in the store.

        Reports are persisted in the order in which the edge took them in, so all others are too.
        """
        wanted = {device_id(board.id): board.send for board in boards}

        async def kept() -> int:
            found = await self.kept.find("boards", {"_id": {"$in": sorted(wanted)}})
            return sum(one["send"] == wanted[one["_id"]] for one in found)

        await reaches(kept, len(wanted))

    async def quiet(self) -> None:
        """Wait until the broker has confirmed every event that follows from what is kept."""

        async def is_quiet() -> bool:
            return not any(one["outgoing"] for one in await self.documents("boards"))

        await eventually(is_quiet)

    def _status(self, message: Message) -> None:
        message.ack()
        self.status[message.topic.rpartition("/")[2]] = message.payload.decode()

    def _info(self, message: Message) -> None:
        message.ack()
        info = msgspec.json.decode(message.payload, type=UnitInfo)
        self.infos[message.topic.split("/")[-2]] = info

    def _said(self, message: Message) -> None:
        message.ack()
        self.said[message.topic].append(message)


class Line:
    """A connection to the edge, for tests that look at the bytes. ``async with``."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self) -> bytes:
        """The next answer, whole. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"CLOSE\n")


async def lists(board: Board, codes: dict[int, str]) -> bool:
    """The board reports: is its list now this one, cell -> code?"""
    return codes_of(await board.report()) == codes


def codes_of(answer: Answer) -> dict[int, str]:
    """Cell -> code."""
    return {code.cell: code.code for code in answer.codes}


def _start(part: Part) -> None:
    if part.port:
        part.start()
    else:
        part.spawn()
