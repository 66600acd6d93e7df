"""Where people ask: the commands ``patchbay/allocator/queue/cmd/<name>`` and their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Literal
from unicodedata import normalize

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.errors import Unavailable
from patchbay.messages import now
from patchbay_allocator import rules
from patchbay_allocator.announce import Announcer
from patchbay_allocator.dispatch import Dispatcher
from patchbay_allocator.forgetting import Forgetting
from patchbay_allocator.ids import id_of
from patchbay_allocator.job import Job, Removed
from patchbay_allocator.messages import (
    QUEUE,
    SERVICE,
    Answer,
    Assign,
    Cancel,
    Delete,
    Forget,
    List,
    Recolor,
    Rejected,
    Retry,
    SetMode,
    Show,
    Submit,
    color,
    requested,
)
from patchbay_allocator.presence import Presence
from patchbay_allocator.store import AllocatorStore

TRIES = 8
"""How often a change is decided anew because somebody else was quicker."""

REPEAT = timedelta(minutes=10)
"""A request may be delivered again for so long; its job is not made twice."""

Decide = Callable[[Job], Job]


class Desk:
    """Serves the commands of the queue."""

    def __init__(
        self,
        bus: Bus,
        kept: AllocatorStore,
        devices: Sequence[int],
        presence: Presence,
        dispatcher: Dispatcher,
        announcer: Announcer,
        prepare: Callable[[], Awaitable[None]],
        look: Callable[[], None],
        group: str | None,
    ) -> None:
        self._kept = kept
        self._devices = devices
        self._presence = presence
        self._dispatcher = dispatcher
        self._announcer = announcer
        self._prepare = prepare
        self._look = look
        forgetting = Forgetting(bus, kept, devices, dispatcher, prepare, look)
        Commands(
            bus,
            SERVICE,
            {
                "submit": _changes(Submit, self._submit),
                "assign": Command(
                    Assign, self._assign, moves=True, confirms=True, remembered=self._assigned
                ),
                "cancel": _changes(Cancel, self._cancel),
                "delete": _changes(Delete, self._delete),
                "recolor": _changes(Recolor, self._recolor),
                "retry": _changes(Retry, self._retry),
                "show": Command(Show, self._show),
                "list": Command(List, self._list),
                "mode": _changes(SetMode, self._mode),
                "forget": _changes(Forget, forgetting.handle),
            },
            group,
            device=QUEUE,
        )

    # What changes a job

    async def _submit(self, request: Request, body: Submit) -> Answer:
        await self._prepare()
        wanted = requested(body.ClientName, body.CustomerName, body.ColorCode)
        self._dispatcher.palettes.need_any(wanted.ColorCode)
        moment = now()
        if request.again:
            before = await self._kept.caused_by(request.id, moment - REPEAT)
            if before is not None:
                return {"job": before.id}
        await request.confirm()
        job = rules.new(
            id=id_of(request.id, moment),
            wanted=wanted,
            event_id=request.id,
            at=moment,
            now=moment,
        )
        await self._kept.add([job])
        self._dispatcher.add([job])
        self._announcer.soon([job])
        self._look()
        return {"job": job.id}

    async def _recolor(self, request: Request, body: Recolor) -> Answer:
        code = color(body.ColorCode)
        self._dispatcher.palettes.need_any(code)
        new = await self._change(
            request, body.job, lambda job: rules.recolor(job, code, request.id, now())
        )
        return {"job": new.id, "ColorCode": new.data.ColorCode}

    async def _retry(self, request: Request, body: Retry) -> Answer:
        def decide(job: Job) -> Job:
            self._dispatcher.palettes.need_any(job.data.ColorCode)
            return rules.retry(job, request.id, now())

        new = await self._change(request, body.job, decide)
        return {"job": new.id}

    async def _change(self, request: Request, id: str, decide: Decide) -> Job:
        for _ in range(TRIES):
            job = await self._known(id)
            if request.again and job.caused_by(request.id):
                return job
            new = decide(job)
            await request.confirm()
            if new.id in await self._kept.change([(job, new)]):
                self._dispatcher.add([new])
                self._announcer.soon([new])
                self._look()
                return new
        raise Unavailable(f"job {id} is changed by others all the time")

    async def _assign(self, request: Request, body: Assign) -> Answer:
        for _ in range(TRIES):
            job = await self._known(body.job)
            answer = {"job": body.job, "device": body.device}
            if request.again and _is_at(job, body.device):
                return answer
            if body.device not in self._devices:
                raise Rejected("no_such_combinator", f"there are {len(self._devices)}")
            rules.assignable(job, force=body.force)
            self._dispatcher.palettes.need(body.device, job.data.ColorCode)
            if body.device not in self._presence.connected():
                raise Rejected("combinator_offline", f"combinator {body.device} is not connected")
            combinator = (await self._kept.combinators([body.device])).get(body.device)
            if combinator is None:
                raise Rejected(
                    "unreadable", f"the document of combinator {body.device} is unreadable"
                )
            if combinator.command:
                raise Rejected("combinator_busy", f"combinator {body.device} has a job")
            await request.confirm()
            if await self._dispatcher.claim([(job, combinator)]):
                self._look()
                return answer
        raise Rejected("combinator_busy", f"combinator {body.device} was never free long enough")

    async def _assigned(self, request: Request, body: Assign) -> Answer | None:
        """The answer that this request has had already, while the combinator has the job."""
        job = await self._known(body.job)
        if request.again and _is_at(job, body.device):
            return {"job": body.job, "device": body.device}
        return None

    async def _cancel(self, request: Request, body: Cancel) -> Answer:
        return await self._remove(request, body.job, "cancelled", rules.cancellable)

    async def _delete(self, request: Request, body: Delete) -> Answer:
        return await self._remove(request, body.job, "deleted", rules.deletable)

    async def _remove(
        self,
        request: Request,
        id: str,
        what: Literal["cancelled", "deleted"],
        check: Callable[[Job], None],
    ) -> Answer:
        for _ in range(TRIES):
            try:
                job = await self._known(id)
            except Rejected:
                gone = await self._kept.removed(id) if request.again else None
                if gone is None or gone.by != request.id:
                    raise
                return {"job": id}
            check(job)
            await request.confirm()
            removed = Removed(job=job.id, what=what, by=request.id, at=now(), was=job)
            if await self._kept.remove(removed):
                self._dispatcher.discard([job.id])
                self._announcer.gone(removed)
                self._look()
                return {"job": job.id}
        raise Unavailable(f"job {id} is changed by others all the time")

    async def _known(self, id: str) -> Job:
        await self._prepare()
        job = await self._kept.job(id)
        if job is None:
            if fault := await self._kept.fault(id):
                raise Rejected("unreadable", f"the document of job {id} is unreadable: {fault}")
            raise Rejected("unknown_job", f"there is no job {id}")
        return job

    # What only asks

    async def _show(self, request: Request, body: Show) -> Answer:
        await self._prepare()
        job = await self._kept.show(body.job)
        if job is None:
            raise Rejected("unknown_job", f"there is no job {body.job}")
        return {"job": job}

    async def _list(self, request: Request, body: List) -> Answer:
        await self._prepare()
        customer = normalize("NFC", body.CustomerName or "")
        found, total = await self._kept.list(body, customer)
        return {"jobs": found, "total": total}

    async def _mode(self, request: Request, body: SetMode) -> Answer:
        await self._prepare()
        if body.mode is not None:
            await request.confirm()
            await self._kept.set_mode(body.mode)
            self._look()
        return {"mode": body.mode or await self._kept.mode()}


def _changes(body: type[Any], handle: Callable[[Request, Any], Awaitable[Answer]]) -> Command:
    """A command that changes the queue: it is confirmed just before it is stored."""
    return Command(body, handle, desired=True, confirms=True)


def _is_at(job: Job, device: int) -> bool:
    """Has this combinator the job?"""
    return job.in_progress and job.assignedAt == device
