"""What everybody may hear of the queue: every transition, and now and then the whole.

    allocator/queue/event/changed    a job has a new status
    allocator/queue/state            counts by status, what each combinator does; retained

A transition that an edge's event caused is published before the edge hears that it was taken, so
it is published again if that was not heard of: at least once, with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import msgspec

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import encode, event_type, new_event, rfc3339
from patchbay_allocator.job import DONE, ERROR, IN_PROGRESS, WAITING, Change, Combinator, Job
from patchbay_allocator.messages import (
    CHANGED,
    QUEUE,
    SERVICE,
    Changed,
    CombinatorView,
    Mode,
    QueueState,
)
from patchbay_allocator.store import AllocatorStore

COUNTING_SHARE = 20
"""Counting may take one part in so many of the time: it grows with the jobs, on some stores."""


class Announcer:
    """Publishes transitions."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._topic = bus.topics.event(SERVICE, QUEUE, CHANGED)

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
        """Publish the last change of each job, if the broker is there."""
        with contextlib.suppress(Unavailable):
            for job in jobs:
                self._post(job, job.history[-1])

    def gone(self, job: Job, what: str, by: str) -> None:
        """A job was cancelled or deleted: publish it, if the broker is there."""
        with contextlib.suppress(Unavailable):
            self._post(job, Change(id=by, at=job.updatedAt, status=what))

    def _post(self, job: Job, change: Change) -> asyncio.Future[int | None]:
        said: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def settled(code: int | None) -> None:
            if not said.done():
                said.set_result(code)

        self._bus.post(self._topic, self._event(job, change), on_ack=settled)
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

    async def refresh(self, mode: Mode, hands: Iterable[Combinator], online: set[int]) -> None:
        """Count and publish, if it is due and something may have changed. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if started < self._due_at or not self._bus.connected:
            return
        known = sorted(hands, key=lambda one: one.device)
        views = [
            CombinatorView(combinator=one.device, online=one.device in online, job=one.job or None)
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
