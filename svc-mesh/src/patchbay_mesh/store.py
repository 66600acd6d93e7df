"""What the mesh service keeps in MongoDB.

    nodes      one document a node: `rules.Node`, changed by compare-and-set. The truth
    readings   one a value: {_id, node, type, at, data}
    messages   one a message that a node has said: {_id, node, type, at, payload}
    dead       dead letters, for as long as ``[store] events_ttl_s`` says

A fact's ``_id`` follows from the event that told it, so it is there once. ``readings`` and
``messages`` have one index beside that, on ``at``, by which the store lets them go after
``readings_ttl_s``, and by which a history is found: see `MeshStore.history`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from patchbay.inbox import Aggregates
from patchbay.messages import DeadLetter, now
from patchbay.store import Document, Store
from patchbay_mesh.rules import Node

NODES: Final = "nodes"
READINGS: Final = "readings"
MESSAGES: Final = "messages"
DEAD: Final = "dead"

FIRST_LOOK: Final = timedelta(minutes=1)
LOOK_GROWS: Final = 8
"""A history is looked for in spans of time that grow, newest first: what a node said last is found
without a look at what all nodes have said in a month."""


QUICK_S: Final = 0.5
"""A span of time whose documents were removed so quickly is followed by a longer one."""


class MeshStore:
    """The collections of the mesh service."""

    def __init__(self, store: Store, dead_letters_ttl_s: int, readings_ttl_s: int) -> None:
        self._store = store
        self._dead_ttl_s = dead_letters_ttl_s
        self._ttl = timedelta(seconds=readings_ttl_s)
        self._indexed = False
        self.nodes: Aggregates[Node] = Aggregates(store, NODES, Node)

    async def prepare(self) -> bool:
        """Make indexes, and read the nodes: at the start, and those in doubt after a save that
        failed. True if it has read something. Raises Unavailable."""
        if not self._indexed:
            seconds = int(self._ttl.total_seconds())
            for collection in (READINGS, MESSAGES):
                await self._store.ensure_index(collection, [("at", 1)], expireAfterSeconds=seconds)
            await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=self._dead_ttl_s)
            self._indexed = True
        return await self.nodes.load()

    async def save_facts(self, readings: list[Document], messages: list[Document]) -> None:
        """Keep values and messages; those that are kept already stay as they are.

        Raises Unavailable.
        """
        if readings:
            await self._store.insert_new(READINGS, readings)
        if messages:
            await self._store.insert_new(MESSAGES, messages)

    async def history(
        self, node: int, type: str, since: datetime | None, to: datetime | None, limit: int
    ) -> list[Document]:
        """The values of a node of one type, newest first; without ``to`` also those of an edge
        whose clock is ahead of ours. Raises Unavailable."""
        upper = to or max(now(), since or now())
        first = max(since, upper - self._ttl) if since else upper - self._ttl
        found: list[Document] = []
        span, below = FIRST_LOOK, {"$lte": to} if to else {}
        while len(found) < limit and upper >= first:
            lower = max(first, upper - span)
            query: dict[str, Any] = {"at": {"$gte": lower, **below}, "node": node, "type": type}
            sort = [("at", -1), ("_id", -1)]
            found += await self._store.find(READINGS, query, sort=sort, limit=limit - len(found))
            if lower == first:
                break
            upper, below, span = lower, {"$lt": lower}, span * LOOK_GROWS
        return found

    async def remove_facts(
        self, node: int, to: datetime | None, within_s: float
    ) -> tuple[int, int, datetime | None]:
        """Remove the values and messages of a node, newest first, a span of time after another.

        Returns how many of each there were, and up to where it has not come ``within_s``; None: all
        are gone. Raises Unavailable.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        readings = messages = 0
        upper, last, span = to or now(), now() - self._ttl, FIRST_LOOK
        above = {"$lt": to} if to else {}
        while True:
            lower = max(last, upper - span)
            at: dict[str, Any] = above if lower == last else {"$gte": lower, **above}
            query = {"node": node, **({"at": at} if at else {})}
            began = clock()
            readings += await self._store.remove(READINGS, query)
            messages += await self._store.remove(MESSAGES, query)
            if lower == last:
                return readings, messages, None
            upper, above = lower, {"$lt": lower}
            if clock() - started >= within_s:
                return readings, messages, upper
            if clock() - began < QUICK_S:
                span *= LOOK_GROWS

    async def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Raises Unavailable."""
        await self._store.bury(DEAD, letter)


def reading(cause: str, position: int, node: int, type: str, at: datetime, data: bytes) -> Document:
    """The document of a value: its id is what told it, and its place there."""
    return {"_id": f"{cause}:{position:03d}", "node": node, "type": type, "at": at, "data": data}


def message(cause: str, node: int, type: str, at: datetime, payload: bytes) -> Document:
    """The document of a message."""
    return {"_id": cause, "node": node, "type": type, "at": at, "payload": payload}


def newest(documents: Sequence[Document]) -> list[tuple[datetime, bytes]]:
    """When and what, of documents of values."""
    return [(one["at"], bytes(one["data"])) for one in documents]
