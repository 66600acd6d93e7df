"""Where GUIs and people ask: the commands ``patchbay/bartender/<bar>/cmd/<name>``, and answers.

Nothing is late: while the store is away it is refused, not kept for later. A stop waits neither for
the store nor for another command.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.errors import Unavailable
from patchbay.messages import encode, event_type, new_event, new_id, now
from patchbay_bartender import rules
from patchbay_bartender.bar import Bar, Run
from patchbay_bartender.forget import Forgetting
from patchbay_bartender.messages import (
    SERVICE,
    Answer,
    Ask,
    Blend,
    Configure,
    Configured,
    Forget,
    Refill,
    Rejected,
    State,
    Stop,
)
from patchbay_bartender.presence import Presence
from patchbay_bartender.rules import Limits, Record
from patchbay_bartender.settings import BartenderSettings
from patchbay_bartender.store import BartenderStore
from patchbay_bartender.watch import Watch

Decide = Callable[[Bar, str, datetime], Run]


def new_run_id(bar: str, at: datetime) -> str:
    """An id for a run: those of a bar rise with time."""
    return f"{bar}:{int(at.timestamp() * 1000):013d}-{secrets.token_hex(4)}"


class Machine(Protocol):
    """What the desk asks of the scheduler: `prepare`, `state` and `publish_state` with the bars'
    lock held, all else without."""

    async def prepare(self) -> None:
        """Read what is kept. Raises Unavailable."""

    def never_order(self, run_id: str) -> None:
        """This run is never ordered, though a save that failed may have landed."""

    async def begin(self, run: Run, request: Request) -> None:
        """Have a run that is saved begun by the pumps. Raises Rejected: then it never is."""

    def stop_pumps(self, which: str | None, told_at: float) -> None:
        """Tell the pumps to stop this run, or all that was asked for before this."""

    def state(self) -> State:
        """The bar as it is now."""

    def publish_state(self) -> None:
        """Tell it to everybody."""


class Desk:
    """Serves the bar's commands."""

    def __init__(
        self,
        bus: Bus,
        kept: BartenderStore,
        settings: BartenderSettings,
        machine: Machine,
        presence: Presence,
        watch: Watch,
    ) -> None:
        self._bus = bus
        self._kept = kept
        self._bar = settings.bar
        self._machine = machine
        self._presence = presence
        self._watch = watch
        self._forget = Forgetting(bus, kept, settings.bar, presence)
        self._limits = Limits(settings.max_cup_size, settings.max_run_seconds)
        Commands(
            bus,
            SERVICE,
            {
                "blend": self._pours(Blend, self._blend, settings.start_deadline_s),
                "refill": self._pours(Refill, self._refill, settings.start_deadline_s),
                "stop": Command(Stop, self._stop, urgent=True),
                "configure": Command(Configure, self._configure, desired=True),
                "state": Command(Ask, self._state),
                "history": Command(Ask, self._history),
                "forget": Command(Forget, self._forget.handle),
            },
            device=settings.bar,
            cancels=True,
        )

    def _pours(self, body: type[Any], handle: Callable[..., Any], expires_s: float) -> Command:
        return Command(
            body,
            handle,
            moves=True,
            expires_s=expires_s,
            remembered=self._remembered,
            confirms=True,
        )

    # What pours

    async def _blend(self, request: Request, body: Blend) -> Answer:
        def decide(bar: Bar, id: str, at: datetime) -> Run:
            return rules.blend(bar, body, self._kept.sec_per_liter, self._limits, id, at)

        return await self._begin(request, decide)

    async def _refill(self, request: Request, body: Refill) -> Answer:
        def decide(bar: Bar, id: str, at: datetime) -> Run:
            return rules.refill(bar, body, self._limits, id, at)

        return await self._begin(request, decide)

    async def _begin(self, request: Request, decide: Decide) -> Answer:
        """Decide and save; then it is the pumps' turn, without the lock, since they and whoever
        has to confirm it may not answer."""
        with _now_or_never("poured"):
            async with self._kept.bars.lock:
                await self._machine.prepare()
                bar = self._kept.bar
                before = self._answered(request)
                if before is not None:
                    return before
                at = now()
                loop_time = asyncio.get_running_loop().time()
                rules.busy(bar.state.run, self._watch.remaining_s(loop_time))
                run = decide(bar.state, new_run_id(self._bar, at), at)
                run.command, run.request = request.id, request.envelope_id
                if not self._presence.online:
                    raise Rejected("pumps_offline", "the pumps are offline")
                begun: Answer = {"run_id": run.id, "seconds": run.total_s}
                bar.state.run = run
                bar.finish(request.id, encode(begun).decode())
                self._kept.record(Record(run, "ordered"))
                try:
                    await self._kept.bars.save([bar])
                except BaseException:
                    self._machine.never_order(run.id)
                    raise
        await self._machine.begin(run, request)
        await self._save_records()
        return begun

    async def _remembered(self, request: Request, _body: object) -> Answer | None:
        """The answer that this request has had already, if it is poured or was."""
        with _now_or_never("known"):
            async with self._kept.bars.lock:
                await self._machine.prepare()
                return self._answered(request)

    def _answered(self, request: Request) -> Answer | None:
        """The answer that it has had. Raises Rejected if that was an error."""
        answer = self._kept.bar.answered(request.id) if request.again else None
        if answer is not None and "error" in answer:
            raise Rejected(answer["error"]["code"], answer["error"]["message"])
        return answer

    async def _save_records(self) -> None:
        """After the order, which does not wait for the history."""
        with contextlib.suppress(Unavailable):  # `prepare` writes them
            async with self._kept.bars.lock:
                await self._kept.save_records()

    # What does not

    async def _stop(self, request: Request, body: Stop) -> Answer:
        self._machine.stop_pumps(body.run_id, request.received_at)
        run = self._kept.bar.state.run if self._kept.known else None
        stopped = run is not None and body.run_id in (None, run.id)
        return {"stopped": run.id if run is not None and stopped else None}

    async def _configure(self, request: Request, body: Configure) -> Answer:
        with _now_or_never("set"):
            async with self._kept.bars.lock:
                await self._machine.prepare()
                bar = self._kept.bar
                what = rules.configure(bar.state, body, self._limits)
                if body.pump is not None:
                    bar.changed = True
                    await self._kept.bars.save([bar])
                if body.sec_per_liter is not None:
                    await self._kept.set_sec_per_liter(body.sec_per_liter)
                self._machine.publish_state()
                told = Configured(what, bar.state.shown(), self._kept.sec_per_liter)
                self._bus.post(
                    self._bus.topics.event(SERVICE, self._bar, "configured"),
                    new_event(
                        id=new_id(),
                        source=self._bus.client_id,
                        type=event_type(SERVICE, "configured"),
                        subject=self._bar,
                        data=told,
                    ),
                )
        return {"pumps": told.pumps, "sec_per_liter": told.sec_per_liter}

    async def _state(self, request: Request, body: Ask) -> Answer:
        with _now_or_never("known"):
            async with self._kept.bars.lock:
                await self._machine.prepare()
        return {"bar": self._machine.state()}

    async def _history(self, request: Request, body: Ask) -> Answer:
        with _now_or_never("known"):
            async with self._kept.bars.lock:
                await self._machine.prepare()
            return {"runs": await self._kept.history(skip=body.skip, limit=body.limit)}


@contextlib.contextmanager
def _now_or_never(done: str) -> Iterator[None]:
    """Who asks is told at once that nothing is ``done``; a command that waited would act late."""
    try:
        yield
    except Unavailable as error:
        raise Rejected("unavailable", f"the store is away: nothing is {done}") from error
