"""A whole lantern service in one process, on a real broker, a real store and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import msgspec

from patchbay.bus import Bus, Message
from patchbay.hosts import hosts_of
from patchbay.log import get_logger
from patchbay.messages import encode
from patchbay.net import Limits, Server
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, free_port, until
from patchbay.websocket import Limits as PageLimits
from patchbay.websocket import WebSocketServer
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.domain import LanternDomain
from patchbay_lantern.edge.api import Api
from patchbay_lantern.edge.http_server import HttpServer
from patchbay_lantern.edge.page import MAX_MESSAGE, PageEdge, pages
from patchbay_lantern.edge.tlv import TlvEdge
from patchbay_lantern.messages import ALL, SERVICE
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.store import LanternStore


class Wire:
    """A lantern's end of a connection, for tests that look at the bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hears(self, data: bytes) -> None:
        """The next bytes must be these."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readexactly(len(data)) == data

    async def reads(self) -> bytes:
        """What one read brings."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(65_536)

    async def rest(self) -> bytes:
        """What still comes until the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class House:
    """TLV edges, API, page and domain, each with a bus client of its own, and a watcher."""

    def __init__(
        self, make_bus: MakeBus, kept: LanternStore, registry: Registry = COMMANDS, **settings: Any
    ) -> None:
        self.kept = kept
        self.registry = registry
        self.settings = LanternSettings(**{"answer_s": 10.0, **settings})
        self.watcher = make_bus("watcher")
        self.said: list[dict[str, Any]] = []
        """What was said on ``all/event/...``: the events' names and data."""
        self.state: dict[str, Any] = {}
        """The retained state."""
        self.domain: LanternDomain
        self.tlv: TlvEdge
        self.api: Api
        self.page: PageEdge
        self.port = self.api_port = self.page_port = 0
        self._make_bus = make_bus
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    async def start(self, *parts: str) -> None:
        """Start these parts, or all, and wait until they are online."""
        if not self._stacks:
            topics = self.watcher.topics
            self.watcher.listen(topics.event(SERVICE, ALL, "+"), self._event)
            self.watcher.listen(topics.state(SERVICE, ALL), self._stated)
            self.watcher.start()
            await self.watcher.wait_connected(PATIENCE_S)
        for part in parts or ("tlv", "api", "page", "domain"):
            name, _, instance = part.partition("-")
            stack = self._stacks[part] = contextlib.AsyncExitStack()
            bus = self._make_bus(
                f"lantern-{name}-{instance or 'test'}", durable=name == "domain", announce=True
            )
            stack.push_async_callback(bus.stop)
            await getattr(self, f"_start_{name}")(bus, stack)
            bus.start()
            await bus.set_ready()
            await bus.wait_online(PATIENCE_S)

    async def stop(self, *parts: str) -> None:
        """Stop these parts, or all."""
        for part in parts or tuple(self._stacks):
            await self._stacks.pop(part).aclose()

    async def _start_domain(self, bus: Bus, stack: contextlib.AsyncExitStack) -> None:
        self.domain = await stack.enter_async_context(
            LanternDomain(bus, self.kept, self.settings, self.registry)
        )
        settling = asyncio.create_task(self.domain.settle_for_ever())
        stack.callback(settling.cancel)

    async def _start_tlv(self, bus: Bus, stack: contextlib.AsyncExitStack) -> None:
        self.tlv = edge = TlvEdge(bus, self.settings, self.registry)
        await stack.enter_async_context(edge)
        limits = Limits(
            max_connections=self.settings.max_connections,
            speakers=False,
            idle_timeout_s=float("inf"),
            ended_grace_s=0,
            dead_after_s=self.settings.dead_after_s,
            send_buffer_bytes=self.settings.send_buffer_bytes,
            max_per_address=self.settings.max_per_address,
        )
        server = Server(edge.connected, "127.0.0.1", self.port, limits, get_logger("tlv"))
        edge.server = await stack.enter_async_context(server)
        self.port = server.port

    async def _start_api(self, bus: Bus, stack: contextlib.AsyncExitStack) -> None:
        self.page_port = self.page_port or free_port()
        self.api = Api(bus, self.settings, self.page_port, self.registry)
        server = await stack.enter_async_context(HttpServer(self.api, "127.0.0.1", self.api_port))
        self.api_port = server.port

    async def _start_page(self, bus: Bus, stack: contextlib.AsyncExitStack) -> None:
        self.page = edge = PageEdge(bus, self.registry)
        self.page_port = self.page_port or free_port()
        edge.server = WebSocketServer(
            edge.connected,
            host="127.0.0.1",
            port=self.page_port,
            limits=PageLimits(max_connections=4, max_message_bytes=MAX_MESSAGE),
            log=get_logger("page"),
            pages=pages(self.settings, self.api_port, self.registry),
            hosts=hosts_of(self.settings.hosts),
        )
        await stack.enter_async_context(edge.server)
        await stack.enter_async_context(edge)

    # What tests do

    async def ask(self, name: str, **body: Any) -> dict[str, Any]:
        """A command on the bus, and its whole answer."""
        topic = self.watcher.topics.command(SERVICE, ALL, name)
        payload = await self.watcher.request(topic, encode(body), timeout_s=PATIENCE_S)
        answer: dict[str, Any] = json.loads(payload)
        return answer

    async def tell(self, command: str, value: Any = None) -> dict[str, Any]:
        """Tell all lanterns something; it must be obeyed."""
        answer = await self.ask("set", command=command, value=value)
        assert answer["ok"], answer
        return answer

    async def lantern(self) -> Wire:
        """A lantern whose connection the edge has taken."""
        server = self.tlv.server
        assert server is not None
        before = server.connections
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        await until(lambda: server.connections > before)
        return wire

    def commanded(self) -> list[tuple[str, str | None]]:
        """The commands that were published, in order, a second copy of one left out."""
        told = {one["rev"]: (one["command"], one["value"]) for one in self.said if "rev" in one}
        return list(told.values())

    def _event(self, message: Message) -> None:
        message.ack()
        self.said.append(json.loads(message.payload)["data"])

    def _stated(self, message: Message) -> None:
        message.ack()
        self.state = msgspec.json.decode(message.payload) if message.payload else {}


class MakeHouse:
    """Makes houses; they are stopped after the test."""

    def __init__(self, make_bus: MakeBus, store: Store) -> None:
        self._make_bus = make_bus
        self._store = store
        self.made: list[House] = []

    def __call__(self, registry: Registry = COMMANDS, **settings: Any) -> House:
        house = House(self._make_bus, LanternStore(self._store, 3600), registry, **settings)
        self.made.append(house)
        return house
