"""Which combinators are there, as their edge says on the bus.

allocator/combinator-<n>/state      retained; see `messages.CombinatorState`
status/<instance>                   the edge's own: when it is offline, so are its combinators
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import decode, parse_time
from patchbay_allocator.messages import (
    SERVICE,
    CombinatorState,
    combinator_device,
    combinator_number,
)

EDGE_PREFIX = f"{SERVICE}-combinators"

LISTEN_S = 20.0
"""Silence counts only after we have listened for so long: an edge that was cut off, too, is back by
then (`patchbay.settings.BrokerSettings.backoff_max_s`) and has said what it knows."""


class Presence:
    """What the edges last said. ``changed`` is called when something has."""

    def __init__(
        self, bus: Bus, devices: Iterable[int], listen_s: float, changed: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._devices = frozenset(devices)
        self._listen_s = min(LISTEN_S, listen_s)
        self._changed = changed
        self._states: dict[int, CombinatorState] = {}
        self._edges: dict[str, bool] = {}
        self._connected_at: float | None = None
        self._decoder = msgspec.json.Decoder(CombinatorState)
        self._log = structlog.get_logger("presence").bind(instance=bus.client_id)
        for number in self._devices:
            bus.listen(bus.topics.state(SERVICE, combinator_device(number)), self._said)
        bus.listen(bus.topics.unit_status("+"), self._edge_said)
        bus.on_connect(self._connected)

    def state(self, device: int) -> CombinatorState | None:
        """What is known of a combinator; None while its edge is away."""
        state = self._states.get(device)
        return state if state is not None and self._edges.get(state.edge) else None

    def connected(self) -> frozenset[int]:
        """The combinators that may get a job: those with a connection."""
        return frozenset(
            device
            for device in self._states
            if (state := self.state(device)) is not None and (state.connected or state.online)
        )

    def online(self) -> frozenset[int]:
        """The combinators that are connected and have answered there."""
        return frozenset(
            device
            for device in self._states
            if (state := self.state(device)) is not None and state.online
        )

    def lost_at(self, device: int) -> datetime | None:
        """Since when the connection is gone on which it got what it has in hand."""
        state = self.state(device)
        if state is None or state.lost_at is None:
            return None
        try:
            return parse_time(state.lost_at)
        except ValueError:
            return None

    def settled(self) -> bool:
        """Have we listened for long enough that silence means something?"""
        at = self._connected_at
        loop = asyncio.get_running_loop()
        return self._bus.connected and at is not None and loop.time() - at > self._listen_s

    async def _connected(self) -> None:
        self._connected_at = asyncio.get_running_loop().time()

    def _said(self, message: Message) -> None:
        message.ack()
        address = self._bus.topics.address(message.topic)
        number = combinator_number(address.device) if address else None
        if number is None:
            return
        try:
            self._states[number] = decode(self._decoder, message.payload)
        except msgspec.DecodeError as error:
            self._states.pop(number, None)
            if message.payload:
                self._log.warning("no state", topic=message.topic, error=str(error))
        self._changed()

    def _edge_said(self, message: Message) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if not instance.startswith(EDGE_PREFIX):
            return
        online = message.payload == b"online"
        self._edges[instance] = online
        if not online:
            self._say_offline(instance)
        self._changed()

    def _say_offline(self, edge: str) -> None:
        """An edge that was killed cannot say it of its combinators: we do. One that is back
        corrects us."""
        for device, state in self._states.items():
            if state.edge == edge:
                topic = self._bus.topics.status(SERVICE, combinator_device(device))
                with contextlib.suppress(Unavailable):
                    self._bus.post(topic, b"offline", retain=True)
