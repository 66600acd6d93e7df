"""Writes many documents at once, and finds those that the store never takes.

A batch is one bulk write. What follows from an error:

    of all, or of nobody's own fault    Unavailable
    of one document, its own fault      the others are written; then DocumentRejected
    without naming a document           the batch is split, down to single documents
    of one document, an unknown code    Unavailable, unless it is this document alone that fails

The last is found out with the help of a probe, another write to the same collection: the document
fails, the probe succeeds, the document fails again. Only that counts, and only if it happens
several times over several minutes: a store that runs out of room, or is being repaired, refuses
other documents, too, or takes this one later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import structlog

from patchbay.errors import DocumentRefused, DocumentRejected, Unavailable
from patchbay.lean import without
from patchbay.messages import new_id, now
from patchbay.settings import StoreSettings
from patchbay.store.faults import (
    DUPLICATE_KEY,
    ENCODING_ERRORS,
    Fault,
    cancellable,
    encoding_complaint,
    fault_of_batch,
    faults_of,
    is_of_id,
    reaching,
    unavailable,
)

with without("cryptography"):
    from pymongo import DeleteOne, InsertOne, ReplaceOne
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Operation: TypeAlias = InsertOne[Document] | ReplaceOne[Document]

PROBE_ID: Final = "patchbay-probe"
"""The document that a probe writes and deletes again. `Store.find` does not show it."""

UNPROBED: Final = frozenset({"sources", "formats"})
"""Collections of all services, where none may delete: a document there is never suspected."""

SUSPECTS: Final = 1000
"""Documents that are remembered as refused for an unknown reason; the oldest makes room."""

EXAMINED: Final = 8
"""Suspects that one call examines: each costs a write, and there are seldom two."""

DENIED: Final = 13
"""Unauthorized: of the collection of dead letters a service may only insert."""


class Write(NamedTuple):
    """One document and how it is written."""

    document: Document
    operation: Operation


@dataclass(slots=True)
class _Outcome:
    """What one bulk write came to: documents written, and faults by their position."""

    done: int = 0
    faults: dict[int, Fault] = field(default_factory=dict)
    whole: Fault | None = None
    """The fault of an error that names none of them."""
    unencodable: dict[int, Fault] = field(default_factory=dict)
    """If there are any, none of the documents has been sent."""


class Writer:
    """Writes to the collections that ``collection`` finds by name."""

    def __init__(self, collection: Callable[[str], Collection], settings: StoreSettings) -> None:
        self._collection = collection
        self._suspects = _Suspects(settings.suspect_failures, settings.suspect_s)

    async def insert(self, collection: str, documents: Sequence[Document]) -> int:
        """Insert documents; those whose ``_id`` is there already stay. Returns how many were new.

        Raises Unavailable, and DocumentRejected when all others are there.
        """
        return await self._write(collection, [Write(one, InsertOne(one)) for one in documents])

    async def save(self, collection: str, documents: Sequence[Document]) -> None:
        """Write documents over what is there. Raises as `insert`."""
        await self._write(
            collection,
            [Write(one, ReplaceOne({"_id": one["_id"]}, one, upsert=True)) for one in documents],
        )

    async def replace(
        self, collection: str, changes: Sequence[tuple[Mapping[str, Any], Document]]
    ) -> int:
        """Replace the documents that filters match. Returns how many matched.

        Raises Unavailable, also for what the server refuses to one document: what is changed by
        compare-and-set is bounded, and no event may be dropped for it. If it is that one alone, and
        all others are written, that is a DocumentRefused. Raises DocumentRejected for one that
        cannot be encoded.
        """
        writes = [Write(what, ReplaceOne(which, what)) for which, what in changes]
        done = 0
        refused: dict[Any, str] = {}
        parts: list[Sequence[Write]] = [writes] if writes else []
        while parts:
            part = parts.pop()
            outcome = await self._attempt(collection, part)
            done += outcome.done
            if outcome.unencodable:
                rejected = {
                    part[position].document["_id"]: (part[position].document, fault.why)
                    for position, fault in outcome.unencodable.items()
                }
                raise DocumentRejected(rejected, encoding=True)
            fault = outcome.whole or next(iter(outcome.faults.values()), None)
            if fault is None:
                continue
            if not refused and not await self._takes_a_probe(collection):
                raise Unavailable(f"the store refuses: {fault.why}")
            if outcome.whole is None or len(part) == 1:
                at = outcome.faults or {0: fault}
                refused |= {part[one].document["_id"]: at[one].why for one in at}
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        if refused:
            raise DocumentRefused(next(iter(refused.values())), list(refused))
        return done

    async def _write(self, collection: str, writes: Sequence[Write]) -> int:
        done = 0
        rejected: dict[Any, tuple[Document, str]] = {}
        unknown: list[tuple[Write, Fault]] = []
        encoding = True
        parts: list[Sequence[Write]] = [writes] if writes else []
        while parts:
            part = parts.pop()
            outcome = await self._attempt(collection, part)
            done += outcome.done
            if outcome.unencodable:
                rest = [one for n, one in enumerate(part) if n not in outcome.unencodable]
                parts += [rest] if rest else []
                faults = outcome.unencodable
            elif outcome.whole is None:
                faults = outcome.faults
                self._suspects.clear(collection, part, faults)
            elif len(part) == 1:
                faults = {0: outcome.whole}
            else:
                if not outcome.whole.own and not await self._takes_a_probe(collection):
                    raise Unavailable(f"the store refuses: {outcome.whole.why}")
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            for position, fault in faults.items():
                document = part[position].document
                if fault.own:
                    rejected[document["_id"]] = document, fault.why
                    encoding = encoding and bool(outcome.unencodable)
                else:
                    unknown.append((part[position], fault))
        if unknown:
            encoding = False
            done += await self._examine(collection, unknown, rejected)
        if rejected:
            raise DocumentRejected(rejected, encoding=encoding)
        return done

    async def _examine(
        self,
        collection: str,
        suspects: Sequence[tuple[Write, Fault]],
        rejected: dict[Any, tuple[Document, str]],
    ) -> int:
        """Find out whether documents that failed fail alone. Returns how many are written now.

        Adds to ``rejected``. Raises Unavailable unless each of them is written or rejected.
        """
        if not await self._takes_a_probe(collection):
            raise Unavailable(f"the store refuses: {suspects[0][1].why}")
        done = 0
        waiting = {write.document["_id"]: fault.why for write, fault in suspects[EXAMINED:]}
        for write, _ in suspects[:EXAMINED]:
            outcome = await self._attempt(collection, [write])
            done += outcome.done
            fault = outcome.whole or outcome.faults.get(0)
            id = write.document["_id"]
            if fault is None:
                self._suspects.clear(collection, [write], {})
            elif fault.own or self._suspects.failed_for_good(collection, id):
                rejected[id] = write.document, fault.why
            else:
                waiting[id] = fault.why
        if waiting:
            raise DocumentRefused(next(iter(waiting.values())), list(waiting))
        return done

    async def _takes_a_probe(self, collection: str) -> bool:
        """Does another write to this collection succeed?"""
        if collection in UNPROBED:
            return False
        there = self._collection(collection)
        probe = {"_id": PROBE_ID, "at": now(), "token": new_id()}
        try:
            async with cancellable():
                try:
                    await there.bulk_write(
                        [
                            ReplaceOne({"_id": PROBE_ID}, probe, upsert=True),
                            DeleteOne({"_id": PROBE_ID}),
                        ]
                    )
                except OperationFailure as error:
                    if error.code != DENIED:
                        raise
                    await there.insert_one({**probe, "_id": f"{PROBE_ID}-{new_id()}"})
        except (PyMongoError, OSError):
            return False
        return True

    async def _attempt(self, collection: str, writes: Sequence[Write]) -> _Outcome:
        """One bulk write. Raises Unavailable for an error that is nobody's own fault."""
        operations = [write.operation for write in writes]
        async with cancellable():
            try:
                result = await self._collection(collection).bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return await self._sorted_out(collection, writes, error)
            except (PyMongoError, OSError) as error:
                return _Outcome(whole=fault_of_batch(error))
            except ENCODING_ERRORS as error:
                if isinstance(error, DocumentTooLarge):
                    return _Outcome(whole=fault_of_batch(error))
                complaints = {n: encoding_complaint(one.document) for n, one in enumerate(writes)}
                unencodable = {n: Fault(why, own=True) for n, why in complaints.items() if why}
                if not unencodable:
                    raise unavailable(error) from error
                return _Outcome(unencodable=unencodable)
        return _Outcome(result.inserted_count + result.matched_count)

    async def _sorted_out(
        self, collection: str, writes: Sequence[Write], error: BulkWriteError
    ) -> _Outcome:
        details = error.details or {}
        outcome = _Outcome(int(details.get("nInserted", 0)) + int(details.get("nMatched", 0)))
        duplicates: list[int] = []
        for position, (fault, failure) in faults_of(error).items():
            if failure.get("code") == DUPLICATE_KEY:
                duplicates.append(position)
                if is_of_id(failure):
                    continue
            outcome.faults[position] = fault
        # The server may name another index though the document is there: it names only one.
        unsure = [one for one in duplicates if one in outcome.faults]
        stored = await self._stored(collection, [writes[one].document["_id"] for one in unsure])
        for position in duplicates:
            known = position not in outcome.faults
            fault = outcome.faults.pop(position, Fault("duplicate", own=True))
            if isinstance(writes[position].operation, ReplaceOne):
                # Of two upserts of one document at once one loses: it tries again.
                outcome.faults[position] = fault._replace(own=not known)
            elif not known and writes[position].document["_id"] not in stored:
                outcome.faults[position] = fault
        return outcome

    async def _stored(self, collection: str, ids: Sequence[Any]) -> set[Any]:
        """Which of these documents are there. Raises Unavailable."""
        if not ids:
            return set()
        async with reaching():
            found = self._collection(collection).find({"_id": {"$in": list(ids)}}, {"_id": 1})
            return {one["_id"] async for one in found}


class _Suspects:
    """Documents that failed alone, for a reason that is not known to be their own."""

    def __init__(self, failures: int, span_s: float) -> None:
        self._failures = failures
        self._span_s = span_s
        self._found: dict[tuple[str, Any], tuple[int, float]] = {}
        self._log = structlog.get_logger("store")

    def failed_for_good(self, collection: str, id: Any) -> bool:
        """It has failed alone once more: often enough, and for long enough?"""
        key = (collection, id)
        clock = asyncio.get_running_loop().time()
        failures, first_at = self._found.pop(key, (0, clock))
        if not failures:
            self._log.warning("one document refused", collection=collection, id=str(id))
        while len(self._found) >= SUSPECTS:
            del self._found[next(iter(self._found))]
        self._found[key] = (failures + 1, first_at)
        return failures + 1 >= self._failures and clock - first_at >= self._span_s

    def clear(self, collection: str, writes: Sequence[Write], faults: Mapping[int, Fault]) -> None:
        """Those without a fault are written."""
        if self._found:
            for position, write in enumerate(writes):
                if position not in faults:
                    self._found.pop((collection, write.document["_id"]), None)
