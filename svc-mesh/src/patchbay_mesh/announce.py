"""What everybody may see of the nodes: retained states and statuses, and that of the root.

mesh/node-5/state     what is known of it; at most every ``state_interval_s``
mesh/node-5/status    online or offline: active or away
mesh/root/status      said by the UART edge; offline by us when that edge is gone
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from patchbay.bus import Bus, Message
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox import Aggregate, Aggregates
from patchbay.messages import encode
from patchbay_mesh import rules
from patchbay_mesh.messages import ROOT, SERVICE
from patchbay_mesh.rules import Node

EDGE_PREFIX: Final = f"{SERVICE}-uart-"


class Announcer:
    """Publishes. While the broker is away the next connect does it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed: set[str] = set()
        self._told: dict[str, bool] = {}
        bus.listen(bus.topics.unit_status("+"), self._unit_status)

    @property
    def waiting(self) -> bool:
        """Has any node changed since the last `publish`?"""
        return bool(self._changed)

    def changed(self, nodes: Iterable[Aggregate[Node]]) -> None:
        """These are saved, and to be published with the next `publish`."""
        self._changed.update(node.id for node in nodes)

    def publish(self, nodes: Aggregates[Node]) -> None:
        """Publish the states of the nodes that have changed. Hold the nodes' lock, and have them
        loaded: what is published must be what is saved."""
        waiting, self._changed = self._changed, set()
        for id in sorted(waiting):
            node = nodes.get(id)
            if node is None:
                continue
            self.state(node)
            if self._told.get(id) != node.state.active:
                self.status(node)

    def state(self, node: Aggregate[Node]) -> None:
        """Publish what is known of a node."""
        self._retain(self._bus.topics.state(SERVICE, node.id), encode(rules.state(node.state)))

    def status(self, node: Aggregate[Node]) -> None:
        """Publish whether a node is active."""
        self._told[node.id] = node.state.active
        said = b"online" if node.state.active else b"offline"
        self._retain(self._bus.topics.status(SERVICE, node.id), said)

    def clear(self, id: str) -> None:
        """Clear the retained topics of a node that is forgotten. Raises Unavailable."""
        self._changed.discard(id)
        self._told.pop(id, None)
        for topic in (self._bus.topics.state(SERVICE, id), self._bus.topics.status(SERVICE, id)):
            self._bus.post(topic, b"", retain=True)

    def again(self, ids: Iterable[str]) -> None:
        """Publish these with the next `publish`: they could not be forgotten after all."""
        self._changed.update(ids)

    def _unit_status(self, message: Message) -> None:
        """An edge that was killed cannot say that its port is nobody's any more."""
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if instance.startswith(EDGE_PREFIX) and message.payload == b"offline":
            self._retain(self._bus.topics.status(SERVICE, ROOT), b"offline")

    def _retain(self, topic: str, payload: bytes) -> None:
        try:
            self._bus.post(topic, payload, retain=True)
        except Unavailable:
            return
        except (TooLarge, ValueError) as error:  # the other nodes must not wait for it
            self._bus.log.error("state not published", topic=topic[:100], why=str(error)[:200])
