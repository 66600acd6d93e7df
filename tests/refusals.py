"""All five domains as processes on a store that refuses writes, and load on each of them.

What somebody was told to be safe is in `Town.accepted`; `Town.settled` waits until the store has
all of it, and `Town.complaints` says what is lost, doubled, set aside, or logged too often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from patchbay.bus import Bus, Message
from patchbay.chaos.store_link import Refusal, StoreLink
from patchbay.errors import PatchbayError
from patchbay.messages import encode, now, rfc3339
from patchbay.outbox import Outbox
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, Part, broker_settings, eventually, free_port, until
from patchbay.topics import Topics
from patchbay_mesh.messages import Data, Value
from tests.house import UnitPart, house_environ

DOMAINS: Final = ("locker", "allocator", "mesh", "lantern", "bartender")
EDGES: Final = ("locker.edge", "allocator.intake", "bartender.pumps")
LOG_BYTES: Final = 100_000
PAUSE_S: Final = 0.05


class Town:
    """The units and the load. ``async with`` starts all and waits until they are online."""

    def __init__(self, directory: Path, broker: Part, store: Part, **settings: object) -> None:
        self.directory = directory
        self.broker = broker
        self.link = StoreLink("127.0.0.1", store.port)
        self.accepted: dict[str, list[Any]] = defaultdict(list)
        self._database = f"refusals_{os.getpid()}_{free_port()}"
        self._store = Store(
            StoreSettings(database=self._database), f"mongodb://127.0.0.1:{store.port}"
        )
        self._settings = settings
        self._locker_port, self._intake_port = free_port(), free_port()
        self._status: dict[str, bytes] = {}
        self._bus = self._client("operator")
        self._bus.listen("patchbay/status/+", self._said)
        self._node = self._client("mesh-uart-load")
        self._outbox = Outbox(self._node, "mesh", directory / "load.sqlite")
        self._parts: list[UnitPart] = []
        self._environ: dict[str, str] = {}
        self.domains: list[UnitPart] = []
        """The domain units that run now."""
        self._load: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    def _client(self, name: str) -> Bus:
        settings = broker_settings(self.broker.port)
        return Bus(settings, client_id=name, topics=Topics(), announce=False)

    async def __aenter__(self) -> Self:
        stack = self._stack
        await stack.enter_async_context(self._store)
        await stack.enter_async_context(self.link)
        stack.push_async_callback(self._end)
        await stack.enter_async_context(self._bus)
        await stack.enter_async_context(self._outbox)
        await stack.enter_async_context(self._node)
        self._environ = house_environ(
            RUNTIME__STATE_DIR=self.directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.broker.port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=self.link.uri,
            STORE__DATABASE=self._database,
            STORE__BACKOFF_INITIAL_S=0.05,
            STORE__BACKOFF_MAX_S=0.5,
            LOCKER__PORT=self._locker_port,
            ALLOCATOR__PORT=self._intake_port,
            BARTENDER__SEC_PER_LITER=1,
            LANTERN__ANSWER_S=1.5,
            **self._settings,
        )
        self._parts = [self._unit(one) for one in EDGES]
        for part in self._parts:
            part.spawn()
        await self.restart_domains()
        return self

    def _unit(self, name: str, **changes: str) -> UnitPart:
        return UnitPart(name, self.directory, 0, {**self._environ, **changes})

    async def restart_domains(self, uri: str = "") -> None:
        """Stop the domains, if they run, and start them, on another store if there is a ``uri``:
        they need not find that one. Without one, wait until they are online."""
        for part in self.domains:
            await asyncio.to_thread(part.stop)
        self._parts = [one for one in self._parts if one not in self.domains]
        changes = {"PATCHBAY_STORE__URI": uri} if uri else {}
        self.domains = [self._unit(f"{one}.domain", **changes) for one in DOMAINS]
        self._parts += self.domains
        for part in self.domains:
            part.spawn()
        await until(lambda: self.online(*EDGES))
        if not uri:
            await until(lambda: self.online(*(one.name for one in self.domains)))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _end(self) -> None:
        await self.stop_load()
        for part in self._parts:
            await asyncio.to_thread(part.kill)

    def _said(self, message: Message) -> None:
        message.ack()
        self._status[message.topic.rpartition("/")[2]] = message.payload

    def online(self, *units: str) -> bool:
        """Do these units say that they are online?"""
        return all(self._status.get(f"{one.replace('.', '-')}-test") == b"online" for one in units)

    # Load

    async def load(self) -> None:
        """Begin to use all five services, and wait until each has accepted something."""
        for one in (self._reports, self._jobs, self._readings, self._commands, self._blends):
            self._load.append(asyncio.create_task(one()))
        await until(lambda: all(self.accepted[one] for one in DOMAINS))

    async def stop_load(self) -> None:
        """Let everybody finish what is in hand."""
        load, self._load = self._load, []
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)

    async def reported(self, number: int, board: str = "px") -> bool:
        """One report of a board: was it answered?"""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._locker_port)
                text = f"ACon_V1.0\nID={board}\nSEND={number}\nBOX_ACC={number % 60 + 1}\nCLOSE\n"
                writer.write(text.encode())
                answer = await reader.readuntil(b"CLOSE")
                writer.close()
                return b"ACon" in answer
        return False

    async def _reports(self) -> None:
        number = 0
        while True:
            number += 1
            if await self.reported(number):
                self.accepted["locker"].append(number)
            await asyncio.sleep(PAUSE_S)

    async def send_job(self, name: str) -> None:
        """A job, as a Chromebook sends it: nobody answers."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._intake_port)
        job = {"ClientName": "px", "data": {"CustomerName": name, "ColorCode": "00ff00"}}
        writer.write(json.dumps(job).encode())
        writer.close()
        await writer.wait_closed()

    async def _jobs(self) -> None:
        number = 0
        while True:
            number += 1
            await self.send_job(f"n-{number}")
            self.accepted["allocator"].append(f"n-{number}")
            await asyncio.sleep(PAUSE_S)

    def read(self, value: bytes) -> None:
        """A value of a node."""
        data = Data(5, [Value("GPS", value)])
        self._outbox.add("node-5", "data", subject="node-5", time=rfc3339(now()), data=data)

    async def _readings(self) -> None:
        number = 0
        while True:
            number += 1
            self.read(f"{number:06d}".encode())
            self.accepted["mesh"].append(f"{number:06d}".encode())
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, topic: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command; empty if there is none, or it is an error."""
        try:
            payload = await self._bus.request(topic, encode(body), timeout_s=3)
        except (PatchbayError, TimeoutError):
            return {}
        answer: dict[str, Any] = json.loads(payload)
        return answer if answer.get("ok") else {}

    async def _commands(self) -> None:
        on = True
        while True:
            on = not on
            topic = "patchbay/lantern/all/cmd/set"
            answer = await self._ask(topic, {"state": "ON" if on else "OFF"})
            if answer:
                self.accepted["lantern"].append(answer["rev"])
            await asyncio.sleep(PAUSE_S)

    async def _blends(self) -> None:
        while True:
            body = {"cup_size": 0.1, "ratios": {"0": 1.0}}
            answer = await self._ask("patchbay/bartender/bar/cmd/blend", body)
            if answer:
                self.accepted["bartender"].append(answer["run_id"])
            await asyncio.sleep(0.3)

    # What is there

    async def find(self, collection: str) -> list[dict[str, Any]]:
        """All documents of a collection."""
        return await self._store.find(collection, {})

    async def _there(self) -> dict[str, list[Any]]:
        """What is in the store of what was accepted, once for each time that it is there."""
        lanterns = await self.find("lanterns")
        runs = await self.find("blends")
        return {
            "locker": [one["send"] for one in await self.find("accesses") if one["board"] == "px"],
            "allocator": [one["data"]["CustomerName"] for one in await self.find("jobs")],
            "mesh": [bytes(one["data"]) for one in await self.find("readings")],
            "lantern": list(range(1, lanterns[0]["rev"] + 1)) if lanterns else [],
            "bartender": [one["_id"] for one in runs if one["ended_at"] is not None],
        }

    async def settled(self, aside: int = 0) -> None:
        """Wait until all that was accepted is in the store, but for ``aside`` of it.

        Raises TimeoutError."""

        async def all_there() -> bool:
            there = await self._there()
            missing = sum(len(set(self.accepted[one]) - set(there[one])) for one in DOMAINS)
            return missing <= aside

        with contextlib.suppress(TimeoutError):
            await eventually(all_there, PATIENCE_S)

    async def complaints(self) -> list[str]:
        """What is wrong: lost, doubled, set aside, or too long a log."""
        there = await self._there()
        found = []
        for service in DOMAINS:
            accepted = set(self.accepted[service])
            if not accepted:
                found.append(f"{service}: nothing was accepted")
            if lost := accepted - set(there[service]):
                found.append(f"{service}: lost {sorted(lost)[:5]} of {len(accepted)}")
            if len(there[service]) != len(set(there[service])):
                found.append(f"{service}: doubled")
        dead = await self.find("dead")
        if dead:
            found.append(f"{len(dead)} dead letters, the first: {dead[0]}")
        if self.log_bytes > LOG_BYTES:
            found.append(f"{self.log_bytes} bytes of log: {self.sizes}")
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """How long the log of each unit is."""
        return {one.name: one.log.stat().st_size for one in self._parts}

    @property
    def log_bytes(self) -> int:
        return sum(self.sizes.values())

    async def refuse(self, refusal: Refusal, seconds: float) -> None:
        """Refuse writes for so long, under load, and then none any more."""
        self.link.refuse_writes(refusal)
        await asyncio.sleep(seconds)
        self.link.accept_writes()
