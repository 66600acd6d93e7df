"""The colour-job domain service: jobs and answers in, claims and commands out.

One process, or several replicas that share the work (``share_group``). Nothing but the store is
shared by them, and nothing that matters is kept here: each event is taken by whoever gets it, is
applied once by its id, and is acknowledged to its edge by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import Unavailable
from patchbay.inbox import RangeInbox, SetAside
from patchbay.messages import (
    Event,
    capture_time,
    encode,
    now,
    parse_time,
)
from patchbay.progress import Ticks
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.topics import shared
from patchbay_allocator import rules
from patchbay_allocator.announce import Announcer, QueueBoard
from patchbay_allocator.desk import Desk
from patchbay_allocator.dispatch import Dispatcher
from patchbay_allocator.ids import id_of
from patchbay_allocator.job import Change, Job
from patchbay_allocator.messages import (
    FINISHED,
    QUEUE,
    REQUESTED,
    SERVICE,
    Finished,
    Requested,
    requested,
)
from patchbay_allocator.presence import Presence
from patchbay_allocator.retention import Retention
from patchbay_allocator.settings import AllocatorSettings, combinators
from patchbay_allocator.store import AllocatorStore

TICK_S = 0.5
"""How often time is looked at: what is over is noticed at most so late."""

STOP_TIMEOUT_S = 1.0
"""A look takes milliseconds; what is left half done the next one finishes."""

ORPHANS_S = 5.0
"""How often orphans are looked for."""

_requested = msgspec.json.Decoder(Requested)
_finished = msgspec.json.Decoder(Finished)


async def run(unit: Unit) -> None:
    """The unit ``allocator.domain``."""
    settings = unit.settings(AllocatorSettings)
    stored = unit.config.store
    devices = list(combinators(unit.config))
    async with domain_store(unit) as store:
        kept = AllocatorStore(store, stored.events_ttl_s)
        async with AllocatorDomain(unit.bus, store, kept, devices, settings, stored) as domain:
            domain.retention.clock_unsure = lambda: unit.clock.unsure
            unit.info_sources["backlog"] = lambda: domain.inbox.waiting
            unit.info_sources["taken"] = lambda: domain.inbox.taken
            await unit.serving()


class AllocatorDomain:
    """One replica. Enter it before the bus connects."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        kept: AllocatorStore,
        devices: list[int],
        settings: AllocatorSettings,
        store_settings: StoreSettings,
    ) -> None:
        self.bus = bus
        self.kept = kept
        kept.report = SetAside(bus, store, SERVICE).report
        self.retention = Retention(kept, settings.jobs_ttl_s, store_settings.events_ttl_s)
        self._devices = devices
        self._max_attempts = settings.max_attempts
        self._wake = asyncio.Event()
        group = settings.share_group
        self.presence = Presence(bus, devices, settings.job_timeout_s, self._wake.set)
        self.announcer = Announcer(bus, kept)
        self.board = QueueBoard(bus, kept, settings.state_interval_s)
        self.dispatcher = Dispatcher(bus, kept, devices, self.presence, self.announcer, settings)
        self.inbox = RangeInbox(
            bus, store, store_settings, SERVICE, [REQUESTED, FINISHED], self._apply, group=group
        )
        self.desk = Desk(
            bus,
            kept,
            devices,
            self.presence,
            self.dispatcher,
            self.announcer,
            self._prepare,
            self.look,
            group,
        )
        self._ticks = Ticks(bus.progress, "dispatch", lambda: bus.connected)
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._working: asyncio.Task[None] | None = None
        self._scanning: asyncio.Task[None] | None = None
        self._stopping = False
        self._settle: set[int] = set()
        self._pause_max_s = store_settings.backoff_max_s
        self._pause_first_s = store_settings.backoff_initial_s
        bus.subscribe(shared(group, bus.topics.dead(SERVICE)), self._bury)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._working = self.bus.tasks.spawn(self._work(), "dispatch")
        self._scanning = self.bus.tasks.spawn(self._scan(), "scan")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inbox.stop()
        if self._scanning is not None:
            self._scanning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._scanning
        if self._working is not None:
            self._stopping = True
            self._wake.set()
            # Not cancelled at once: the store's driver may take that for a fault of the network.
            await asyncio.wait([self._working], timeout=STOP_TIMEOUT_S)
            self._working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.announcer.finish()

    def look(self) -> None:
        """Something has changed: look at what there is to do."""
        self.board.want()
        self._wake.set()

    async def _prepare(self) -> None:
        await self.kept.prepare(self._devices, now())

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # Events of the edges

    async def _apply(self, events: list[Event]) -> None:
        """Persist events; any of them may have been applied before, here or by another replica."""
        await self._prepare()
        wanted: list[Job] = []
        answers: list[tuple[Event, Finished]] = []
        for event in events:
            if event.type.endswith(f".{REQUESTED}"):
                wanted.append(self._job(event))
            else:
                answers.append((event, _finished.decode(event.data)))
        if wanted:
            await self._take_jobs(wanted)
        if answers:
            await self._take_answers(answers)

    async def _take_jobs(self, jobs: list[Job]) -> None:
        """Keep jobs, and publish them: those that are kept while the store works on the next."""
        said: list[asyncio.Task[None]] = []

        def kept(some: Sequence[Job]) -> None:
            task = asyncio.create_task(self.announcer.changed(some))  # noqa: TID251  awaited below
            said.append(task)

        try:
            await self.kept.add(jobs, kept)
        finally:
            done = await asyncio.gather(*said, return_exceptions=True)
        self.dispatcher.add(jobs)
        self.board.want()
        if self.dispatcher.has_free:
            self._wake.set()
        for error in done:
            if error is not None:
                raise error

    def _job(self, event: Event) -> Job:
        said = _requested.decode(event.data)
        at = parse_time(event.time)
        moment = now()
        job = rules.new(
            id=id_of(event.id, at),
            wanted=requested(said.ClientName, said.CustomerName, said.ColorCode),
            event_id=event.id,
            at=capture_time(event.time, moment),
            now=moment,
        )
        if late := self.retention.complaint(job.createdAt, moment):
            return rules.parked(job, late, f"{event.id}/parked", moment)
        return self.dispatcher.parked(job, f"{event.id}/parked", moment)

    async def _take_answers(self, answers: list[tuple[Event, Finished]]) -> None:
        changed: list[tuple[Job, Change]] = []
        devices = {answer.combinator for _, answer in answers}
        while answers:
            jobs = await self.kept.jobs(answer.job for _, answer in answers)
            changes: dict[str, tuple[Job, Job]] = {}
            later: list[tuple[Event, Finished]] = []
            for event, answer in answers:
                job = jobs.get(answer.job)
                known = job.caused_by(event.id) if job is not None else None
                if job is not None and known is not None:
                    changed.append((job, known))
                elif job is None or job.status != f"inprogress{answer.combinator}":
                    self._refuse(event, answer, job)
                elif answer.job in changes:  # said twice in one go: the second meets the first
                    later.append((event, answer))
                else:
                    new = rules.finished(job, answer.status, event.id, now(), self._max_attempts)
                    changes[answer.job] = (job, new)
                    later.append((event, answer))
            # Each change is met again in the next pass, as known or as made by somebody else.
            await self.kept.change(list(changes.values()))
            answers = later
        self.dispatcher.add(job for job, _ in changed)
        self._settle |= devices
        self.look()
        await self.announcer.changes(changed)

    def _refuse(self, event: Event, answer: Finished, job: Job | None) -> None:
        at = f"combinator {answer.combinator}"
        reason = f"unknown job: {at}" if job is None else f"not in progress there: {at}"
        topic = self.bus.topics.event(SERVICE, event.subject or QUEUE, FINISHED)
        self.bus.dead_letter(SERVICE, reason, encode(answer), topic=topic)

    # Time

    async def _scan(self) -> None:
        while True:
            try:
                await self._prepare()
            except Unavailable:
                await asyncio.sleep(self._pause_max_s)
            else:
                await self.dispatcher.scan()

    async def _work(self) -> None:
        pause_s = self._pause_first_s
        looked_at = orphans_at = -1e9
        failed = ""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S * random.uniform(0.8, 1.2)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._prepare()
                due = looked_at + TICK_S < loop.time()
                devices, self._settle = (None if due else self._settle), set()
                await self.dispatcher.settle(devices)
                if due:
                    looked_at = loop.time()
                if loop.time() - orphans_at > ORPHANS_S:
                    await self.dispatcher.adopt_orphans()
                    orphans_at = loop.time()
                mode = await self.kept.mode()
                if mode == "auto":
                    await self.dispatcher.assign_waiting()
                await self.board.refresh(mode, self.dispatcher.hands.values(), self.presence)
                await self.announcer.catch_up()
                if count := await self.dispatcher.take_over():
                    self._log.info("jobs taken over", count=count)
                    self.board.want()
                if count := await self.retention.work():
                    self._log.info("old jobs removed", count=count)
                    self.board.want()
                pause_s, failed = self._pause_first_s, ""
                self._ticks.good()
            except Unavailable as error:
                self._ticks.failed(error)
                looked_at = -1e9
                self._log.warning(
                    "periodic work skipped: store unavailable", why=str(error), next_try_s=pause_s
                )
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._pause_max_s)
            except Exception as error:  # the outermost loop of this task
                self._ticks.failed(error)
                if failed != repr(error):
                    self._log.error("dispatching failed", exc_info=error)
                failed = repr(error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._pause_max_s)
