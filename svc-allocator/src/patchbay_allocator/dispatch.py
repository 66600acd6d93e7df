"""Who mixes what: claims, what was left half done, what has failed.

A claim joins two documents, and any replica may die between two steps:

    1  combinator n: free -> holds job J at version v     only if nobody else has changed it
    2  job J: version v -> inprogress<n>                  only if nobody else has changed it
    3  ``mix`` goes to the combinator's edge              again and again, until it is confirmed

After 1 alone, any replica may do 2, or free the combinator once 2 cannot be done any more (the job
has another version). After 2, any replica sends ``mix``. What is over is the job's to say: the
combinator is freed after it. So whatever step was the last, the next look finishes or undoes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog
from msgspec.structs import replace

from patchbay.bus import Bus
from patchbay.clock import Moved
from patchbay.errors import Unavailable
from patchbay.messages import encode, new_id, now
from patchbay.store import Document
from patchbay_allocator import rules
from patchbay_allocator.announce import Announcer
from patchbay_allocator.job import WAITING, Combinator, Job
from patchbay_allocator.line import HEAD, Line
from patchbay_allocator.messages import DROP, MIX, SERVICE, Drop, Mix, combinator_device
from patchbay_allocator.palettes import Palette, Palettes, includes
from patchbay_allocator.presence import Presence
from patchbay_allocator.settings import AllocatorSettings
from patchbay_allocator.store import AllocatorStore

HALF_S = timedelta(seconds=1)
"""A claim that is half made for so long was left so: a replica needs milliseconds."""

ORPHAN_S = timedelta(seconds=5)
"""A job that says that it is in progress for so long, and nobody has it, is an orphan."""

REREAD_S = 2.0
"""How often the head of the line is read again, for what other replicas have put there."""

READING_SHARE = 20
"""Reading it may take one part in so many of the time."""

TAKE_OVER_S = 5.0
TAKE_OVER_SHARE = 50
TAKE_OVER_PAUSE_S = 60.0
"""How often documents of the seed's tool are looked for. What no index finds may take one part in
so many of the time, since a store looks at every job for that (the embedded one takes 20 to 170
microseconds each, measured), and is not tried again at once when it has failed."""


class Dispatcher:
    """Gives waiting jobs to free combinators."""

    def __init__(
        self,
        bus: Bus,
        kept: AllocatorStore,
        devices: Iterable[int],
        presence: Presence,
        announcer: Announcer,
        settings: AllocatorSettings,
    ) -> None:
        self._devices = frozenset(devices)
        self.palettes = Palettes(self._devices, settings.palettes)
        self._lines: dict[Palette, Line] = {one: Line() for one in self.palettes.distinct}
        """The waiting jobs that combinators with this palette can mix."""
        self.hands: dict[int, Combinator] = {}
        """What each combinator holds, as far as we know: another replica may know better, and each
        change finds out."""
        self.has_free = True
        """Was a combinator free when we last looked? If not, a new job need not wake us."""
        self._bus = bus
        self._kept = kept
        self._max_attempts = settings.max_attempts
        self._presence = presence
        self._announcer = announcer
        self._job_timeout = timedelta(seconds=settings.job_timeout_s)
        self._grace = timedelta(seconds=settings.reconnect_grace_s)
        self._reissue_s = settings.reissue_s
        self._moved = Moved()
        self._issued: dict[int, tuple[str, float]] = {}
        self._take_over_at = -1e9
        self._log = structlog.get_logger("dispatch").bind(instance=bus.client_id)

    # Claims

    async def assign_waiting(self) -> None:
        """Claim the oldest jobs for the free combinators. Raises Unavailable."""
        connected = self._presence.connected()
        while True:
            free = [
                one for one in self.hands.values() if not one.command and one.device in connected
            ]
            self.has_free = bool(free)
            if not free:
                return
            heads = {
                palette: (await self._read_line(palette)).first(len(free))
                for palette in {self.palettes.of(one.device) for one in free}
            }
            ids = sorted({id for head in heads.values() for id in head})
            if not ids:
                return
            jobs = await self._kept.jobs(ids)
            if self._discard_stale(heads, jobs):
                continue
            colors = {id: job.data.ColorCode for id, job in jobs.items()}
            pairs = rules.match(ids, free, connected, partial(self._can_mix, colors))
            await self.claim([(jobs[id], combinator) for id, combinator in pairs])

    def add(self, jobs: Iterable[Job]) -> None:
        """These are in the store: those that wait are given to combinators."""
        waiting = [job for job in jobs if job.status == WAITING]
        for palette, line in self._lines.items():
            line.add(job.id for job in waiting if includes(palette, job.data.ColorCode))

    def discard(self, ids: Iterable[str]) -> None:
        """These do not wait any more."""
        gone = list(ids)
        for line in self._lines.values():
            line.discard(gone)

    def _can_mix(self, colors: Mapping[str, str], id: str, device: int) -> bool:
        return self.palettes.has(device, colors[id])

    def _discard_stale(self, heads: Mapping[Palette, list[str]], jobs: Mapping[str, Job]) -> bool:
        """Discard what does not wait any more, or for another colour. Was there any?"""
        found = False
        for palette, head in heads.items():
            waiting = {
                id
                for id in head
                if (job := jobs.get(id)) is not None
                and job.status == WAITING
                and includes(palette, job.data.ColorCode)
            }
            if stale := [id for id in head if id not in waiting]:
                self._lines[palette].discard(stale)
                found = True
        return found

    async def _read_line(self, palette: Palette) -> Line:
        loop = asyncio.get_running_loop()
        line = self._lines[palette]
        fresh_s = max(REREAD_S, line.reading_s * READING_SHARE)
        started = loop.time()
        if line.exhausted or started - line.read_at > fresh_s:
            line.begin()
            line.read(await self._kept.waiting(HEAD, palette))
            line.read_at = loop.time()
            line.reading_s = line.read_at - started
        return line

    async def claim(self, pairs: Sequence[tuple[Job, Combinator]]) -> set[str]:
        """Claim each job for its combinator, and send it. Returns the ids of those that worked.

        Raises Unavailable; what was half done then is finished later.
        """
        moment, by = now(), new_id()
        first = [(one, rules.reserve(one, job, moment, by)) for job, one in pairs]
        reserved = await self._change(first)
        second = [
            (job, rules.claim(job, holding, moment), holding)
            for (job, _), (_, holding) in zip(pairs, first, strict=True)
            if holding.device in reserved
        ]
        claimed = await self._kept.change([(job, new) for job, new, _ in second], passes_over=True)
        self.discard(job.id for job, _ in pairs)
        won = [(new, holding) for _, new, holding in second if new.id in claimed]
        # Two of our own combinators never hold one job: the pairs are of different jobs.
        await self._free([holding for _, new, holding in second if new.id not in claimed])
        self._announcer.soon(new for new, _ in won)
        for _, holding in won:
            self._issue(holding)
        return {new.id for new, _ in won}

    async def _free(self, combinators: Iterable[Combinator]) -> None:
        moment, by = now(), new_id()
        await self._change([(one, rules.release(one, moment, by)) for one in combinators])

    async def _change(self, changes: list[tuple[Combinator, Combinator]]) -> set[int]:
        """Change what combinators hold; returns the numbers of those that nobody else changed."""
        ours = await self._kept.change_combinators(changes)
        self.hands.update((new.device, new) for _, new in changes if new.device in ours)
        others = [new.device for _, new in changes if new.device not in ours]
        if others:
            self.hands.update(await self._kept.combinators(others))
        return ours

    # What is over, half done, or failed

    async def settle(self, devices: set[int] | None = None) -> None:
        """Look at what these combinators (None: all) hold: free those whose claim is over, finish
        claims that were left half made, fail what has had its time, send again what was not heard.
        Raises Unavailable.
        """
        if devices is not None and not devices:
            return
        looked_at = await self._kept.combinators(devices)
        if devices is None:
            # The others' documents cannot be read, or are gone: those are made anew.
            missing = self._devices - looked_at.keys()
            if missing:
                await self._kept.add_combinators(missing, now())
            self.hands = {}
        self.hands.update(looked_at)
        jobs = await self._kept.jobs(one.job for one in looked_at.values() if one.job)
        over: list[Combinator] = []
        for one in looked_at.values():
            job = jobs.get(one.job)
            if not one.command:
                self._drop_forgotten(one)
            elif rules.holds(one, job) and job is not None:
                if not await self._fail(one, job):
                    self._issue_again(one, job)
            elif job is not None and rules.half_claimed(one, job):
                if not self.palettes.has(one.device, job.data.ColorCode):
                    over.append(one)  # the settings have changed
                elif now() - self._moved(one.since) > HALF_S:
                    await self._finish_claim(one, job)
            else:
                over.append(one)
        await self._free(over)

    async def take_over(self) -> int:
        """Jobs that the seed's tool or server has written become ours, now and then: those that
        wait are found in the line. Returns how many.

        Those in progress are so at nobody of ours, or the tool has said so of ours: orphans.
        """
        loop = asyncio.get_running_loop()
        if (began := loop.time()) < self._take_over_at:
            return 0
        self._take_over_at = began + TAKE_OVER_S
        return await self._take_over(await self._kept.without_version())

    async def scan(self) -> None:
        """As `take_over`, for documents that no index finds, in a task of its own, for ever: a
        store looks at every job for that, and jobs must not wait for it."""
        loop = asyncio.get_running_loop()
        pause_s = TAKE_OVER_S
        while True:
            await asyncio.sleep(pause_s)
            began = loop.time()
            try:
                await self._take_over(await self._kept.not_ours())
            except Unavailable as error:  # away, or it takes too long
                self._log.info("jobs not scanned", why=str(error))
                began -= TAKE_OVER_PAUSE_S / TAKE_OVER_SHARE
            pause_s = max(TAKE_OVER_S, (loop.time() - began) * TAKE_OVER_SHARE)

    async def _take_over(self, documents: list[Document]) -> int:
        found = [job for job in (await self._kept.read(documents)).values() if job.found]
        await self.adopt_orphans(job for job in found if job.in_progress)
        moment = now()
        changes = [
            (job, rules.taken_over(job, moment))
            for job in found
            if not job.in_progress
            and (not job.v or job.found.get("status") != job.status)
            and (job.status != WAITING or includes(self.palettes.all, job.data.ColorCode))
        ]
        changes += await self._in_vain(moment)
        ours = await self._kept.change(changes, passes_over=True)
        self._put_back(new for _, new in changes if new.id in ours)
        return len(ours)

    async def _in_vain(self, moment: datetime) -> list[tuple[Job, Job]]:
        """Jobs that wait for a colour that no combinator can mix are parked."""
        palette = self.palettes.all
        if palette is None:
            return []
        jobs = await self._kept.waiting_in_vain(palette)
        return [(job, self.parked(job, new_id(), moment)) for job in jobs]

    def parked(self, job: Job, cause: str, moment: datetime) -> Job:
        """The job as it is; parked if no combinator can mix its colour."""
        why = self.palettes.complaint(job.data.ColorCode)
        return rules.parked(job, why, cause, moment) if why else job

    async def adopt_orphans(self, found: Iterable[Job] = ()) -> None:
        """Jobs that say that they are in progress where nobody holds them wait again; those in
        ``found`` say so in another form than ours.

        The jobs are read first: a combinator holds its job before that is in progress.
        """
        moment = now()
        started = {job.id: job for job in found}
        started |= await self._kept.in_progress(self._devices | self.hands.keys())
        combinators = await self._kept.combinators()
        orphans = [
            (job, rules.lost(job, new_id(), moment))
            for job in started.values()
            if not rules.holds(combinators.get(job.assignedAt), job)
            and abs(moment - self._moved(job.updatedAt)) > ORPHAN_S
        ]
        waiting = await self._kept.change(orphans, passes_over=True)
        self._put_back(new for _, new in orphans if new.id in waiting)

    async def release_all(self, device: int) -> None:
        """This combinator is gone for good: what it had waits again. Raises Unavailable."""
        jobs = (await self._kept.in_progress([device])).values()
        moment = now()
        changes = [
            (job, rules.lost(job, new_id(), moment)) for job in jobs if job.assignedAt == device
        ]
        waiting = await self._kept.change(changes)
        self.hands.pop(device, None)
        self._put_back(new for _, new in changes if new.id in waiting)

    async def _fail(self, combinator: Combinator, job: Job) -> bool:
        """Has this attempt failed? Then the job goes on without this combinator."""
        moment = now()
        lost_at = self._presence.lost_at(combinator.device)
        state = self._presence.state(combinator.device)
        reason = rules.failure(
            replace(combinator, since=self._moved(combinator.since)),
            state,
            lost_at and self._moved(lost_at),
            moment,
            self._job_timeout if self._presence.settled() else timedelta.max,
            self._grace,
        )
        has_it = state is not None and state.command == combinator.command
        if not has_it and not self.palettes.has(combinator.device, job.data.ColorCode):
            reason = f"combinator {combinator.device} cannot mix {job.data.ColorCode}"
        if reason is None:
            return False
        cause = f"{combinator.command}/failed"
        new = rules.failed(job, reason, cause, moment, self._max_attempts)
        if new.id in await self._kept.change([(job, new)], passes_over=True):
            self._log.warning("attempt failed", job=job.id, at=combinator.device, why=reason)
            self._put_back([new])
        await self._free([combinator])
        return True

    def _put_back(self, jobs: Iterable[Job]) -> None:
        changed = list(jobs)
        self.add(changed)
        self._announcer.soon(changed)

    async def _finish_claim(self, combinator: Combinator, job: Job) -> None:
        new = rules.claim(job, combinator, now())
        if new.id in await self._kept.change([(job, new)], passes_over=True):
            self._log.info("claim finished for another", job=job.id, at=combinator.device)
            self._announcer.soon([new])
            self._issue(combinator)

    # Commands to the edge

    def _issue(self, one: Combinator) -> None:
        mix = Mix(command=one.command, rev=one.rev, job=one.job, ColorCode=one.ColorCode)
        self._post(one, MIX, mix)
        self._issued[one.device] = (one.command, asyncio.get_running_loop().time())

    def _issue_again(self, one: Combinator, job: Job) -> None:
        """The edge has not confirmed it: who sent it may have died, or the broker."""
        state = self._presence.state(one.device)
        if state is not None and one.command in (state.command, *state.finished):
            return
        if self._is_due(one, one.command) and self._old(one.since):
            self._announcer.soon([job])
            self._issue(one)

    def _drop_forgotten(self, one: Combinator) -> None:
        """The edge has something in hand that nobody waits for any more."""
        state = self._presence.state(one.device)
        if state is None or not state.command or not self._old(one.since):
            return
        if self._is_due(one, state.command):
            self._post(one, DROP, Drop(command=state.command, rev=one.rev))
            self._issued[one.device] = (state.command, asyncio.get_running_loop().time())

    def _is_due(self, one: Combinator, command: str) -> bool:
        said, at = self._issued.get(one.device, ("", 0.0))
        return said != command or asyncio.get_running_loop().time() - at > self._reissue_s

    def _old(self, since: datetime) -> bool:
        return (now() - self._moved(since)).total_seconds() > self._reissue_s

    def _post(self, one: Combinator, name: str, command: Mix | Drop) -> None:
        topic = self._bus.topics.command(SERVICE, combinator_device(one.device), name)
        try:
            self._bus.post(topic, encode(command))
        except Unavailable as error:  # the next look sends it
            self._log.info("not sent", command=name, why=str(error))
