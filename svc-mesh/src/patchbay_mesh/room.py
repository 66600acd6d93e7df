"""Which nodes there is room for: a root, or a client of the bus, can name 65,536 of them.

    active, or known for a day    keeps its place
    away, and known for less      makes room for a new one, longest away first
    away for ``nodes_ttl_s``      is forgotten

A node that finds no place is refused: what it reports is counted, and not stored. A node that is
forgotten, for whatever reason, loses its document and its retained topics; what it has reported
stays for as long as ``readings_ttl_s`` says. When it reports again it is new.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import structlog

from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import now, rfc3339
from patchbay_mesh import rules
from patchbay_mesh.announce import Announcer
from patchbay_mesh.messages import node_address
from patchbay_mesh.recent import Recent
from patchbay_mesh.rules import Node
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.store import MeshStore

PIECE: Final = 100
"""Nodes that are forgotten at a time: each has two retained topics to clear."""

SPARE: Final = 20
"""Room is made for a twentieth of all nodes at least, so that not each newcomer of a flood looks
through all of them."""

TTL_PERIOD_S: Final = 60.0
"""How often nodes are looked for that have been away for too long."""

LOG_PERIOD_S: Final = 10.0
"""How often refused reports are logged, with their number."""


class Room:
    """Makes room and forgets. Hold the nodes' lock, and have them loaded, for all but `trim`."""

    def __init__(
        self, kept: MeshStore, announcer: Announcer, recent: Recent, settings: MeshSettings
    ) -> None:
        self.refused = 0
        """Reports of nodes that there was no room for."""
        self.forgotten = 0
        """Nodes that have made room, or were away for too long."""
        self._nodes = kept.nodes
        self._announcer = announcer
        self._recent = recent
        self._settings = settings
        self._sizes: dict[str, int] = {}
        self._size = 0
        self._trimmed: set[str] = set()
        self._ttl_at = 0.0
        self._log_at = 0.0
        self._log = structlog.get_logger("room")
        self._nodes.trim = self.trim

    @property
    def full(self) -> bool:
        """Is there no place for one more?"""
        return len(self._nodes) >= self._settings.max_nodes

    def trim(self, known: dict[str, Aggregate[Node]]) -> None:
        """While the store is read: take out those that would make room. They stay in the store
        until `tick` has forgotten them."""
        excess = len(known) - self._settings.max_nodes
        for node in self._evictable(known.values(), excess) if excess > 0 else []:
            self._trimmed.add(node.id)
            del known[node.id]

    def count(self) -> None:
        """Count what the latest values take, after the nodes were read."""
        self._sizes = {node.id: rules.size(node.state) for node in self._nodes}
        self._size = sum(self._sizes.values())

    def shrink(self, changed: Iterable[Aggregate[Node]]) -> None:
        """While the latest values of all nodes take too much, those that have changed keep their
        share at most. Call it before they are saved."""
        some = {node.id: node for node in changed}
        self._resize(some.values())
        if self._size <= self._settings.values_bytes:
            return
        share = self._settings.values_bytes // self._settings.max_nodes
        for id in sorted(some, key=self._sizes.__getitem__, reverse=True):
            if self._size <= self._settings.values_bytes or self._sizes[id] <= share:
                return
            rules.shrink(some[id].state, share)
            self._resize([some[id]])

    def _resize(self, nodes: Iterable[Aggregate[Node]]) -> None:
        for node in nodes:
            size = rules.size(node.state)
            self._size += size - self._sizes.get(node.id, 0)
            self._sizes[node.id] = size

    async def make(self, ids: set[str]) -> None:
        """Make room for those of these nodes that are new, as far as possible. Raises Unavailable;
        also while the broker is away, since retained topics have to be cleared."""
        back = self._trimmed & ids
        if back:
            self._trimmed -= back
            self._nodes.doubt(back)
            await self._nodes.load()
        new = sum(self._nodes.get(id) is None for id in ids)
        excess = len(self._nodes) + new - self._settings.max_nodes
        if excess <= 0 or not (new or back):
            return
        others = (node for node in self._nodes if node.id not in ids)
        victims = [
            node.id
            for node in self._evictable(others, max(excess, self._settings.max_nodes // SPARE))
        ]
        if victims:
            await self.forget(victims)
            self.forgotten += len(victims)
            self._log.info("nodes forgotten to make room", nodes=len(victims), all=self.forgotten)

    def refuse(self, node: int) -> None:
        """Count a report of a node that there is no room for."""
        self.refused += 1
        if (moment := time.monotonic()) >= self._log_at:
            self._log_at = moment + LOG_PERIOD_S
            self._log.warning(
                "report refused: max_nodes are known, and all are in use",
                node=node,
                max_nodes=self._settings.max_nodes,
                all=self.refused,
            )

    async def forget(self, ids: Iterable[str]) -> int:
        """Clear the retained topics of these nodes, and remove their documents. Returns how many
        there were. Raises Unavailable; then they are published again."""
        gone = list(ids)
        try:
            for id in gone:
                self._announcer.clear(id)
            removed = await self._nodes.remove(gone)
        except Unavailable:
            self._announcer.again(gone)
            raise
        for id in gone:
            self._size -= self._sizes.pop(id, 0)
        addresses = {node_address(id) for id in gone}
        self._recent.forget({address for address in addresses if address is not None})
        return removed

    async def tick(self) -> None:
        """Forget, a piece at a time, what was trimmed, and who was away for too long. Raises
        Unavailable."""
        if self._trimmed:
            some = sorted(self._trimmed)[:PIECE]
            await self.forget(some)
            self._trimmed.difference_update(some)
            self.forgotten += len(some)
        ttl_s = self._settings.nodes_ttl_s
        if not ttl_s or (moment := time.monotonic()) < self._ttl_at:
            return
        limit = rfc3339(now() - timedelta(seconds=ttl_s))
        old = [one.id for one in self._nodes if _at_rest(one) and one.state.last_contact < limit]
        if old:
            await self.forget(old[:PIECE])
            self.forgotten += len(old[:PIECE])
            self._log.info("nodes forgotten: away for too long", nodes=len(old[:PIECE]))
        if len(old) <= PIECE:
            self._ttl_at = moment + TTL_PERIOD_S

    @property
    def due(self) -> bool:
        """Has `tick` anything to do?"""
        return bool(self._trimmed) or (
            bool(self._settings.nodes_ttl_s) and time.monotonic() >= self._ttl_at
        )

    def _evictable(self, nodes: Iterable[Aggregate[Node]], limit: int) -> list[Aggregate[Node]]:
        """At most so many nodes that may be forgotten for a new one, longest away first."""
        found = [one for one in nodes if _at_rest(one) and not rules.established(one.state)]
        found.sort(key=lambda one: one.state.last_contact)
        return found[:limit]


def _at_rest(node: Aggregate[Node]) -> bool:
    """It is away, and that has been published."""
    return not node.state.active and not node.outgoing
