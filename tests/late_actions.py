"""All services that people command, each unit a process behind links of its own, under load.

Each kind of request is sent again and again, each time with a mark of its own. What its sender was
told (`told`) is held against what was done (`done`): bytes at a lantern and at the root of a mesh,
and what the store has ever shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp

from patchbay.bus import Bus
from patchbay.chaos.link import Link
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.messages import encode
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import (
    PATIENCE_S,
    Part,
    broker_settings,
    eventually,
    free_port,
    mosquitto_part,
    store_part,
    until,
)
from patchbay.topics import Topics
from patchbay_lantern.wire.tlv import Decoder
from patchbay_locker.simulator import Board
from patchbay_mesh.simulator import Root
from tests.house import UnitPart, house_environ

Told = Literal["accepted", "error", "unknown"]

DOMAINS = ("lantern.domain", "locker.domain", "allocator.domain")
ACTORS = (*DOMAINS, "mesh.uart", "lantern.tlv", "locker.edge")
APIS = ("lantern.api", "mesh.api")
OPERATOR = "operator"
STORE = "store"

BETWEEN_S = 0.05
"""Between two requests of a kind: documents remember their last 16, and are looked at meanwhile."""

LOOK_S = 0.1

SHORT_LIVED = frozenset({"assign", "block", "reset", "recolor"})
"""Kinds whose marks are gone from the store after a few more: on a busy machine one may be missed,
so of these only what must not be there is looked for."""

BOARDS = ("assigned", "blocked", "reset")
JOBS = 60
"""Jobs that wait to be cancelled and changed."""


class Commanded:
    """Broker, store, eight units, their links, and everybody who commands. ``async with``."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.told: dict[str, Told] = {}
        """What the sender of each request, by its mark, was told."""
        self.kinds: dict[str, str] = {}
        self.done: set[str] = set()
        """Marks of requests of which something was done, at any time."""
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.links: dict[str, Link] = {}
        """By unit: its link to the broker. ``store <unit>``: to the store."""
        self.units: dict[str, UnitPart] = {}
        self.root = Root(directory / "root", [5])
        self._directory = directory
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._marks = itertools.count(1)
        self._kept: Store
        self._bus: Bus
        self._http: aiohttp.ClientSession
        self._waiting: list[str] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        for part in (self.broker, self.store):
            self._stack.callback(part.kill)
            await asyncio.to_thread(part.start)
        for name in (*ACTORS, *APIS, OPERATOR):
            self.links[name] = await self._link(self.broker)
        for name in DOMAINS:
            self.links[f"{STORE} {name}"] = await self._link(self.store)
        self.root.plug()
        self._stack.callback(self.root.unplug)
        ports = {name: free_port() for name in (*ACTORS, *APIS)}
        for name in (*ACTORS, *APIS):
            unit = UnitPart(name, self._directory, 0, self._environ(name, ports))
            self._stack.callback(unit.kill)
            unit.spawn()
            self.units[name] = unit
        self._kept = await self._stack.enter_async_context(
            Store(StoreSettings(), f"mongodb://127.0.0.1:{self.store.port}")
        )
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        await self._operate()
        await self._prepare(ports)

    async def _link(self, part: Part) -> Link:
        return await self._stack.enter_async_context(Link("127.0.0.1", part.port))

    def _environ(self, name: str, ports: dict[str, int]) -> dict[str, str]:
        store = self.links.get(f"{STORE} {name}")
        return house_environ(
            RUNTIME__STATE_DIR=self._directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.links[name].port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=f"mongodb://127.0.0.1:{store.port if store else self.store.port}",
            STORE__BACKOFF_INITIAL_S=0.05,
            STORE__BACKOFF_MAX_S=0.5,
            LANTERN__PORT=ports["lantern.tlv"],
            LANTERN__API_PORT=ports["lantern.api"],
            LANTERN__HISTORY=1000,
            MESH__SERIAL=self.root.link,
            MESH__PORT=ports["mesh.api"],
            LOCKER__PORT=ports["locker.edge"],
            **self._settings,
        )

    async def _operate(self) -> None:
        """Connect the operator, and wait until every unit is online."""
        online: set[str] = set()
        self._bus = Bus(
            broker_settings(self.links[OPERATOR].port),
            client_id=OPERATOR,
            topics=Topics(),
            announce=False,
        )

        def status(message: Any) -> None:
            message.ack()
            if message.payload == b"online":
                online.add(message.topic.rpartition("/")[2])

        self._bus.listen(self._bus.topics.unit_status("+"), status)
        self._stack.push_async_callback(self._bus.stop)
        self._bus.start()
        await until(lambda: {one.instance for one in self.units.values()} <= online)

    async def _prepare(self, ports: dict[str, int]) -> None:
        self._ports = ports
        for id in BOARDS:
            board = Board(id, ports["locker.edge"])
            await board.report()

        async def known() -> bool:
            return await self._kept.count("boards", {}) == len(BOARDS)

        await eventually(known)
        await self._ask("allocator", "queue", "mode", mode="manual")
        for number in range(JOBS):
            answer = await self._ask(
                "allocator",
                "queue",
                "submit",
                ClientName="test",
                CustomerName=f"waiting {number}",
                ColorCode="000000",
            )
            self._waiting.append(answer["job"])
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["lantern.tlv"])
        self._stack.callback(writer.close)
        for watching in (self._watch_lantern(reader), self._watch_store()):
            task = asyncio.create_task(watching)
            self._stack.callback(task.cancel)

    # What is done

    async def _watch_lantern(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        while data := await reader.read(65_536):
            self.done |= {frame.value.hex() for frame in decoder.feed(data)}

    async def _watch_store(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Note what the store and the root show of requests."""
        for collection in ("boards", "lanterns"):
            for document in await self._kept.find(collection, {}):
                self.done |= {id.rpartition(" ")[2] for id, _ in document["done"]}
                self.done |= {one["value"] or "" for one in document.get("history", ())}
        for job in await self._kept.find("jobs", {}):
            self.done |= {job["data"]["CustomerName"], job["data"]["ColorCode"]}
        for gone in await self._kept.find("events", {}):
            self.done.add(f"gone {gone['job']}")
        self.done |= {command.message.decode("utf-8", "replace") for command in self.root.commands}

    # What is requested

    async def load(self, *, stop: asyncio.Event) -> None:
        """Send each kind of request again and again until ``stop``, and wait for all answers."""
        kinds: dict[str, Callable[[str], Awaitable[tuple[Told, str]]]] = {
            "lantern http": self._lantern_http,
            "lantern bus": self._lantern_bus,
            "mesh socket": self._mesh_socket,
            "mesh bus": self._mesh_bus,
            "assign": lambda mark: self._board("assigned", "assign", mark),
            "block": lambda mark: self._board("blocked", "block", mark),
            "reset": lambda mark: self._board("reset", "reset", mark),
            "submit": self._submit,
            "recolor": self._recolor,
            "cancel": self._cancel,
        }

        async def again_and_again(kind: str) -> None:
            while not stop.is_set():
                mark = f"{next(self._marks):06x}"
                try:
                    told, mark = await kinds[kind](mark)
                except (OSError, aiohttp.ClientError):
                    told = "unknown"  # cut off: neither yes nor no
                self.told[mark], self.kinds[mark] = told, kind
                await asyncio.sleep(BETWEEN_S)

        async with asyncio.TaskGroup() as senders:
            for kind in kinds:
                senders.create_task(again_and_again(kind))

    async def _lantern_http(self, mark: str) -> tuple[Told, str]:
        body = {"method": "message", "params": {"command": "COLOR", "value": mark}}
        url = f"http://127.0.0.1:{self._ports['lantern.api']}/"
        async with self._http.post(url, json=body) as response:
            answer = await response.json()
            if response.status == 200:
                return "accepted", mark
            unknown = response.status == 504 and len(answer["error"]["id"]) == 32
            return "unknown" if unknown else "error", mark

    async def _mesh_socket(self, mark: str) -> tuple[Told, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports["mesh.api"])
        writer.write(b"SEND-\x00\x05" + mark.encode())
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        told: dict[bytes, Told] = {b"S": "accepted", b"F": "error", b"": "unknown"}
        return told[answer[:1]], mark

    async def _lantern_bus(self, mark: str) -> tuple[Told, str]:
        return await self._tell("lantern", "all", "set", mark, command="COLOR", value=mark)

    async def _mesh_bus(self, mark: str) -> tuple[Told, str]:
        return await self._tell("mesh", "root", "send", mark, command="SEND-", node=5, text=mark)

    async def _board(self, board: str, name: str, mark: str) -> tuple[Told, str]:
        body = {"cell": "auto", "minutes": 60} if name == "assign" else {}
        told = await self._tell("locker", board, name, mark, **body)
        if name == "assign" and told[0] != "error":
            for rental in (await self._ask("locker", board, "rentals", active=True))["rentals"]:
                await self._tell("locker", board, "revoke", f"r{mark}", cell=rental["cell"])
        return told

    async def _submit(self, mark: str) -> tuple[Told, str]:
        body = {"ClientName": "test", "CustomerName": f"submitted {mark}", "ColorCode": "000000"}
        told, _ = await self._tell("allocator", "queue", "submit", mark, **body)
        return told, f"submitted {mark}"

    async def _recolor(self, mark: str) -> tuple[Told, str]:
        job = self._waiting[0]
        return await self._tell(
            "allocator", "queue", "recolor", mark, job=job, ColorCode=mark.upper()
        )

    async def _cancel(self, mark: str) -> tuple[Told, str]:
        if len(self._waiting) == 1:
            await asyncio.sleep(LOOK_S)
            return "error", "none is left"
        job = self._waiting.pop()
        told, _ = await self._tell("allocator", "queue", "cancel", mark, job=job)
        return told, f"gone {job}"

    async def _tell(
        self, service: str, device: str, name: str, mark: str, **body: object
    ) -> tuple[Told, str]:
        """A request as the command line sends it."""
        topic = self._bus.topics.command(service, device, name)
        try:
            payload = await self._bus.request(
                topic, encode(body), timeout_s=self.patience_s, actuates=True, id=mark
            )
        except OutcomeUnknown:
            return "unknown", mark
        except (TimeoutError, Unavailable, Rejected):
            return "error", mark
        return "accepted" if json.loads(payload)["ok"] else "error", mark

    patience_s = 1.0

    async def _ask(self, service: str, device: str, name: str, **body: object) -> dict[str, Any]:
        topic = self._bus.topics.command(service, device, name)
        payload = await self._bus.request(topic, encode(body), timeout_s=PATIENCE_S)
        answer: dict[str, Any] = json.loads(payload)
        assert answer["ok"], answer
        return answer

    # What goes wrong

    @contextlib.contextmanager
    def frozen(self, names: Iterable[str]) -> Iterator[None]:
        """These units, ``broker`` or ``store`` are stopped, and continue at the end."""
        parts: dict[str, Part] = {"broker": self.broker, STORE: self.store, **self.units}
        pids = [parts[name].pid for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stalled(
        self, names: Iterable[str], way: Literal["both", "up", "down"] = "both"
    ) -> Iterator[None]:
        """These links move nothing, and go on at the end."""
        links = [self.links[name] for name in names]
        for link in links:
            link.stall(way)
        try:
            yield
        finally:
            for link in links:
                link.resume()

    # What must hold

    def wrong(self) -> list[str]:
        """What was done after an error, or not done though it was accepted."""
        return [
            f"{self.kinds[mark]} {mark}: {told}, and {'' if mark in self.done else 'not '}done"
            for mark, told in self.told.items()
            if (told == "error" and mark in self.done)
            or (
                told == "accepted" and mark not in self.done and self.kinds[mark] not in SHORT_LIVED
            )
        ]

    def tally(self) -> dict[str, Counter[str]]:
        """How often senders of each kind were told what."""
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for mark, told in self.told.items():
            counted[self.kinds[mark]][told] += 1
        return dict(counted)
