"""Events for documents that are set aside: the collection ``parked``.

    {_id: "<collection>:<document>:<event>", collection, document, n,
     event: {id, source, type, subject, time, sequence, epoch, data}}

They are acknowledged like others, since their source must go on, and wait here until the document
can be read, or is gone. Then they are applied in the order in which they came (``n``), before any
newer one of that document: an aggregate takes an event of a source below its last one for known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import structlog
from msgspec import Raw, Struct

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.forms import in_json
from patchbay.inbox.aggregates import RECHECK_S, Aggregate, Aggregates
from patchbay.inbox.set_aside import SetAside
from patchbay.messages import Event
from patchbay.store import Document, Store

T = TypeVar("T", bound=Struct)

PARKED: Final = "parked"

UNAUTHORIZED: Final = 13
"""MongoDB's code for what a user may not do."""

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
            for one in await self._find_all():
                waiting[one["document"]] = waiting.get(one["document"], 0) + 1
            self._waiting = waiting
        return self._waiting

    async def _find_all(self) -> list[Document]:
        try:
            return await self._store.find(PARKED, {"collection": self._collection})
        except Unavailable as error:
            if getattr(error.__cause__, "code", None) != UNAUTHORIZED:
                raise
            # A user that an older version has set up: then nothing was ever parked.
            return []

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


class Keeper(Generic[T]):
    """Stands between an inbox and a domain: `apply` passes on events whose documents can be read.

    Events for a document that is set aside are parked. They follow, before newer ones, once it has
    been repaired or removed, which is looked for every `RECHECK_S` seconds.

    ``prepare``: the domain's, which loads the aggregates, and ``keep``, which publishes what they
    are; their lock is held meanwhile.
    ``document_of``: the id of the document that an event changes, or "" if it is not only one.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        service: str,
        aggregates: Aggregates[T],
        collection: str,
        prepare: Callable[[], Awaitable[object]],
        keep: Callable[[Iterable[Aggregate[T]]], Awaitable[None]],
        apply: Apply,
        document_of: Callable[[Event], str],
    ) -> None:
        self._bus = bus
        self._service = service
        self._aggregates = aggregates
        self._prepare = prepare
        self._keep = keep
        self._inner = apply
        self._document_of = document_of
        self._parked = Parked(store, collection)
        self._log = structlog.get_logger("inbox").bind(service=service)
        aggregates.report = SetAside(bus, store, service).report

    async def apply(self, events: list[Event]) -> None:
        """Persist events: apply them, or park them. Raises as the domain's."""
        await self._look()
        faults = self._aggregates.faults
        if not faults:
            await self._inner(events)
            return
        parked: list[tuple[str, Event]] = []
        applied: list[Event] = []
        for event in events:
            document = self._document(event)
            if document in faults:
                parked.append((document, event))
            else:
                applied.append(event)
        await self._parked.keep(parked, self._failed)
        await self._inner(applied)

    async def watch(self) -> None:
        """Look for documents that have been repaired, without end: no event may come for them."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                await self._look()
            except Unavailable as error:
                self._log.debug("unreadable documents not looked at", why=str(error))

    async def _look(self) -> None:
        async with self._aggregates.lock:
            await self._prepare()
            if self._aggregates.repaired:
                repaired, self._aggregates.repaired = self._aggregates.repaired, []
                await self._keep(repaired)
        await self._parked.replay(self._aggregates.faults, self._inner, self._failed)

    def _document(self, event: Event) -> str:
        try:
            return self._document_of(event)
        except Exception:  # the domain finds out, and the inbox sets it aside
            return ""

    async def _failed(self, event: Event, why: str) -> None:
        id = f"parked:{event.source}:{event.epoch}:{event.sequence}:{event.id}"
        await self._bus.set_aside(self._service, why, in_json(event), topic=event.type, id=id)
