"""What everybody may see of the nodes: retained states and statuses, and that of the root.

mesh/node-5/state     what is known of it; at most every ``state_interval_s``
mesh/node-5/status    online or offline: active or away
mesh/root/status      said by the UART edge; offline by us when that edge is gone
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import encode
from patchbay_mesh import rules
from patchbay_mesh.messages import ROOT, SERVICE
from patchbay_mesh.rules import Node

EDGE_PREFIX: Final = f"{SERVICE}-uart-"


class Announcer:
    """Publishes. While the broker is away the next connect does it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed: dict[str, Aggregate[Node]] = {}
        self._told: dict[str, bool] = {}
        bus.listen(bus.topics.unit_status("+"), self._unit_status)

    def changed(self, nodes: Iterable[Aggregate[Node]]) -> None:
        """These are to be published with the next `publish`."""
        for node in nodes:
            self._changed[node.id] = node

    def publish(self) -> None:
        """Publish the states of the nodes that have changed."""
        waiting, self._changed = self._changed, {}
        for node in waiting.values():
            self.state(node)
            if self._told.get(node.id) != node.state.active:
                self.status(node)

    def state(self, node: Aggregate[Node]) -> None:
        """Publish what is known of a node."""
        self._retain(self._bus.topics.state(SERVICE, node.id), encode(rules.state(node.state)))

    def status(self, node: Aggregate[Node]) -> None:
        """Publish whether a node is active."""
        self._told[node.id] = node.state.active
        said = b"online" if node.state.active else b"offline"
        self._retain(self._bus.topics.status(SERVICE, node.id), said)

    def _unit_status(self, message: Message) -> None:
        """An edge that was killed cannot say that its port is nobody's any more."""
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if instance.startswith(EDGE_PREFIX) and message.payload == b"offline":
            self._retain(self._bus.topics.status(SERVICE, ROOT), b"offline")

    def _retain(self, topic: str, payload: bytes) -> None:
        with contextlib.suppress(Unavailable):
            self._bus.post(topic, payload, retain=True)
