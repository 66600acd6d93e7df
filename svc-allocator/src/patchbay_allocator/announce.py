"""What everybody may hear of the queue: every transition, and now and then the whole.

    allocator/queue/event/changed    a job has a new status
    allocator/queue/state            counts by status, what each combinator does; retained

Each transition is saved, and then published at least once, with the same id. One that an edge's
event caused is published before the event is acknowledged. The others follow from the history of
the jobs: what was saved since a moment that the store knows, and may not be with the broker, is
published again after a start and after each time that the broker was away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import encode, event_type, new_event, now, rfc3339
from patchbay_allocator.job import (
    DONE,
    ERROR,
    IN_PROGRESS,
    WAITING,
    Change,
    Combinator,
    Job,
    Removed,
)
from patchbay_allocator.messages import (
    CHANGED,
    QUEUE,
    SERVICE,
    Changed,
    CombinatorView,
    Mode,
    QueueState,
)
from patchbay_allocator.presence import Presence
from patchbay_allocator.store import AllocatorStore

COUNTING_SHARE = 20
"""Counting may take one part in so many of the time: it grows with the jobs, on some stores."""


SAVING = timedelta(seconds=20)
"""A change that is being saved may have been decided so long ago: longer, and the store has given
up (``[store] timeout_s``)."""

NOTE_S = 2.0
"""How often the store hears until when all is published."""


class Announcer:
    """Publishes transitions."""

    def __init__(self, bus: Bus, kept: AllocatorStore) -> None:
        self._bus = bus
        self._kept = kept
        self._topic = bus.topics.event(SERVICE, QUEUE, CHANGED)
        self._in_flight: dict[str, datetime] = {}
        """Event id -> when the change was made."""
        self._owed: datetime | None = None
        """Changes since then may not be with the broker; None: all are, or are in flight."""
        self._begun = False
        self._noted: datetime | None = None
        self._note_at = 0.0

    async def changed(self, jobs: Iterable[Job]) -> None:
        """Publish the last change of each job; returns when the broker has them all.

        Raises Unavailable.
        """
        await self.changes((job, job.history[-1]) for job in jobs)

    async def changes(self, changes: Iterable[tuple[Job, Change]]) -> None:
        """Publish these changes; returns when the broker has them all. Raises Unavailable."""
        waiting = [self._post(job, change) for job, change in changes]
        codes = await asyncio.gather(*waiting)
        if None in codes:
            raise Unavailable("the connection to the broker ended")

    def soon(self, jobs: Iterable[Job]) -> None:
        """Publish the last change of each job; while the broker is away, `catch_up` does it."""
        for job in jobs:
            self._publish(job, job.history[-1])

    def gone(self, removed: Removed) -> None:
        """A job was cancelled or deleted: publish it as `soon` does."""
        self._publish(*_removal(removed))

    async def catch_up(self) -> None:
        """Publish what may not be with the broker, if it is there. Raises Unavailable."""
        if not self._begun:
            published = await self._kept.published(self._bus.client_id)
            if published is not None:  # besides what has failed meanwhile
                self._owe(published)
            self._begun = True
        while self._bus.connected and (since := self._owed) is not None:
            self._owed = None  # what fails from now on is owed anew
            try:
                await self._publish_since(since)
            except BaseException:
                self._owe(since)
                raise
        await self._note()

    async def finish(self) -> None:
        """Let the store know what is published, at the end. Raises Unavailable."""
        if self._begun:
            await self._note(at_the_end=True)

    async def _publish_since(self, since: datetime) -> None:
        skip = 0
        while jobs := await self._kept.changed_since(since, skip):
            skip += len(jobs)
            await self.changes(
                (job, change) for job in jobs for change in job.history if change.at >= since
            )
        await self.changes(map(_removal, await self._kept.removed_since(since)))

    async def _note(self, *, at_the_end: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if not at_the_end and loop.time() < self._note_at:
            return
        moments = [now() if at_the_end else now() - SAVING, *self._in_flight.values()]
        if self._owed is not None:
            moments.append(self._owed)
        at = min(moments)
        if self._noted is None or at > self._noted or self._owed is not None:
            await self._kept.set_published(self._bus.client_id, at)
            self._noted = at
        self._note_at = loop.time() + NOTE_S

    def _publish(self, job: Job, change: Change) -> None:
        try:
            self._post(job, change)
        except Unavailable:
            self._owe(change.at)

    def _owe(self, since: datetime) -> None:
        self._owed = since if self._owed is None else min(since, self._owed)

    def _post(self, job: Job, change: Change) -> asyncio.Future[int | None]:
        said: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        id = f"{job.id}/{change.id}"

        def settled(code: int | None) -> None:
            self._in_flight.pop(id, None)
            if code is None:
                self._owe(change.at)
            if not said.done():
                said.set_result(code)

        self._bus.post(self._topic, self._event(job, change), on_ack=settled)
        self._in_flight[id] = change.at
        return said

    def _event(self, job: Job, change: Change) -> bytes:
        return new_event(
            id=f"{job.id}/{change.id}",
            source=self._bus.client_id,
            type=event_type(SERVICE, CHANGED),
            subject=job.id,
            time=rfc3339(change.at),
            data=Changed(
                job=job.id,
                status=change.status,
                ClientName=job.ClientName,
                CustomerName=job.data.CustomerName,
                ColorCode=job.data.ColorCode,
                assignedAt=job.assignedAt,
                attempts=job.attempts,
                reason=change.reason,
            ),
        )


def _removal(removed: Removed) -> tuple[Job, Change]:
    return removed.was, Change(id=removed.by, at=removed.at, status=removed.what)


class QueueBoard:
    """Keeps ``queue/state`` right. Replicas see each other's and do not count twice."""

    def __init__(self, bus: Bus, kept: AllocatorStore, interval_s: float) -> None:
        self._bus = bus
        self._kept = kept
        self._interval_s = interval_s
        self._topic = bus.topics.state(SERVICE, QUEUE)
        self._shown: QueueState | None = None
        self._due_at = 0.0
        self._wanted = True
        bus.listen(self._topic, self._seen)

    def want(self) -> None:
        """Something has changed."""
        self._wanted = True

    def _seen(self, message: Message) -> None:
        message.ack()
        try:
            self._shown = msgspec.json.decode(message.payload, type=QueueState)
        except msgspec.DecodeError:
            self._shown = None

    async def refresh(self, mode: Mode, hands: Iterable[Combinator], presence: Presence) -> None:
        """Count and publish, if it is due and something may have changed. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if started < self._due_at or not self._bus.connected:
            return
        known = sorted(hands, key=lambda one: one.device)
        online, connected = presence.online(), presence.connected()
        views = [
            CombinatorView(
                combinator=one.device,
                online=one.device in online,
                job=one.job or None,
                connected=one.device in connected,
            )
            for one in known
        ]
        unchanged = self._shown is not None and (self._shown.mode, self._shown.combinators) == (
            mode,
            views,
        )
        if unchanged and not self._wanted:
            return
        self._wanted = False
        counts = await self._kept.counts(one.device for one in known)
        state = QueueState(
            mode=mode,
            waiting=counts[WAITING],
            inprogress=counts[IN_PROGRESS],
            done=counts[DONE],
            error=counts[ERROR],
            combinators=views,
        )
        took = loop.time() - started
        self._due_at = loop.time() + max(self._interval_s, took * COUNTING_SHARE)
        if state != self._shown:
            self._bus.post(self._topic, encode(state), retain=True)
