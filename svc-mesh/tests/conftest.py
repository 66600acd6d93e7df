"""A whole mesh service in one process: a pseudo-terminal, a real broker, a real store, sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchbay.bus import Bus, Message
from patchbay.forms import MSGPACK_FORM
from patchbay.log import get_logger
from patchbay.messages import encode
from patchbay.net import Limits, Server
from patchbay.outbox import Outbox
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.testing import PATIENCE_S, MakeBus, eventually, until
from patchbay.websocket import Limits as WebSocketLimits
from patchbay.websocket import WebSocketServer
from patchbay_mesh.domain import MeshDomain
from patchbay_mesh.edge.api import KERNEL_BYTES, Api
from patchbay_mesh.edge.monitor import Monitor
from patchbay_mesh.edge.uart import UartEdge
from patchbay_mesh.messages import DATA
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.simulator import Root
from patchbay_mesh.store import MeshStore
from patchbay_mesh.wire.content import Value

GPS = bytes.fromhex("02f001be9200")

SETTINGS = MeshSettings(
    reconnect_initial_s=0.05,
    reconnect_max_s=0.2,
    active_timeout_s=60,
    state_interval_s=0.02,
    write_timeout_s=1.0,
    command_timeout_s=2.0,
    outbox_gather_s=0.002,
)


class Clock:
    """Seconds that go on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """Edges and domain, each with a bus client of its own, and the root of a mesh."""

    def __init__(self, make_bus: MakeBus, store: Store, directory: Path) -> None:
        self.store = store
        self.settings = SETTINGS
        self.clock = Clock()
        self.root = Root(directory / "root", [5, 6])
        self.watcher = make_bus("watcher")
        self.events: list[Message] = []
        self.states: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, str] = {}
        self.said: list[tuple[str, str]] = []
        """Every status of a device, in the order in which they came."""
        self.port = 0
        self.monitor_port = 0
        self.outbox: Outbox
        self.uart: UartEdge
        self.api: Api
        self.server: Server
        self.monitor: Monitor
        self.domain: MeshDomain
        self._make_bus = make_bus
        self._directory = directory
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    def replace(self, **changes: Any) -> None:
        """Other settings, for what is started from now on."""
        self.settings = msgspec.structs.replace(self.settings, **changes)

    async def watch(self) -> None:
        """Hear all that everybody may hear."""
        topics = self.watcher.topics
        self.watcher.listen(topics.event("mesh", "+", "+"), self._event)
        self.watcher.listen(topics.state("mesh", "+"), self._state)
        self.watcher.listen(topics.status("mesh", "+"), self._status)
        self.watcher.start()
        await self.watcher.wait_connected(PATIENCE_S)

    async def start(self) -> None:
        """Everything, and a root that is plugged in."""
        await self.watch()
        self.root.plug()
        await self.start_domain()
        await self.start_api()
        await self.start_uart()
        await until(lambda: self.uart.ready)

    async def start_uart(self, url: str | None = None, **outbox: Any) -> None:
        stack, bus = self._new("uart")
        wanted = {"gather_s": self.settings.outbox_gather_s, **outbox}
        self.outbox = await stack.enter_async_context(
            Outbox(
                bus,
                "mesh",
                self._directory / "uart.sqlite",
                form=MSGPACK_FORM,
                sheds=(DATA,),
                **wanted,
            )
        )
        self.uart = UartEdge(bus, self.outbox, self.settings)
        line = asyncio.create_task(self.uart.open(url or str(self.root.link)).run())
        stack.push_async_callback(end, line)
        await self._online(bus)

    async def start_api(self) -> None:
        stack, bus = self._new("api")
        self.api = Api(bus, self.settings)
        limits = Limits(
            max_connections=100,
            idle_timeout_s=self.settings.idle_timeout_s,
            write_buffer_bytes=self.settings.listener_buffer_bytes,
            send_buffer_bytes=KERNEL_BYTES,
            ended_grace_s=1.0,
        )
        self.server = await stack.enter_async_context(
            Server(self.api.connected, "127.0.0.1", self.port, limits, get_logger("api"))
        )
        self.port = self.server.port
        await self._online(bus)

    async def start_monitor(self) -> None:
        stack, bus = self._new("monitor")
        self.monitor = Monitor(bus, self.settings)
        server = WebSocketServer(
            self.monitor.connected,
            host="127.0.0.1",
            port=self.monitor_port,
            limits=WebSocketLimits(),
            log=get_logger("monitor"),
        )
        self.monitor.server = await stack.enter_async_context(server)
        self.monitor_port = server.port
        lines = asyncio.create_task(self.monitor.count_lines())
        stack.push_async_callback(end, lines)
        if self.monitor.list is not None:
            stack.push_async_callback(end, asyncio.create_task(self.monitor.send_list()))
        await self._online(bus)

    async def start_domain(self) -> None:
        stack, bus = self._new("domain", durable=True)
        kept = MeshStore(self.store, 3600, self.settings.readings_ttl_s)
        self.domain = await stack.enter_async_context(
            MeshDomain(bus, self.store, kept, self.settings, StoreSettings(), self.clock)
        )
        await self._online(bus)

    async def stop(self, *parts: str) -> None:
        """Stop these parts, or all: uart, api, monitor, domain."""
        for part in parts or list(self._stacks):
            await self._stacks.pop(part).aclose()

    def _new(self, part: str, *, durable: bool = False) -> tuple[contextlib.AsyncExitStack, Bus]:
        stack = self._stacks[part] = contextlib.AsyncExitStack()
        bus = self._make_bus(f"mesh-{part}-test", durable=durable, announce=True)
        return stack, bus

    async def _online(self, bus: Bus) -> None:
        self._stacks[bus.client_id.split("-")[1]].push_async_callback(bus.stop)
        bus.start()
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)

    # What tests do and ask

    async def report(self, node: int, data: bytes = GPS, type: bytes = b"GPS") -> None:
        """A node reports one value, and the domain has taken it in."""
        taken = self.domain.inbox.taken
        await self.root.report(node, Value(type, data))
        await until(lambda: self.domain.inbox.taken > taken)

    async def ask(self, device: str, name: str, **body: Any) -> dict[str, Any]:
        """A command, and its whole answer."""
        topic = self.watcher.topics.command("mesh", device, name)
        payload = await self.watcher.request(topic, encode(body), timeout_s=10)
        answer: dict[str, Any] = json.loads(payload)
        return answer

    async def refusal(self, device: str, name: str, **body: Any) -> str:
        """The code with which a command is refused; empty if it is not."""
        answer = await self.ask(device, name, **body)
        return "" if answer["ok"] else str(answer["error"]["code"])

    def latest(self, device: str, data_type: str) -> str:
        """The latest value that a node's state shows, in hex; empty if it shows none."""
        value = self.states.get(device, {}).get("values", {}).get(data_type, {})
        return str(value.get("hex", ""))

    async def documents(self, collection: str, count: int) -> list[Document]:
        """All documents, in the order in which they came, when there are so many."""

        async def as_many() -> bool:
            return await self.store.count(collection, {}) >= count

        await eventually(as_many)
        found = await self.store.find(collection, {}, sort=[("_id", 1)])
        assert len(found) == count
        return found

    async def call(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Ask the socket API on a connection of its own: all that comes until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        return answer

    def named(self, name: str) -> list[dict[str, Any]]:
        """The data of the events of this name in JSON, in the order in which they came."""
        return [
            json.loads(message.payload)["data"]
            for message in self.events
            if message.topic.endswith(f"/event/{name}")
        ]

    def _event(self, message: Message) -> None:
        message.ack()
        self.events.append(message)

    def _state(self, message: Message) -> None:
        message.ack()
        device = message.topic.split("/")[2]
        if message.payload:
            self.states[device] = json.loads(message.payload)
        else:
            self.states.pop(device, None)

    def _status(self, message: Message) -> None:
        message.ack()
        device, status = message.topic.split("/")[2], message.payload.decode()
        if not status:
            self.statuses.pop(device, None)
            return
        self.statuses[device] = status
        self.said.append((device, status))


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def house(make_bus: MakeBus, store: Store, tmp_path: Path) -> AsyncIterator[House]:
    """A house that is not started."""
    house = House(make_bus, store, tmp_path)
    yield house
    await house.stop()
    house.root.unplug()
