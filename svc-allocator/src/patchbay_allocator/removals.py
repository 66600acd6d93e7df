"""Jobs that are gone, and the traces that they leave in ``events``.

    {_id: "removed:<job>", job, what: "cancelled" | "deleted", by, at, was}    by a command
    {_id: "removed:<job>", job, what: "expired", by, at}                       ended long ago

The trace comes first: a job whose event is redelivered meets it, and is not made again. It expires.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from patchbay.store import Document, ObjectId, Store
from patchbay.validation import convert
from patchbay_allocator.documents import BSON_TYPES, matching
from patchbay_allocator.job import DONE, ERROR, EXPIRED, Removed

JOBS: Final = "jobs"
EVENTS: Final = "events"

PAGE: Final = 1_000
"""Documents that are read at once."""

REMOVED_AT_ONCE: Final = 100
"""Jobs that are removed by one command: the embedded store takes 0.1 s for so many, and 25 s for a
thousand (measured)."""

T = TypeVar("T")

Report = Callable[[str, Any, str], Awaitable[None]]
"""The collection, the id and the fault of a document that cannot be read."""


class Removals:
    """Removes jobs. Every method raises Unavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.report: Report | None = None
        """Hears of documents that cannot be read."""

    async def remove(self, removed: Removed) -> bool:
        """Remove a job, if it is still as it was; and keep that it was there. True if it is gone.

        The trace comes first: a job that comes again meets it.
        """
        was = matching(removed.was)
        removed = replace(removed, was=replace(removed.was, found={}))
        trace = {"_id": f"removed:{removed.job}", **fields_of(removed)}
        await self._store.insert_new(EVENTS, [trace])
        if await self._store.remove(JOBS, was):
            return True
        if await self._store.count(JOBS, {"_id": was["_id"]}):
            await self._store.remove(EVENTS, {"_id": trace["_id"], "by": removed.by})
            return False
        return True

    async def expire(self, before: datetime, moment: datetime) -> int:
        """Remove jobs that have ended and were not changed since ``before``, a page at most."""
        return await self.remove_ended({"updatedAt": {"$lt": before}}, moment, "retention")

    async def remove_ended(self, query: Document, moment: datetime, by: str) -> int:
        """Remove the done and error jobs that match, a page at most. Returns how many.

        The traces come first, as with `remove`, and without the job: they only say that it was.
        """
        ended = {"status": {"$in": [DONE, ERROR]}}
        found = await self._store.find(JOBS, {**query, **ended}, limit=REMOVED_AT_ONCE)
        ids = [one["_id"] for one in found if isinstance(one["_id"], ObjectId)]
        if not ids:
            return 0
        traces = [
            {"_id": f"removed:{id}", "job": str(id), "what": EXPIRED, "by": by, "at": moment}
            for id in ids
        ]
        await self._store.insert_new(EVENTS, traces)
        count = await self._store.remove(JOBS, {"_id": {"$in": ids}, **ended})
        if count < len(ids):  # some have been retried meanwhile
            left = await self._store.find(JOBS, {"_id": {"$in": ids}})
            names = [f"removed:{one['_id']}" for one in left]
            await self._store.remove(EVENTS, {"_id": {"$in": names}, "by": by, "what": EXPIRED})
        return count

    async def removed(self, job: str) -> Removed | None:
        """What was done to a job that is gone, or None if there never was one, or long ago."""
        query = {"_id": f"removed:{job}", "what": {"$ne": EXPIRED}}
        for one in await self._store.find(EVENTS, query):
            try:
                return read_as(one, Removed)
            except msgspec.ValidationError as error:
                await self._report(EVENTS, one, error)
        return None

    async def removed_since(self, moment: datetime) -> list[Removed]:
        """What was done to jobs that went at or after ``moment``, the oldest first."""
        removed = []
        query = {"at": {"$gte": moment}, "what": {"$ne": EXPIRED}}
        found = await self._store.find(EVENTS, query, sort=[("at", 1)], limit=PAGE)
        for one in found:
            try:
                removed.append(read_as(one, Removed))
            except msgspec.ValidationError as error:
                await self._report(EVENTS, one, error)
        return removed

    async def _removed(self, jobs: Sequence[str]) -> set[str]:
        """Which of these were removed. Asked by range, since jobs that come together have ids that
        lie together (measured: a list of a thousand ids costs the embedded store 100 ms)."""
        if not jobs:
            return set()
        found = await self._store.find(EVENTS, {"job": {"$gte": min(jobs), "$lte": max(jobs)}})
        return {one["job"] for one in found}.intersection(jobs)

    async def _report(self, collection: str, found: Document, error: Exception) -> None:
        if self.report is not None:
            await self.report(collection, found.get("_id"), str(error))


def fields_of(value: Any) -> Document:
    """A value as the fields of a document."""
    fields: Document = msgspec.to_builtins(value, builtin_types=BSON_TYPES)
    return fields


def read_as(document: Mapping[str, Any], kind: type[T]) -> T:
    """A document without its ``_id``. Raises `msgspec.ValidationError`."""
    fields = {key: value for key, value in document.items() if key != "_id"}
    return convert(fields, kind, builtin_types=BSON_TYPES, strict=True)
