"""Events for documents that are set aside: the collection ``parked``.

    {_id: "<collection>:<document>:<event>", collection, document, n,
     event: {id, source, type, subject, time, sequence, epoch, data}}

They are acknowledged like others, since their source must go on, and wait here until the document
can be read, or is gone. Then they are applied in the order in which they came (``n``), before any
newer one of that document: an aggregate takes an event of a source below its last one for known.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from msgspec import Raw

from patchbay.errors import Unavailable
from patchbay.messages import Event
from patchbay.store import Document, Store

PARKED: Final = "parked"

MAX_PARKED: Final = 10_000
"""Events that wait for one document: a board that reports every 2 s has as many in 5 hours, and by
then somebody has been told."""

REPLAYED: Final = 500
"""Events that are applied at once."""

_FIELDS: Final = ("id", "source", "type", "subject", "time", "sequence", "epoch")

Apply = Callable[[list[Event]], Awaitable[None]]
Failed = Callable[[Event, str], Awaitable[None]]
"""Hears of an event that cannot be parked or applied, and why."""


class Parked:
    """Events that wait for documents of one collection. Every method raises Unavailable."""

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self._waiting: dict[str, int] | None = None
        """How many wait, by document; None: not read yet."""

    async def keep(self, events: Sequence[tuple[str, Event]], failed: Failed) -> None:
        """Store events, each with the id of its document; those stored already stay as they are."""
        if not events:
            return
        waiting = await self._load()
        first = time.time_ns()
        fitting: list[Document] = []
        for position, (document, event) in enumerate(events):
            if waiting.get(document, 0) >= MAX_PARKED:
                await failed(
                    event, f"{MAX_PARKED} events wait for the unreadable document {document}"
                )
                continue
            waiting[document] = waiting.get(document, 0) + 1
            fitting.append(self._parked(document, event, first + position))
        await self._store.insert_new(PARKED, fitting)

    async def replay(self, faults: Collection[str], apply: Apply, failed: Failed) -> bool:
        """Apply what waits for documents that are not in ``faults`` any more. True if any did.

        ``apply`` must know an event that it has applied before. Apart from Unavailable, what it
        raises costs the one event that is at fault.
        """
        due = [one for one in await self._load() if one not in faults]
        for document in due:
            query = {"collection": self._collection, "document": document}
            while found := await self._store.find(PARKED, query, sort=[("n", 1)], limit=REPLAYED):
                await self._apply([_event(one) for one in found], apply, failed)
                await self._store.remove(PARKED, {"_id": {"$in": [one["_id"] for one in found]}})
            del (await self._load())[document]
        return bool(due)

    async def _apply(self, events: list[Event], apply: Apply, failed: Failed) -> None:
        try:
            await apply(events)
        except Unavailable:
            raise
        except Exception:
            for event in events:
                try:
                    await apply([event])
                except Unavailable:
                    raise
                except Exception as error:
                    await failed(event, f"{type(error).__name__}: {error}")

    async def _load(self) -> dict[str, int]:
        if self._waiting is None:
            waiting: dict[str, int] = {}
            for one in await self._store.find(PARKED, {"collection": self._collection}):
                waiting[one["document"]] = waiting.get(one["document"], 0) + 1
            self._waiting = waiting
        return self._waiting

    def _parked(self, document: str, event: Event, n: int) -> Document:
        fields = {name: getattr(event, name) for name in _FIELDS}
        return {
            "_id": f"{self._collection}:{document}:{event.id}",
            "collection": self._collection,
            "document": document,
            "n": n,
            "event": {**fields, "data": bytes(event.data)},
        }


def _event(parked: Document) -> Event:
    fields: dict[str, Any] = dict(parked["event"])
    return Event(**{**fields, "data": Raw(bytes(fields["data"]))})
