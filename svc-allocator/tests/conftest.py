"""A whole colour-job service in one process, on a real broker, a real store and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from patchbay.bus import Message
from patchbay.log import get_logger
from patchbay.messages import encode
from patchbay.net import Limits, Server
from patchbay.outbox import Outbox
from patchbay.settings import StoreSettings
from patchbay.store import Document, ObjectId, Store
from patchbay.testing import PATIENCE_S, MakeBus, eventually, until
from patchbay_allocator.domain import AllocatorDomain
from patchbay_allocator.edge.combinators import CombinatorsEdge
from patchbay_allocator.edge.intake import IntakeEdge
from patchbay_allocator.mixer import Mixer, Mixing, Outcome
from patchbay_allocator.settings import AllocatorSettings
from patchbay_allocator.simulator import send
from patchbay_allocator.store import AllocatorStore
from patchbay_allocator.wire.combinator import Mix
from patchbay_allocator.wire.intake import Job


class House:
    """Intake, combinators' edge and domain, each with a bus client of its own."""

    def __init__(self, make_bus: MakeBus, store: Store, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.settings = AllocatorSettings(
            job_timeout_s=60,
            reconnect_grace_s=0.5,
            retry_initial_s=0.05,
            retry_max_s=0.2,
            reissue_s=0.3,
            state_interval_s=0.05,
        )
        self.changed: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.domain: AllocatorDomain
        self.edge: CombinatorsEdge
        self.port = 0
        self._make_bus = make_bus
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}
        self.watcher = make_bus("watcher")

    async def start(self, *ports: int) -> None:
        """Start everything; ``ports``: where the combinators are."""
        self.watch()
        await self.start_edge(*ports)
        await self.start_intake()
        await self.start_domain(len(ports))
        await until(lambda: len(self.domain.presence.connected()) == len(ports))

    def watch(self) -> None:
        """Hear all that everybody may hear."""
        topics = self.watcher.topics
        self.watcher.listen(topics.event("allocator", "queue", "changed"), self._changed)
        self.watcher.listen(topics.event("allocator", "+", "rejected"), self._rejected)
        self.watcher.listen(topics.dead("allocator"), self._buried)
        self.watcher.listen(topics.state("allocator", "queue"), self._stated)
        self.watcher.start()

    async def start_intake(self) -> None:
        stack = self._stacks["intake"] = contextlib.AsyncExitStack()
        bus = self._make_bus("allocator-intake-test", announce=True)
        outbox = Outbox(bus, "allocator", self.directory / "intake.sqlite", in_order=False)
        edge = IntakeEdge(bus, await stack.enter_async_context(outbox))
        limits = Limits(100, 600, ended_grace_s=0)
        server = Server(edge.connected, "127.0.0.1", self.port, limits, get_logger("intake"))
        edge.server = await stack.enter_async_context(server)
        self.port = edge.server.port
        self.intake = edge
        stack.push_async_callback(bus.stop)
        bus.start()
        await bus.set_ready()

    async def start_edge(self, *ports: int) -> None:
        stack = self._stacks["edge"] = contextlib.AsyncExitStack()
        bus = self._make_bus("allocator-combinators-test", announce=True)
        outbox = Outbox(bus, "allocator", self.directory / "combinators.sqlite", in_order=False)
        stack.push_async_callback(bus.stop)
        self.edge = edge = CombinatorsEdge(bus, await stack.enter_async_context(outbox))
        for number, port in enumerate(ports, start=1):
            link = edge.add(number, "127.0.0.1", port, 0.05, 0.2)
            stack.push_async_callback(_end, asyncio.create_task(link.run()))
        stack.callback(edge.stop)
        bus.start()
        await bus.set_ready()

    async def start_domain(self, combinators: int, name: str = "test") -> AllocatorDomain:
        stack = self._stacks[f"domain-{name}"] = contextlib.AsyncExitStack()
        bus = self._make_bus(f"allocator-domain-{name}", announce=True)
        stack.push_async_callback(bus.stop)
        kept = AllocatorStore(self.store, 3600)
        devices = list(range(1, combinators + 1))
        self.domain = await stack.enter_async_context(
            AllocatorDomain(bus, self.store, kept, devices, self.settings, StoreSettings())
        )
        bus.start()
        await bus.set_ready()
        await bus.wait_connected(PATIENCE_S)
        return self.domain

    async def stop(self, *parts: str) -> None:
        """Stop these parts, or all: intake, edge, domain-test."""
        for part in parts or list(self._stacks):
            await self._stacks.pop(part).aclose()

    # What tests do and ask

    async def send(self, *jobs: Job) -> None:
        await send("127.0.0.1", self.port, *jobs)

    async def ask(self, name: str, **body: Any) -> dict[str, Any]:
        """A command of the queue, and its whole answer."""
        topic = self.watcher.topics.command("allocator", "queue", name)
        payload = await self.watcher.request(topic, encode(body), timeout_s=10)
        answer: dict[str, Any] = json.loads(payload)
        return answer

    async def refusal(self, name: str, **body: Any) -> str:
        """The code with which a command is refused; empty if it is not."""
        answer = await self.ask(name, **body)
        return "" if answer["ok"] else str(answer["error"]["code"])

    async def documents(self, **query: Any) -> list[Document]:
        """The jobs in the store, oldest first."""
        return await self.store.find("jobs", query, sort=[("_id", 1)])

    async def document(self, job: str) -> Document:
        (found,) = await self.store.find("jobs", {"_id": ObjectId(job)})
        return found

    async def counted(self, **wanted: int) -> None:
        """Wait until so many jobs have each status."""

        async def as_wanted() -> bool:
            jobs = await self.documents()
            return all(
                sum(job["status"] == status for job in jobs) == count
                for status, count in wanted.items()
            )

        await eventually(as_wanted)

    def _changed(self, message: Message) -> None:
        message.ack()
        self.changed.append(json.loads(message.payload))

    def _rejected(self, message: Message) -> None:
        message.ack()
        self.rejected.append(json.loads(message.payload))

    def _buried(self, message: Message) -> None:
        message.ack()
        self.dead.append(json.loads(message.payload))

    def _stated(self, message: Message) -> None:
        message.ack()
        self.state = json.loads(message.payload)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def house_on(make_bus: MakeBus, tmp_path: Path) -> Callable[[Store], House]:
    """Makes a house on a store of the test's own; the test stops it."""
    return lambda store: House(make_bus, store, tmp_path)


@pytest.fixture
async def house(make_bus: MakeBus, store: Store, tmp_path: Path) -> AsyncIterator[House]:
    """A house that is not started."""
    house = House(make_bus, store, tmp_path)
    yield house
    await house.stop()


class Hall:
    """Two combinators that mix what and when the test wants."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.mixers: list[Mixer] = []
        self.order: list[tuple[int, str]] = []
        """(device, job id) as they begin."""
        self.outcomes: dict[str, Outcome] = {}
        """By colour; done if not said."""
        self.gate = asyncio.Event()
        """Mixing ends when it is set."""

    async def open(self, count: int = 2, *, keeps_answers: bool = False) -> None:
        for device in range(1, count + 1):
            mixer = Mixer(device, self._mixing(device), keeps_answers=keeps_answers)
            self.mixers.append(mixer)
            self.ports.append(await mixer.start("127.0.0.1", 0))

    def _mixing(self, device: int) -> Mixing:
        async def mix(job: Mix) -> Outcome:
            self.order.append((device, job.id))
            await self.gate.wait()
            return self.outcomes.get(job.code, "done")

        return mix

    @property
    def most_at_once(self) -> int:
        return max(mixer.most_at_once for mixer in self.mixers)


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    hall = Hall()
    yield hall
    hall.gate.set()
    for mixer in hall.mixers:
        await mixer.stop()
