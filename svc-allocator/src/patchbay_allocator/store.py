"""What the colour-job service keeps in MongoDB.

    jobs           one document a job: `job.Job`, the seed's schema first
    combinators    one a combinator: `job.Combinator`, what it is to do
    settings       {_id: "allocator", mode: "auto" | "manual", published: {<replica>: time}}
    events         what was done to jobs that are gone: {_id: "removed:<job>", at, ...}; expires
    dead           dead letters; expire

Replicas share all of it. A document is replaced whole, and only if nobody has changed it since it
was read: a job by its ``v`` and what the seed's tool changes in it (`documents.matching`), a
combinator by its ``rev``. A standalone MongoDB has no transactions; what is two documents' affair
is done in an order in which each step alone is right.

A document that cannot be read is reported once, and stepped over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from patchbay.errors import DocumentRefused, Unavailable, Unreadable
from patchbay.messages import DeadLetter
from patchbay.store import Document, ObjectId, Store
from patchbay_allocator import documents
from patchbay_allocator.documents import CANONICAL, matching, public
from patchbay_allocator.job import (
    DONE,
    ERROR,
    IN_PROGRESS,
    WAITING,
    Combinator,
    Job,
)
from patchbay_allocator.messages import SERVICE, List, Mode, combinator_device
from patchbay_allocator.palettes import Palette, spellings
from patchbay_allocator.removals import EVENTS, JOBS, PAGE, Removals, fields_of, read_as

COMBINATORS = "combinators"
SETTINGS = "settings"
DEAD = "dead"

PART = 100
"""Jobs to one insert: so many cost hardly more, each, than a thousand, and others need not wait."""

TRIES = 8
"""How often a change of the settings is made anew because somebody else was quicker."""


class AllocatorStore(Removals):
    """The collections of the colour-job service. Every method raises Unavailable."""

    def __init__(self, store: Store, events_ttl_s: int) -> None:
        super().__init__(store)
        self._ttl_s = events_ttl_s
        self._prepared = False

    async def prepare(self, devices: Iterable[int], now: datetime) -> None:
        """Make indexes and the documents of combinators that have none; once."""
        if self._prepared:
            return
        await self._store.ensure_index(JOBS, [("status", 1), ("_id", 1)])
        await self._store.ensure_index(JOBS, [("updatedAt", 1)])
        await self._store.ensure_index(JOBS, [("v", 1)])
        await self._store.ensure_index(EVENTS, [("at", 1)], expireAfterSeconds=self._ttl_s)
        await self._store.ensure_index(EVENTS, [("job", 1)])
        await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=self._ttl_s)
        await self.add_combinators(devices, now)
        self._prepared = True

    # Jobs

    async def add(
        self, jobs: Sequence[Job], kept: Callable[[Sequence[Job]], None] = lambda _: None
    ) -> None:
        """Insert jobs; those that are there stay as they are, those that were removed stay away.

        ``kept`` hears of each part of them as soon as it is safe.

        A job may come again long after it was removed, and while it is being removed: so it is
        asked before and after. One that was changed since (``v``) was not removed after all.
        """
        gone = await self._removed([job.id for job in jobs])
        left = [job for job in jobs if job.id not in gone]
        for start in range(0, len(left), PART):
            some = left[start : start + PART]
            await self._store.insert_new(JOBS, [documents.document(job) for job in some])
            kept(some)
        gone = await self._removed([job.id for job in left])
        for job in left:
            if job.id in gone:
                await self._store.remove(JOBS, {"_id": ObjectId(job.id), "v": job.v})

    async def job(self, id: str) -> Job | None:
        """The job with this id, or None."""
        return (await self.jobs([id])).get(id)

    async def jobs(self, ids: Iterable[str]) -> dict[str, Job]:
        """The jobs with these ids, as far as there are any that can be read."""
        wanted = [ObjectId(id) for id in ids if ObjectId.is_valid(id)]
        if not wanted:
            return {}
        return await self.read(await self._store.find(JOBS, {"_id": {"$in": wanted}}))

    async def fault(self, id: str) -> str:
        """Why the document of a job cannot be read; empty if it can, or if there is none."""
        if not ObjectId.is_valid(id):
            return ""
        for one in await self._store.find(JOBS, {"_id": ObjectId(id)}):
            try:
                documents.read(one)
            except Unreadable as error:
                return str(error)
        return ""

    async def caused_by(self, event_id: str, since: datetime) -> Job | None:
        """The job that this event made, if it came after ``since``."""
        query = {"_id": {"$gte": ObjectId.from_datetime(since)}, "eventId": event_id}
        found = await self.read(await self._store.find(JOBS, query, limit=1))
        return next(iter(found.values()), None)

    async def waiting(self, limit: int, palette: Palette = None) -> list[str]:
        """The ids of the oldest jobs that wait for a colour of ``palette``, oldest first."""
        query: Document = {"status": WAITING}
        if palette is not None:
            query["data.ColorCode"] = {"$in": spellings(palette)}
        ids: list[str] = []
        read = 0
        while len(ids) < limit:
            found = await self._store.find(JOBS, query, sort=[("_id", 1)], skip=read, limit=limit)
            ids += await self.read(found)
            read += len(found)
            if len(found) < limit:
                break
        return ids[:limit]

    async def waiting_in_vain(self, palette: frozenset[str]) -> list[Job]:
        """Jobs that wait for a colour that is not in ``palette``, a page of them."""
        query = {"status": WAITING, "data.ColorCode": {"$nin": spellings(palette)}}
        found = await self.read(await self._store.find(JOBS, query, limit=PAGE))
        return [job for job in found.values() if job.data.ColorCode not in palette]

    async def in_progress(self, devices: Iterable[int]) -> dict[str, Job]:
        """The jobs that are in progress at these combinators, or at nobody knows which."""
        named = [f"{IN_PROGRESS}{one}" for one in (0, *devices)]
        query = {"status": {"$in": [IN_PROGRESS, *named]}}
        return await self.read(await self._store.find(JOBS, query))

    async def changed_since(self, moment: datetime, skip: int) -> list[Job]:
        """Jobs that were changed at or after ``moment``, a page of them."""
        query = {"updatedAt": {"$gte": moment}}
        found = await self._store.find(
            JOBS, query, sort=[("updatedAt", 1), ("_id", 1)], skip=skip, limit=PAGE
        )
        return list((await self.read(found)).values())

    async def change(
        self, changes: Sequence[tuple[Job, Job]], *, passes_over: bool = False
    ) -> set[str]:
        """Put each job in the place of what it was made from. Returns the ids of those that are in
        the store now; the others were changed by somebody else, or, with ``passes_over``, the store
        refuses them alone for now."""
        filters = [(matching(old), documents.document(new)) for old, new in changes]
        if not filters:
            return set()
        try:
            if await self._store.replace(JOBS, filters) == len(filters):
                return {new.id for _, new in changes}
        except DocumentRefused:
            if not passes_over:
                raise
        found = await self.jobs(new.id for _, new in changes)
        return {new.id for _, new in changes if _same(found.get(new.id), new)}

    async def without_version(self) -> list[Document]:
        """Documents that the seed's server and tool have written, found by an index, a page."""
        return await self._store.find(JOBS, {"v": None}, limit=PAGE)

    async def not_ours(self) -> list[Document]:
        """Documents whose form is not quite ours, a page of them at most."""
        return await self._store.find(JOBS, {"$nor": [CANONICAL]}, limit=PAGE)

    async def read(self, found: Iterable[Document]) -> dict[str, Job]:
        """Jobs by their ids, in order; what cannot be read is reported, and left out."""
        jobs: dict[str, Job] = {}
        for one in found:
            try:
                job = documents.read(one)
            except Unreadable as error:
                await self._report(JOBS, one, error)
            else:
                jobs[job.id] = job
        return jobs

    # Combinators

    async def combinators(self, devices: Iterable[int] | None = None) -> dict[int, Combinator]:
        """What these combinators (None: all) are to do, by number."""
        query: Document = {}
        if devices is not None:
            query["_id"] = {"$in": [combinator_device(one) for one in devices]}
        known = {}
        for one in await self._store.find(COMBINATORS, query):
            try:
                combinator = read_as(one, Combinator)
                if one["_id"] != combinator_device(combinator.device):
                    raise Unreadable("device must be the number in _id")
            except (msgspec.ValidationError, Unreadable) as error:
                await self._report(COMBINATORS, one, error)
            else:
                known[combinator.device] = combinator
        return known

    async def add_combinators(self, devices: Iterable[int], now: datetime) -> None:
        """Make the documents of combinators that have none."""
        rev = int(now.timestamp() * 1000)
        new = [Combinator(device=one, rev=rev, since=now) for one in devices]
        await self._store.insert_new(COMBINATORS, [_combinator(one) for one in new])

    async def remove_combinator(self, device: int) -> int:
        """Remove the document of a combinator. Returns how many there were."""
        return await self._store.remove(COMBINATORS, {"_id": combinator_device(device)})

    async def change_combinators(
        self, changes: Sequence[tuple[Combinator, Combinator]]
    ) -> set[int]:
        """As `change`, for combinators. Returns the numbers of those that are in the store now."""
        filters = [
            ({"_id": combinator_device(old.device), "rev": old.rev}, _combinator(new))
            for old, new in changes
        ]
        if not filters:
            return set()
        if await self._store.replace(COMBINATORS, filters) == len(filters):
            return {new.device for _, new in changes}
        found = await self.combinators([new.device for _, new in changes])
        return {
            new.device
            for _, new in changes
            if (is_now := found.get(new.device)) and (is_now.rev, is_now.by) == (new.rev, new.by)
        }

    # Settings: one document

    async def mode(self) -> Mode:
        """``auto``, unless somebody has said otherwise, in a document that can be read."""
        found = await self._settings()
        mode = found.get("mode", "auto")
        if mode not in ("auto", "manual"):
            await self._report(SETTINGS, found, Unreadable("mode must be auto or manual"))
        return "manual" if mode == "manual" else "auto"

    async def set_mode(self, mode: Mode) -> None:
        await self._set("mode", lambda _: mode)

    async def published(self, instance: str) -> datetime | None:
        """Until when this replica's events are with the broker; None: it has not said so yet."""
        at = _moments((await self._settings()).get("published")).get(instance)
        return at if isinstance(at, datetime) else None

    async def set_published(self, instance: str, at: datetime) -> None:
        await self._set("published", lambda before: {**_moments(before), instance: at})

    async def _settings(self) -> Document:
        found = await self._store.find(SETTINGS, {"_id": SERVICE})
        return found[0] if found else {}

    async def _set(self, key: str, decide: Callable[[Any], Any]) -> None:
        """Change one field, and nothing that another replica has changed. Raises Unavailable."""
        for _ in range(TRIES):
            before = await self._settings()
            new = {"_id": SERVICE, **before, key: decide(before.get(key))}
            if not before:
                if await self._store.insert_new(SETTINGS, [new]):
                    return
            elif new == before or await self._store.replace(SETTINGS, [(before, new)]):
                return
        raise Unavailable("the settings are changed by others all the time")

    # Questions

    async def counts(self, devices: Iterable[int]) -> dict[str, int]:
        """How many jobs are waiting, inprogress, done and error."""
        started = [IN_PROGRESS, *(f"{IN_PROGRESS}{one}" for one in (0, *devices))]
        return {
            WAITING: await self._store.count(JOBS, {"status": WAITING}),
            IN_PROGRESS: await self._store.count(JOBS, {"status": {"$in": started}}),
            DONE: await self._store.count(JOBS, {"status": DONE}),
            ERROR: await self._store.count(JOBS, {"status": ERROR}),
        }

    async def list(self, wanted: List, customer: str) -> tuple[list[Document], int]:
        """The jobs that are asked for, as an answer shows them, and how many there are.

        ``customer``: a part of CustomerName, composed as names are kept.
        """
        query: dict[str, Any] = {}
        if wanted.status == IN_PROGRESS:
            query["status"] = {"$regex": f"^{IN_PROGRESS}"}
        elif wanted.status is not None:
            query["status"] = wanted.status
        if customer:
            query["data.CustomerName"] = {"$regex": re.escape(customer), "$options": "i"}
        order = 1 if wanted.order == "oldest" else -1
        found = await self._store.find(
            JOBS, query, sort=[("_id", order)], skip=wanted.skip, limit=wanted.limit
        )
        return [public(one) for one in found], await self._store.count(JOBS, query)

    async def show(self, job: str) -> Document | None:
        """A job as an answer shows it, or None."""
        if not ObjectId.is_valid(job):
            return None
        found = await self._store.find(JOBS, {"_id": ObjectId(job)})
        return public(found[0]) if found else None

    async def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter."""
        await self._store.bury(DEAD, letter)


def _same(found: Job | None, new: Job) -> bool:
    """Is this our change? A driver's second try finds its first one done."""
    return found is not None and (found.v, found.history[-1].id) == (new.v, new.history[-1].id)


def _moments(found: Any) -> dict[str, Any]:
    """Until when all is published, by replica."""
    return found if isinstance(found, dict) else {}


def _combinator(combinator: Combinator) -> Document:
    return {"_id": combinator_device(combinator.device), **fields_of(combinator)}
