"""The latest values of all nodes, as the bus says: `[GET]` is answered from here.

Events, alone or in batches, come in the order in which nodes spoke: what one tells replaces what
was known, whatever its clock says. A state tells what was known before we came, and what was put in
a value's place: it counts where it is as new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from patchbay.bus import Bus
from patchbay.bus import Message as BusMessage
from patchbay.forms import DataReader, carries_nothing, decode_events
from patchbay.messages import Event, decode
from patchbay_mesh.messages import (
    DATA,
    MESSAGE,
    NETWORK,
    ROOT,
    SERVICE,
    Data,
    Message,
    Network,
    State,
    node_address,
    type_bytes,
)

MAX_BYTES: Final = 6_291_456
"""Bytes that all values may take: the unit has 36 MiB in a container, and needs some 28 itself."""

NODE_BYTES: Final = 600
VALUE_BYTES: Final = 360
"""What a node and a value take beside the value's own bytes, in CPython 3.11."""

ROOM: Final = 0.9
"""To so much of what it may have the cache shrinks when it is full."""

LOOK_PERIOD_S: Final = 1.0
"""While all nodes are in use, it is looked this often whether one of them may make room."""

MAX_SOURCES: Final = 64
"""Sources of events whose numbers are remembered; of more, those not heard for longest go. One root
has one edge."""

ACTIVE: Final = "active"
BATCH: Final = "batch"

_data = DataReader(Data)
_message = DataReader(Message)
_network = DataReader(Network)
_state = msgspec.json.Decoder(State)


@dataclass(slots=True)
class KnownNode:
    """What is known of a node here."""

    active: bool = False
    last_contact: str = ""
    confirmed: bool = False
    """The domain has published a state of it: it is not only somebody's word."""
    order: int = 0
    """Rises with each word of any node."""
    values: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    """By type: when it was captured, and what. The one that was told last stands last."""

    @property
    def size(self) -> int:
        """What it takes, as far as we can tell."""
        return NODE_BYTES + sum(VALUE_BYTES + len(data) for _, data in self.values.values())


class Once:
    """Tells an event that an edge sends again: its numbers rise."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}

    def is_new(self, event: Event) -> bool:
        """Is it the first time? One without a number is taken as it comes."""
        if not event.sequence:
            return True
        epoch, sequence = self._seen.pop(event.source, ("", 0))
        new = epoch != event.epoch or event.sequence > sequence
        self._seen[event.source] = (event.epoch, event.sequence) if new else (epoch, sequence)
        if len(self._seen) > MAX_SOURCES:
            del self._seen[next(iter(self._seen))]
        return new


class Cache:
    """Follows the bus. ``on_message`` gets each message of a node, once and in order. Of each node
    the last ``max_types`` types are known. Beyond ``max_nodes`` and ``max_bytes`` nodes are
    forgotten: first those that the domain does not know, then those that are away, longest silent
    first. An active one that the domain knows never makes room for one more node."""

    def __init__(
        self,
        bus: Bus,
        on_message: Callable[[Message], None],
        max_types: int,
        max_bytes: int = MAX_BYTES,
        max_nodes: int = 1000,
    ) -> None:
        self.nodes: dict[int, KnownNode] = {}
        self.not_understood = 0
        self.refused = 0
        """Words of nodes that there is no room for."""
        self._on_message = on_message
        self._max_types = max_types
        self._max_bytes = max_bytes
        self._max_nodes = max_nodes
        self._bytes = 0
        self._order = 0
        self._look_at = 0.0
        self._log_at = 0.0
        self._once = Once()
        self._restarted = ""
        """When the root last said that it has restarted."""
        self._log = structlog.get_logger("cache").bind(instance=bus.client_id)
        topics = bus.topics
        bus.listen(topics.state(SERVICE, "+"), self._stated)
        for name in (DATA, MESSAGE, BATCH):
            bus.listen(topics.event(SERVICE, "+", name), self._told)
        bus.listen(topics.event(SERVICE, ROOT, NETWORK), self._told)
        self._topics = topics

    @property
    def active(self) -> int:
        """How many nodes are active."""
        return sum(node.active for node in self.nodes.values())

    def latest(self, node: int, type: bytes) -> bytes | None:
        """The latest value of a node that is known; None if it has none of this type."""
        found = self.nodes[node].values.get(type)
        return found[1] if found else None

    def all_latest(self, type: bytes, limit: int) -> list[tuple[int, bytes]]:
        """The latest values of all active nodes, by address, if they have the newest's length."""
        found = sorted(
            (node, *known.values[type])
            for node, known in self.nodes.items()
            if known.active and type in known.values
        )
        if not found:
            return []
        newest = max(found, key=lambda one: one[1])
        return [(node, data) for node, _, data in found if len(data) == len(newest[2])][:limit]

    # What the bus says

    def _stated(self, message: BusMessage) -> None:
        message.ack()
        address = self._topics.address(message.topic)
        node = node_address(address.device) if address is not None else None
        if node is None:
            return
        if not message.payload:
            self._forget(node)
            return
        try:
            state = decode(_state, message.payload)
            values = {
                type_bytes(type): (one.time, bytes.fromhex(one.hex))
                for type, one in state.values.items()
            }
        except (msgspec.DecodeError, ValueError) as error:
            self._misunderstood(message, error)
            return
        known = self._known(node)
        if known is None:
            return
        known.confirmed = True
        if state.last_contact >= known.last_contact:
            known.last_contact = state.last_contact
            # What was heard in the millisecond of a restart was heard after it: the state says so.
            known.active = state.status == ACTIVE and state.last_contact >= self._restarted
        for type, value in values.items():
            if type not in known.values or value[0] >= known.values[type][0]:
                self._put(known, type, value)

    def _told(self, message: BusMessage) -> None:
        message.ack()
        try:
            for event in decode_events(message.payload, message.content_type):
                if self._once.is_new(event):
                    self._take(event)
        except (msgspec.DecodeError, ValueError) as error:
            self._misunderstood(message, error)

    def _take(self, event: Event) -> None:
        name = event.type.rpartition(".")[2]
        if carries_nothing(event):
            return
        if name == DATA:
            data = _data.read(event)
            known = self._heard(data.node, event.time)
            if known is None:
                return
            for value in data.values:
                self._put(known, type_bytes(value.type), (event.time, value.data))
        elif name == NETWORK:
            for member in _network.read(event).nodes:
                self._heard(member.node, event.time)
        elif name == MESSAGE:
            said = _message.read(event)
            if said.means_restart:
                self._restarted = event.time
                for node in self.nodes.values():
                    node.active = False
            elif said.node in self.nodes:
                self._heard(said.node, event.time)
            self._on_message(said)

    def _heard(self, node: int, at: str) -> KnownNode | None:
        known = self._known(node)
        if known is not None:
            known.last_contact = at
            known.active = True
        return known

    def _known(self, node: int) -> KnownNode | None:
        """The node, new if it must be; None if there is no room for it."""
        known = self.nodes.get(node)
        if known is None:
            if len(self.nodes) >= self._max_nodes and not self._make_place():
                self.refused += 1
                return None
            known = self.nodes[node] = KnownNode()
            self._bytes += NODE_BYTES
        self._order += 1
        known.order = self._order
        return known

    def _make_place(self) -> bool:
        """Forget some nodes that may make room for another. False: there is none."""
        if (moment := time.monotonic()) < self._look_at:
            return False
        found = [
            node
            for node in sorted(self.nodes, key=self._rank)
            if not (self.nodes[node].confirmed and self.nodes[node].active)
        ]
        if not found:
            self._look_at = moment + LOOK_PERIOD_S
            return False
        for node in found[: max(1, int(self._max_nodes * (1 - ROOM)))]:
            self._forget(node)
        self._say_full()
        return True

    def _rank(self, node: int) -> tuple[bool, bool, int]:
        """Who is forgotten first."""
        known = self.nodes[node]
        return known.confirmed, known.active, known.order

    def _say_full(self) -> None:
        if (moment := time.monotonic()) >= self._log_at:
            self._log_at = moment + LOOK_PERIOD_S
            self._log.warning("nodes forgotten: the cache is full", known=len(self.nodes))

    def _forget(self, node: int) -> None:
        known = self.nodes.pop(node, None)
        if known is not None:
            self._bytes -= known.size

    def _put(self, known: KnownNode, type: bytes, value: tuple[str, bytes]) -> None:
        before = known.values.pop(type, None)
        if before is None and len(known.values) >= self._max_types:
            before = known.values.pop(next(iter(known.values)))
        known.values[type] = value
        self._bytes += VALUE_BYTES + len(value[1])
        if before is not None:
            self._bytes -= VALUE_BYTES + len(before[1])
        if self._bytes > self._max_bytes:
            self._make_room(known)

    def _make_room(self, kept: KnownNode) -> None:
        """Forget nodes until there is room again, but not this one."""
        for node in sorted(self.nodes, key=self._rank):
            if self._bytes <= self._max_bytes * ROOM:
                break
            if self.nodes[node] is not kept:
                self._forget(node)
        self._say_full()

    def _misunderstood(self, message: BusMessage, error: Exception) -> None:
        self.not_understood += 1
        self._log.warning("not understood", topic=message.topic, error=str(error))
