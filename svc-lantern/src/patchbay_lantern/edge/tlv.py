"""The TLV edge: lanterns on TCP, told what the domain publishes.

One command is one send to each lantern, whole. The commands of the present state are paced: there
are lanterns that take one command from each read. A lantern that does not read holds nobody up:
what it misses is not stored, and when it reads again it gets the present state. What lanterns send
is read and dropped.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Final, Self

from patchbay.bus import Bus
from patchbay.messages import encode as encode_message
from patchbay.net import Limits, Peer, Server
from patchbay.runtime import Unit
from patchbay.sockets import allow_connections
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.edge.following import Follower
from patchbay_lantern.messages import ALL, SERVICE, EdgeState, Order
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire.tlv import Frame, encode

MAX_LATER: Final = 16
"""Commands that may wait for the pauses between them; with one more the present state replaces
them."""

MIN_RETRY_S: Final = 0.02
MAX_RETRY_S: Final = 1.0
"""How often we look whether a lantern's machine has acknowledged a command, when it has not."""

SAID_WINDOW_S: Final = 1.0
"""What a lantern may say is counted over so long."""


async def run(unit: Unit) -> None:
    """The unit ``lantern.tlv``."""
    settings = unit.settings(LanternSettings)
    async with TlvEdge(unit.bus, settings) as edge:
        limits = Limits(
            max_connections=allow_connections(settings.max_connections, unit.log),
            idle_timeout_s=math.inf,
            ended_grace_s=0,
            dead_after_s=settings.dead_after_s,
            send_buffer_bytes=settings.send_buffer_bytes,
            max_per_address=settings.max_per_address,
            trusted_proxies=tuple(unit.config.runtime.trusted_proxies),
            speakers=False,
        )
        port = unit.config.port(settings.port)
        async with Server(
            edge.connected, unit.listen_host, port, limits, unit.log, unit.tasks
        ) as server:
            edge.server = server
            unit.info_sources["connections"] = lambda: server.connections
            unit.info_sources["refused"] = lambda: server.refused
            unit.info_sources["dropped"] = lambda: server.dropped
            unit.info_sources["commands"] = lambda: edge.commands
            await unit.serving()


class TlvEdge:
    """Tells each connected lantern each command. Enter it before the bus connects."""

    def __init__(self, bus: Bus, settings: LanternSettings, registry: Registry = COMMANDS) -> None:
        self.settings = settings
        self.server: Server | None = None
        self.commands = 0
        """Commands told since the start."""
        self.present: list[bytes] = []
        """What brings a lantern that knows nothing to the present state, one send each."""
        self._bus = bus
        self._registry = registry
        self._lanterns: set[LanternSession] = set()
        self._follower = Follower(bus, self._tell, self._tell_all_again, registry)
        self._topic = bus.topics.state(SERVICE, bus.client_id)
        self._stated_at = -math.inf
        self._restating: asyncio.Handle | None = None
        bus.listen(bus.topics.state(SERVICE, ALL), self._follower.state)

    async def __aenter__(self) -> Self:
        self._state()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._restating is not None:
            self._restating.cancel()

    # Lanterns

    def connected(self, peer: Peer) -> LanternSession:
        """A lantern has connected."""
        session = LanternSession(self, peer)
        self._lanterns.add(session)
        self._count()
        if self.settings.send_state:
            session.catch_up()
        return session

    def forget(self, session: LanternSession) -> None:
        """A lantern has gone."""
        self._lanterns.discard(session)
        self._count()

    def drop(self, peer: Peer) -> None:
        """A lantern does not read, or says too much."""
        if self.server is not None:
            self.server.drop(peer)

    # Commands

    def _tell(self, order: Order) -> None:
        self._update()
        self.commands += 1
        data = self._bytes(order)
        for lantern in list(self._lanterns):
            lantern.tell(data)

    def _tell_all_again(self) -> None:
        began = not self.present
        self._update()
        if began and not self.settings.send_state:  # nobody has missed what was told before us
            return
        for lantern in list(self._lanterns):
            lantern.catch_up()

    def _update(self) -> None:
        self.present = [self._bytes(order) for order in self._follower.for_a_lantern]

    def _bytes(self, order: Order) -> bytes:
        type, value = self._registry.pack(order)
        return encode(Frame(type, value))

    # How many there are

    def _count(self) -> None:
        """Say how many lanterns there are: now, or soon if it was just said."""
        if self._restating is not None:
            return
        loop = asyncio.get_running_loop()
        due_s = self._stated_at + self.settings.state_interval_s - loop.time()
        if due_s <= 0:
            self._restating = loop.call_soon(self._state)
        else:
            self._restating = loop.call_later(due_s, self._state)

    def _state(self) -> None:
        self._restating = None
        self._stated_at = asyncio.get_running_loop().time()
        state = EdgeState(edge=self._bus.client_id, lanterns=len(self._lanterns))
        self._bus.keep(self._topic, encode_message(state))


class LanternSession:
    """One connection of a lantern."""

    __slots__ = (
        "_edge",
        "_later",
        "_missed",
        "_peer",
        "_said",
        "_said_since",
        "_state_left",
        "_timer",
    )

    def __init__(self, edge: TlvEdge, peer: Peer) -> None:
        self._edge = edge
        self._peer = peer
        self._missed = 0
        self._said = 0
        self._said_since = 0.0
        self._later: list[bytes] = []
        """Commands that follow, each after a pause: the present state, and what came since."""
        self._state_left = 0
        """How many of those, the first ones, are the present state."""
        self._timer: asyncio.TimerHandle | None = None
        peer.on_drained(self._reads_again)

    def tell(self, data: bytes) -> None:
        """Send one command, whole, or let the lantern miss it while it does not read.

        While the present state is being sent the command follows that, so that none overtakes."""
        if self._timer is not None:
            self._later.append(data)
            if len(self._later) > MAX_LATER:
                self._queue_state()
            return
        self._send(data)

    def catch_up(self) -> None:
        """Bring the lantern to the present state, one command after the other."""
        self._queue_state()
        if self._timer is None:
            self._send_next(self._edge.settings.send_pause_s)

    def _queue_state(self) -> None:
        self._later = list(self._edge.present)
        self._state_left = len(self._later)

    def _send_next(self, pause_s: float) -> None:
        """Send the next command that waits, if the lantern's machine has the one before; the pause
        begins when it has, since the kernel joins what it has to send again."""
        self._timer = None
        if not self._later or self._peer.closing:
            return
        next_s = self._edge.settings.send_pause_s
        if not self._peer.waiting_bytes and self._peer.unacknowledged_bytes:
            next_s = min(max(2 * pause_s, MIN_RETRY_S), MAX_RETRY_S)
        else:
            self._send(self._later.pop(0))
            if not self._state_left and not self._later:
                return  # a live command was the last: those that follow it do not wait
            self._state_left = max(0, self._state_left - 1)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(next_s, self._send_next, next_s)

    def _send(self, data: bytes) -> None:
        if not self._peer.waiting_bytes:
            self._peer.write(data)
            return
        if self._peer.closing:
            return
        self._missed += len(data)
        if self._missed > self._edge.settings.backlog_bytes:
            self._edge.drop(self._peer)

    def received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said_since > SAID_WINDOW_S:
            self._said, self._said_since = 0, now
        self._said += len(data)
        if self._said > self._edge.settings.max_said_bytes:
            self._edge.drop(self._peer)

    def lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._edge.forget(self)

    def _reads_again(self) -> None:
        if self._missed:
            self._missed = 0
            self.catch_up()
