"""The bartender domain service, the scheduler: one thing at a time, and what has become of it.

    cmd/blend -> rules -> saved -> cmd/run to the pumps -> asked -> requester confirms -> confirm
                                          started, finished, refused -> saved -> event, state

Each change is decided by `rules`, saved by compare-and-set, and only then ordered or told. What
nobody can say any more has failed: no run is under way for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog

from patchbay.bus import Bus, Message, Request
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate, Inbox, Outgoing, Publisher, SetAside
from patchbay.messages import (
    Event,
    capture_time,
    encode,
    event_type,
    new_event,
    now,
    rfc3339,
)
from patchbay.progress import Ticks
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay_bartender import rules
from patchbay_bartender.bar import PHASES, Bar, Pump, Run
from patchbay_bartender.desk import Desk
from patchbay_bartender.messages import (
    SERVICE,
    Failed,
    Progress,
    PumpsFinished,
    PumpsRefused,
    PumpsStarted,
    PumpsState,
    Rejected,
    State,
    pumps_device,
    whole_seconds,
)
from patchbay_bartender.orders import Orders
from patchbay_bartender.presence import Presence
from patchbay_bartender.rules import Effect, Publish
from patchbay_bartender.settings import BartenderSettings
from patchbay_bartender.store import BartenderStore
from patchbay_bartender.watch import NOT_STARTED, Watch

DURABLE: Final = ("started", "finished", "refused")
"""Events of the pumps that are persisted, each once."""

TICK_S: Final = 0.25
"""How often time is looked at: what is given up is given up at most so late."""

CALL_OFF_S: Final = 0.5
"""How long a run that was not confirmed may take to be saved as failed before whoever requested it
reads why. Else the next tick saves it."""

NEVER_ORDERED: Final = 16
"""Runs whose save has failed that are remembered. Only one of them can have landed."""

UNKNOWN: Final = ("pumps_lost", "pumps_failed")
"""How a run fails that may have begun."""

STOP_SAVE_S: Final = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

_said: dict[str, msgspec.json.Decoder[Any]] = {
    "started": msgspec.json.Decoder(PumpsStarted),
    "finished": msgspec.json.Decoder(PumpsFinished),
    "refused": msgspec.json.Decoder(PumpsRefused),
}


async def run(unit: Unit) -> None:
    """The unit ``bartender.domain``."""
    settings = unit.settings(BartenderSettings)
    stored = unit.config.store
    async with (
        domain_store(unit) as store,
        BartenderDomain(unit.bus, store, settings, stored) as domain,
    ):
        unit.info_sources["backlog"] = lambda: domain.inbox.waiting
        unit.info_sources["runs"] = lambda: domain.ordered
        await unit.serving()


def first_bar(settings: BartenderSettings) -> Bar:
    """A bar that nobody has set anything of."""
    pumps = [Pump(refill_time=seconds) for seconds in settings.refill_times]
    return Bar(bar=settings.bar, pumps=pumps)


class BartenderDomain:
    """Owns one bar. Enter it before the bus connects."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        settings: BartenderSettings,
        store_settings: StoreSettings,
    ) -> None:
        self.bus = bus
        self.kept = BartenderStore(
            store,
            store_settings.events_ttl_s,
            first_bar(settings),
            settings.sec_per_liter,
            settings.blends_ttl_s,
        )
        self.kept.bars.report = SetAside(bus, store, SERVICE).report
        self.watch = Watch(settings.start_deadline_s, settings.lost_after_s)
        self.ordered = 0
        """Runs that were ordered."""
        self._bar = settings.bar
        self._publisher: Publisher[Bar] = Publisher(bus, SERVICE)
        self._publisher.follow(self.kept.bars)
        self._ticks = Ticks(bus.progress, "ticker", lambda: bus.connected)
        self._ticker: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._never_ordered: deque[str] = deque(maxlen=NEVER_ORDERED)
        self._confirm_s = settings.start_deadline_s
        self._orders = Orders(bus, settings.bar, settings.start_deadline_s)
        self.presence = Presence(bus, settings.bar, self._pumps_said, self._pumps_changed)
        self.inbox = Inbox(
            bus,
            store,
            store_settings,
            SERVICE,
            DURABLE,
            self._apply,
            device=pumps_device(settings.bar),
        )
        self.desk = Desk(bus, self.kept, settings, self, self.presence, self.watch)
        bus.on_connect(self._connected)
        bus.subscribe(bus.topics.dead(SERVICE), self._bury)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._ticker = self.bus.tasks.spawn(self._tick_for_ever(), "ticker")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inbox.stop()
        tasks = [task for task in (self._ticker, self._counting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SAVE_S)
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(STOP_SAVE_S), self.kept.bars.lock:
                await self.kept.bars.load()
                await self.kept.bars.save(one for one in self.kept.bars if one.pruned)

    # The bus

    async def _connected(self) -> None:
        """After each CONNACK: what we keep on the bus is published again, and the pumps are asked
        what they do."""
        async with self.kept.bars.lock:
            await self.prepare()
            self.watch.heard_again(self._time())
            self.publish_state()
            self._publisher.flush([self.kept.bar])
            self._orders.ask()

    async def prepare(self) -> None:
        """Read what is kept, unless it is known. Hold the bars' lock. Raises Unavailable."""
        await self.kept.prepare()
        run = self.kept.bar.state.run
        if run is None:
            self.watch.over()
        elif self.watch.run_id != run.id:  # from before we were there, or a save that looked failed
            self.watch.found(run, (now() - run.ordered_at).total_seconds(), self._time())
            if run.id in self._never_ordered:
                self.watch.call_off(*NOT_STARTED, self._time())
            self._orders.ask()

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # The pumps

    def never_order(self, run_id: str) -> None:
        """This run is never ordered, though a save that failed may have landed."""
        self._never_ordered.append(run_id)

    async def begin(self, run: Run, request: Request) -> None:
        """Have a run that is saved begun by the pumps: order it, and when they ask whether it may
        begin, ask whoever requested it. Raises Rejected: then it never begins."""
        self.ordered += 1
        self.watch.ordered(run, self._time())
        try:
            await self._orders.order(run, request.received_at)
            await request.confirm(self._confirm_s)
            self._orders.confirm(run)
        except Rejected as error:
            await self._call_off(run, error)
            raise
        self.watch.confirmed(self._time())
        self.publish_state()
        self._count()

    async def _call_off(self, run: Run, why: Rejected) -> None:
        """The run was not confirmed: it has failed."""
        self._orders.call_off(run.id)
        if self.watch.run_id == run.id:
            self.watch.call_off(why.code, why.message, self._time())
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(CALL_OFF_S), self.kept.bars.lock:
                await self.prepare()
                current = self.kept.bar.state.run
                if current is not None and current.id == run.id:
                    effects = rules.give_up(self.kept.bar.state, why.code, why.message, now())
                    await self.keep(effects)

    def stop_pumps(self, which: str | None, told_at: float) -> None:
        """Tell the pumps to stop, this run or whatever they do."""
        self._orders.stop(which, told_at)

    def _pumps_said(self, state: PumpsState) -> None:
        """What the pumps do now, as they say."""
        if not self.kept.known:
            return
        run = self.kept.bar.state.run
        if state.run_id is not None and (run is None or run.id != state.run_id):
            self._log.error("the pumps do what nobody has ordered", run=state.run_id)
            self.stop_pumps(state.run_id, self._time())
        elif run is not None and state.run_id == run.id:
            self.watch.runs(state.remaining, self._time())
            self.publish_state()
            self._count()
        elif run is not None:
            self.watch.idle(state.last_run, self._time())

    def _pumps_changed(self, online: bool) -> None:
        self._log.info("pumps", online=online)
        if online:
            self._orders.ask()
        if self.kept.known:
            self.publish_state()

    # What has become of it

    async def _apply(self, events: list[Event]) -> None:
        """Persist events of the pumps, each once. Raises Unavailable; it is then called again."""
        async with self.kept.bars.lock:
            await self.prepare()
            bar = self.kept.bar
            effects: list[Effect] = []
            try:
                for event in events:
                    if not bar.knows(event):
                        effects += self._become(bar.state, event)
                        bar.apply(event)
                await self.keep(effects)
            except BaseException:
                self.watch.heard_again(self._time())  # what they say is here, and comes again
                # The bar has taken in what is not kept: else it would count as known next time.
                self.kept.bars.doubt([bar.id])
                raise

    def _become(self, bar: Bar, event: Event) -> list[Effect]:
        name = event.type.rpartition(".")[2]
        said = _said[name].decode(event.data)
        at = capture_time(event.time, now())
        match said:
            case PumpsStarted():
                return rules.started(bar, said)
            case PumpsFinished():
                return rules.finished(bar, said, at)
        self._orders.refused(said.run_id, said.reason)
        return rules.refused(bar, said, at)

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Save the bar and what goes with it, then publish what follows. Hold the bars' lock.

        Raises Unavailable; then nothing was published, and the bar is read again.
        """
        bar = self.kept.bar
        for effect in effects:
            bar.changed = True
            if isinstance(effect, Publish):
                id = f"{effect.data.run_id}/{effect.name}"
                bar.publish(id, Outgoing(self._bar, effect.name, self._event(id, effect)))
                self._remember_error(bar, effect.data)
            else:
                self.kept.record(effect)
        await self.kept.bars.save([bar])
        if bar.state.run is None:
            self.watch.over()
        self.publish_state()
        self._publisher.flush([bar])
        await self.kept.save_records()

    def _remember_error(self, bar: Aggregate[Bar], data: object) -> None:
        """The request of a run that never began gets the error, if it is sent again."""
        ended = bar.state.ended
        if not isinstance(data, Failed) or data.code in UNKNOWN or ended is None:
            return
        if not ended.run.started and ended.run.command in bar.done:
            error = {"error": {"code": data.code, "message": data.reason}}
            bar.finish(ended.run.command, encode(error).decode())

    def _event(self, id: str, effect: Publish) -> bytes:
        return new_event(
            id=id,
            source=self.bus.client_id,
            type=event_type(SERVICE, effect.name),
            subject=self._bar,
            time=rfc3339(now()),
            data=effect.data,
        )

    # What everybody may know

    def state(self) -> State:
        """The bar as it is stored, and what its pumps do now. `prepare` first."""
        run, pumps = self.kept.shown
        remaining_s = self.watch.remaining_s(self._time()) if run else 0.0
        return State(
            bar=self._bar,
            state=PHASES[run.kind] if run else "idle",
            run_id=run.id if run else None,
            remaining=round(remaining_s, 3),
            until=rfc3339(now() + timedelta(seconds=remaining_s)) if run else None,
            pumps=pumps,
            sec_per_liter=self.kept.sec_per_liter,
            pumps_online=self.presence.online,
            driver=self.presence.driver,
        )

    def publish_state(self) -> None:
        """Publish the state. While the broker is away the next connect does it."""
        with contextlib.suppress(Unavailable):
            topic = self.bus.topics.state(SERVICE, self._bar)
            self.bus.post(topic, encode(self.state()), retain=True)

    # Time

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _count(self) -> None:
        if self._counting is None or self._counting.done():
            self._counting = self.bus.tasks.spawn(self._count_down(), "countdown")

    async def _count_down(self) -> None:
        """Say every second how long it still takes, while something runs."""
        while self.kept.known and (run := self.kept.bar.state.run) is not None:
            remaining = whole_seconds(self.watch.remaining_s(self._time()))
            progress = Progress(run.id, run.kind, remaining, run.total_s)
            with contextlib.suppress(Unavailable):
                topic = self.bus.topics.event(SERVICE, self._bar, "progress")
                self.bus.post(topic, encode(progress), qos=0)
            await asyncio.sleep(1.0)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._tick()
                self._ticks.good()
            except Unavailable as error:
                self._ticks.failed(error)
                self.watch.heard_again(self._time())  # else a run is given up that has ended well
                self._log.warning("periodic tick skipped: store unavailable", why=str(error))
            except Exception as error:  # the outermost loop of this task
                self._ticks.failed(error)
                self._log.error("tick failed", exc_info=error)

    @property
    def _overdue(self) -> bool:
        """Not while there is word of the pumps that nobody has looked at."""
        return not self.inbox.waiting and self.watch.overdue(self._time())

    async def _tick(self) -> None:
        """Give up what nobody can say anything of; forget what the broker has confirmed."""
        if self.kept.bars.faults:
            async with self.kept.bars.lock:
                await self.prepare()
        if not self.bus.connected or not self.kept.known:
            return
        if not self.presence.online:
            self.watch.away(self._time())
        if not self._overdue and not self.kept.bar.pruned:
            return
        async with self.kept.bars.lock:
            await self.prepare()
            bar = self.kept.bar
            if self._overdue:
                code, reason = self.watch.why
                self.stop_pumps(self.watch.run_id, self._time())
                await self.keep(rules.give_up(bar.state, code, reason, now()))
            elif bar.pruned:
                await self.kept.bars.save([bar])
