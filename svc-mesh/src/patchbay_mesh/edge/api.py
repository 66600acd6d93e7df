"""The unit of the socket API: what clients ask is answered from the cache, commands go to the root
over the bus, and what nodes say goes to who listens.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog

from patchbay.bus import Bus
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.messages import encode, event_type, new_event, new_id
from patchbay.net import Limits, Peer, Server
from patchbay.runtime import Unit
from patchbay_mesh.edge.cache import Cache
from patchbay_mesh.edge.session import ApiSession
from patchbay_mesh.messages import (
    LOG,
    MONITOR,
    ROBOTS,
    ROOT,
    SERVICE,
    Log,
    Message,
    Raw,
    Robots,
    Send,
    type_bytes,
)
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.wire import socket_api as wire
from patchbay_mesh.wire.content import RESPONSE
from patchbay_mesh.wire.uart import MAX_MESSAGE, Frame

ANSWER_GRACE_S: Final = 1.0
"""A peer that has said all waits this much longer than a command may take."""


KERNEL_BYTES: Final = 65_536
"""What the kernel may hold for one client: an answer about all nodes. It counts as the unit's
memory, too."""

LOG_PERIOD_S: Final = 1.0

NOT_NOW: Final = frozenset({"serial_not_ready", "too_late", "unconfirmed", "cancelled"})
"""Codes of the edge that say nothing against the command itself."""


async def run(unit: Unit) -> None:
    """The unit ``mesh.api``."""
    settings = unit.settings(MeshSettings)
    api = Api(unit.bus, settings)
    limits = Limits(
        max_connections=settings.max_connections,
        idle_timeout_s=settings.idle_timeout_s,
        write_buffer_bytes=settings.listener_buffer_bytes,
        send_buffer_bytes=KERNEL_BYTES,
        ended_grace_s=settings.command_timeout_s + ANSWER_GRACE_S,
        max_per_address=settings.max_per_address,
        trusted_proxies=tuple(unit.config.runtime.trusted_proxies),
    )
    port = unit.config.port(settings.port)
    async with Server(
        api.connected, unit.listen_host, port, limits, unit.log, unit.tasks
    ) as server:
        unit.info_sources["connections"] = lambda: server.connections
        unit.info_sources["listeners"] = lambda: len(api.listeners)
        unit.info_sources["listeners_dropped"] = lambda: server.dropped
        unit.info_sources["crowded_out"] = lambda: api.crowded
        unit.info_sources["nodes"] = lambda: len(api.cache.nodes)
        unit.info_sources["not_understood"] = lambda: api.cache.not_understood
        await unit.serving()


class Api:
    """Answers the requests of all sessions."""

    def __init__(self, bus: Bus, settings: MeshSettings) -> None:
        self.settings = settings
        self.end_mark = settings.end_mark.encode()
        self.cache = Cache(
            bus, self._heard, settings.max_types, settings.cache_bytes, settings.max_nodes
        )
        self.listeners: set[ApiSession] = set()
        self.crowded = 0
        """Clients that were dropped because too much waited for all together."""
        self._unread: set[Peer] = set()
        self._log_at = 0.0
        self._bus = bus
        self._log = structlog.get_logger("api").bind(instance=bus.client_id)

    def connected(self, peer: Peer) -> ApiSession:
        """A client has connected."""
        return ApiSession(self, peer)

    def spawn(
        self, work: Coroutine[Any, Any, None], failed: Callable[[Exception], None]
    ) -> asyncio.Task[None]:
        """Run the requests of one session, which alone is told of a failure."""
        return self._bus.tasks.spawn(work, "requests of a client", failed=failed)

    def crashed(self, peer: str, error: Exception) -> None:
        """A request raised: our own mistake."""
        self._log.error("request failed", peer=peer, exc_info=error)

    def unread(self, *peers: Peer) -> None:
        """These have not read all that was written. While too much waits for all clients together,
        drop the one that lets most wait."""
        self._unread.update(peers)
        waiting = {peer: peer.waiting_bytes for peer in self._unread}
        self._unread = {peer for peer, size in waiting.items() if size}
        total = sum(waiting.values())
        while total > self.settings.buffers_bytes:
            worst = max(waiting, key=waiting.__getitem__)
            total -= waiting.pop(worst)
            self._unread.discard(worst)
            self.crowded += 1
            worst.abort()
            if (moment := time.monotonic()) >= self._log_at:
                self._log_at = moment + LOG_PERIOD_S
                self._log.warning(
                    "client dropped: too much waits for all", peer=worst.address, all=self.crowded
                )

    # What is answered at once

    def answer(self, asked: wire.Asked) -> bytes | None:
        """The answer; None if it takes a while: see `perform`."""
        match asked:
            case wire.Get(type, node):
                return self._get(type, node)
            case wire.Refused(text):
                return wire.refused(text)
            case wire.Call(b"ACT-C"):
                return wire.accepted(bytes([min(self.cache.active, 255)]))
            case wire.Call(b"NSTAT"):
                return wire.accepted(self._status())
        return None

    def _get(self, type: bytes, node: int) -> bytes:
        if node == 0:
            found = self.cache.all_latest(type, wire.MAX_LISTED)
            return wire.values(type, found) if found else wire.refused(wire.DATA_TYPE_NOT_FOUND)
        if node not in self.cache.nodes:
            return wire.refused(wire.NODE_NOT_FOUND)
        data = self.cache.latest(node, type)
        if data is None:
            return wire.refused(wire.DATA_TYPE_NOT_FOUND)
        return wire.values(type, [(node, data)])

    def _status(self) -> bytes:
        nodes = sorted(self.cache.nodes.items())
        return encode(
            {
                "node_amount": len(nodes),
                "node_addr_list": [address for address, _ in nodes],
                "node_status_list": [int(node.active) for _, node in nodes],
            }
        )

    # What takes a while

    async def perform(self, asked: wire.Asked) -> bytes | None:
        """Carry a request out. Returns the answer; None when its outcome is unknown, for which
        the wire has no word."""
        match asked:
            case wire.Raw(content):
                return await self._to_root("raw", Raw(content.hex()))
            case wire.Call(b"W-LOG", payload=payload):
                return self._log_line(payload.decode("utf-8", "replace"))
            case wire.Call(b"W-RBT", payload=payload):
                return self._robots(payload)
            case wire.Call(wire.REPLY, node, payload):
                if len(payload) > MAX_MESSAGE - len(RESPONSE):
                    return wire.refused(wire.BAD_REQUEST)
                send = Send("SEND-", node=node, hex=(RESPONSE + payload).hex())
                return await self._to_root("send", send)
            case wire.Call(name, node, payload) if wire.COMMANDS[name] == "address and message":
                send = Send(name.decode(), node=node, hex=payload.hex())
                return await self._to_root("send", send)
            case wire.Call(name):
                return await self._to_root("send", Send(name.decode()))
        return wire.refused(wire.UNKNOWN_COMMAND)

    async def _to_root(self, name: str, body: msgspec.Struct) -> bytes | None:
        """Ask the edge at the serial port. After a refusal nothing is ever written there."""
        timeout_s = self.settings.command_timeout_s
        if not self._bus.connected:
            return wire.refused(wire.SERIAL_NOT_READY)
        topic = self._bus.topics.command(SERVICE, ROOT, name)
        try:
            payload = await self._bus.request(
                topic,
                encode(body),
                timeout_s=timeout_s,
                expiry_s=math.ceil(timeout_s),
                actuates=True,
            )
            outcome: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
        except (Unavailable, TimeoutError, Rejected) as error:
            self._log.warning("command not sent", command=name, why=str(error))
            return wire.refused(wire.SERIAL_NOT_READY)
        except (OutcomeUnknown, msgspec.DecodeError) as error:
            self._log.warning("outcome unknown", command=name, why=str(error))
            return None
        if outcome.get("ok") is True:
            return wire.accepted()
        code = (outcome.get("error") or {}).get("code")
        return wire.refused(wire.SERIAL_NOT_READY if code in NOT_NOW else wire.BAD_REQUEST)

    def _log_line(self, text: str) -> bytes:
        event = new_event(
            id=new_id(),
            source=self._bus.client_id,
            type=event_type(SERVICE, LOG),
            subject=MONITOR,
            data=Log(text),
        )
        return self._say(self._bus.topics.event(SERVICE, MONITOR, LOG), event)

    def _robots(self, payload: bytes) -> bytes:
        said = msgspec.json.decode(payload)
        if isinstance(said, dict) and isinstance(said.get("robots"), list):
            said = said["robots"]
        robots = Robots(said if isinstance(said, list) else [said])
        return self._say(self._bus.topics.state(SERVICE, ROBOTS), encode(robots), retain=True)

    def _say(self, topic: str, payload: bytes, *, retain: bool = False) -> bytes:
        """Publish for the monitor. While the broker is away nobody could see it: refused."""
        try:
            self._bus.post(topic, payload, retain=retain)
        except Unavailable as error:
            self._log.warning("not said", topic=topic, why=str(error))
            return wire.refused(wire.BAD_REQUEST)
        return wire.accepted()

    # Who listens

    def _heard(self, message: Message) -> None:
        if not self.listeners:
            return
        frame = Frame(message.node, type_bytes(message.type), message.payload)
        plain, counted = wire.pushed(frame), wire.pushed(frame, lengths=True)
        behind = [
            listener.peer
            for listener in list(self.listeners)
            if not listener.push(counted if listener.lengths else plain)
        ]
        if behind:
            self.unread(*behind)
