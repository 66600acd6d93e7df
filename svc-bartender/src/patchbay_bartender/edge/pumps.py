"""The pumps' edge: orders from the scheduler switch pumps on, each for a stated time.

    cmd/run ----> known? well-formed? free? ----> event/asked ----> cmd/confirm: not late?
        ----> the run's id and event/started on disk ----> not late? ----> pumps on ----> off
        ----> event/finished

Late is what begins more than ``start_deadline_s`` after we have asked, on our own clock.

All pins are off before anything else is done, and when this process ends, however it does but by
kill -9; then the next one, which the supervisor starts, does it first of all. What becomes of the
bus does not matter to a run that has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import decode, encode, new_id
from patchbay.outbox import Outbox, OutboxFull
from patchbay.runtime import Unit
from patchbay_bartender.edge import order, pins
from patchbay_bartender.edge.bank import Bank
from patchbay_bartender.edge.runs import Begun, Runs, boot_id, estimate
from patchbay_bartender.edge.telling import ONLINE, Telling
from patchbay_bartender.edge.watchdog import BEAT_S, Watchdog
from patchbay_bartender.messages import (
    SERVICE,
    Asked,
    Confirm,
    PumpsState,
    Result,
    Run,
    Stop,
    pumps_device,
)
from patchbay_bartender.settings import PUMPS, BartenderSettings

SHORTEST_WAIT_S: Final = 0.001
"""The loop's timers count milliseconds: a shorter wait would spin."""

_run = msgspec.json.Decoder(Run)
_stop = msgspec.json.Decoder(Stop)
_confirm = msgspec.json.Decoder(Confirm)


async def run(unit: Unit) -> None:
    """The unit ``bartender.pumps``."""
    settings = unit.settings(BartenderSettings)
    _end_well_on_hangup(unit)
    gpio = pins.choose(
        settings.gpio,
        demo=unit.config.runtime.demo,
        file=unit.state_dir / "pins",
        release=settings.release_pins,
    )
    with Bank(
        gpio,
        settings.pins,
        active_low=settings.active_low,
        max_run_s=settings.max_run_seconds,
    ) as bank:
        unit.log.info("all pumps are off", driver=bank.driver)
        unit.process.holds.append(lambda: bool(bank.on))
        async with Outbox(
            unit.bus,
            SERVICE,
            unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
            synchronous=settings.outbox_synchronous,
            max_rows=settings.outbox_max_rows,
            max_bytes=settings.outbox_max_bytes,
            busy=lambda: bool(bank.on),
            threaded=True,  # a card that takes its time would wake the watchdog
        ) as outbox:
            with PumpsEdge(unit.bus, outbox, bank, settings, unit.fail) as edge:
                unit.info_sources["backlog"] = lambda: outbox.waiting
                unit.info_sources["on"] = lambda: len(bank.on)
                unit.info_sources["runs"] = lambda: edge.begun
                unit.info_sources["refused"] = lambda: edge.refused
                await unit.serving()


def _end_well_on_hangup(unit: Unit) -> None:
    """A terminal that is closed, or Ctrl-backslash, would end us like a kill -9."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_DFL:
            asyncio.get_running_loop().add_signal_handler(number, unit.stop.set)


@dataclass(slots=True)
class _Pending:
    """An order that waits for its confirmation."""

    run: Run
    nonce: str
    asked_at: float
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class _Current:
    """A run whose id is on disk, or will be at the end of this turn."""

    run: Run
    asked_at: float
    on: bool = False
    """Its pumps were switched on."""


class PumpsEdge:
    """The pumps of one bar. ``with`` it, before the bus connects."""

    def __init__(
        self,
        bus: Bus,
        outbox: Outbox,
        bank: Bank,
        settings: BartenderSettings,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.begun = 0
        """Runs that were begun."""
        self.refused = 0
        self._bus = bus
        self._outbox = outbox
        self._bank = bank
        self._settings = settings
        self._fail = fail
        self._device = pumps_device(settings.bar)
        self._runs = Runs(outbox)
        self._telling = Telling(bus, outbox, self._runs, self._device, self._tell)
        self._pending: _Pending | None = None
        self._current: _Current | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger("pumps").bind(instance=bus.client_id)
        self._watchdog = Watchdog(bank, settings.watchdog_s, self._barked)
        topics = bus.topics
        bus.listen(topics.command(SERVICE, self._device, "run"), self._told_to_run)
        bus.listen(topics.command(SERVICE, self._device, "stop"), self._told_to_stop)
        bus.listen(topics.command(SERVICE, self._device, "confirm"), self._confirmed)
        bus.listen(topics.command(SERVICE, self._device, "report"), self._told_to_report)
        bus.listen(topics.status(SERVICE, self._device), self._status)
        bus.on_connect(self._connected)

    def __enter__(self) -> PumpsEdge:
        self._watchdog.__enter__()
        if (cut := self._runs.cut_off) is not None:
            ran = estimate(cut, self._bank.began_at, boot_id())
            self._log.error("a run was cut off", run=cut.run_id)
            self._telling.finished(cut.run_id, "failed", "the pumps' process was killed", ran)
        return self

    def __exit__(self, *_error: object) -> None:
        """All off, first of all; what becomes of the run is said while the outbox is open."""
        self._end("failed", "the pumps' process was stopped")
        self._telling.leave()
        if self._beating is not None:
            self._beating.cancel()
        self._watchdog.__exit__(None, None, None)

    # From the bus

    def _told_to_run(self, message: Message) -> None:
        message.ack()
        if message.retain:
            return
        try:
            run = decode(_run, message.payload)
        except msgspec.DecodeError as error:
            self._bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
            return
        if run.run_id in self._runs or (self._pending and self._pending.run.run_id == run.run_id):
            self._log.info("a repeat", run=run.run_id)
            self._tell()
            return
        wrong = order.complaint(run.seconds, PUMPS, self._settings.max_run_seconds)
        if wrong:
            self._refuse(run, "bad_order", wrong)
        elif self._pending or self._current or self._bank.on:
            self._refuse(run, "busy", "another run is under way")
        elif not self._watchdog.alive:
            self._give_up(RuntimeError("the watchdog is dead"))
        else:
            self._ask(run)

    def _told_to_stop(self, message: Message) -> None:
        """Stop, if there is any doubt: only a well-formed message that names another run is not
        for us."""
        message.ack()
        if message.retain:
            return
        try:
            which = decode(_stop, message.payload or b"{}").run_id
        except msgspec.DecodeError:
            which = None
        if which is None or which in (self._run_id, self._pending and self._pending.run.run_id):
            self._end("stopped", "stopped")

    def _confirmed(self, message: Message) -> None:
        message.ack()
        pending = self._pending
        if message.retain or pending is None:
            return
        try:
            confirm = decode(_confirm, message.payload)
        except msgspec.DecodeError as error:
            self._bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
            return
        if confirm.nonce != pending.nonce or confirm.run_id != pending.run.run_id:
            return
        self._put_away(pending)
        if self._late(pending.asked_at):
            self._refuse(pending.run, "late", "it was confirmed too late")
        else:
            self._begin(_Current(pending.run, pending.asked_at))

    def _told_to_report(self, message: Message) -> None:
        message.ack()
        if not message.retain:
            self._tell()

    def _status(self, message: Message) -> None:
        """The scheduler says ``offline`` for us when we are gone; it may say so too late."""
        message.ack()
        if message.payload != ONLINE:
            self._telling.online()

    async def _connected(self) -> None:
        self._telling.online()
        self._tell()

    # An order

    def _ask(self, run: Run) -> None:
        wait_s = self._settings.start_deadline_s
        timer = self._loop.call_later(wait_s, self._unconfirmed)
        self._pending = _Pending(run, new_id(), self._bank.clock(), timer)
        topic = self._bus.topics.event(SERVICE, self._device, "asked")
        with contextlib.suppress(Unavailable):  # then nobody confirms it, and it is refused
            self._bus.post(topic, encode(Asked(run.run_id, self._pending.nonce)))

    def _late(self, asked_at: float) -> bool:
        """Is it too late to begin what we have asked about then?"""
        return self._bank.clock() - asked_at > self._settings.start_deadline_s

    def _unconfirmed(self) -> None:
        if (pending := self._pending) is not None:
            self._put_away(pending)
            self._refuse(pending.run, "unsure", "the scheduler has not confirmed it")

    def _put_away(self, pending: _Pending) -> None:
        pending.timer.cancel()
        self._pending = None

    def _begin(self, current: _Current) -> None:
        """Write down that it is begun; only then begin."""
        run = current.run
        try:
            self._telling.started(run)
        except OutboxFull as error:
            self._refuse(run, "full", str(error))
            return
        self._current = current
        begun = Begun(run_id=run.run_id, seconds=run.seconds, at=self._bank.clock(), boot=boot_id())
        self._runs.begin(begun)
        self._outbox.after_commit(lambda ok: self._noted(current, ok))

    def _noted(self, current: _Current, ok: bool) -> None:
        """It is on disk, so it will never be begun again: pumps on, unless it is too late now, or
        it was stopped meanwhile."""
        if current is not self._current:
            return
        if not ok:
            self._current = None
            self._log.error("not begun: it cannot be written down", run=current.run.run_id)
            self._tell()
            return
        if self._late(current.asked_at):
            self._finish("failed", "writing it down took too long")
            return
        try:
            self._watchdog.beat()
            current.on = True
            self._bank.start({int(pump): s for pump, s in current.run.seconds.items()})
            self._watchdog.arm()
        except Exception as error:  # a pin that cannot be set: nothing was left on
            self._give_up(error)
            return
        self.begun += 1
        self._beat()
        self._turn()
        self._tell()

    # Time

    def _turn(self) -> None:
        """Switch off what is due; wait for the next, or say that all is done."""
        try:
            self._bank.sweep()
        except Exception as error:  # a pin that cannot be set
            self._give_up(error)
            return
        due = self._bank.due
        if due is not None:
            wait_s = max(SHORTEST_WAIT_S, due - self._bank.clock())
            self._timer = self._loop.call_later(wait_s, self._turn)
        elif cut_off := self._bank.cut_off:  # its bark is still to come
            self._finish("failed", cut_off)
        else:
            self._finish("done", "")

    def _beat(self) -> None:
        self._watchdog.beat()
        if self._bank.on:
            if not self._watchdog.alive:
                self._give_up(RuntimeError("the watchdog is dead"))
                return
            self._beating = self._loop.call_later(BEAT_S, self._beat)

    def _barked(self, reason: str) -> None:
        """In the watchdog's thread: everything is off."""
        self._loop.call_soon_threadsafe(self._cut_off, self._run_id, reason)

    def _cut_off(self, run_id: str | None, reason: str) -> None:
        if run_id is not None and run_id == self._run_id:  # not the next one
            self._end("failed", reason)

    # The end of a run

    def _give_up(self, error: BaseException) -> None:
        """We cannot go on: all off, and the unit ends; the next process begins with all off."""
        try:
            self._end("failed", f"the pumps' process failed: {error!r}")
        except Exception as again:  # the pins: the watchdog goes on trying until we are gone
            self._log.error("a pin cannot be set", exc_info=again)
        self._fail(error)

    def _end(self, result: Literal["stopped", "failed"], reason: str) -> None:
        """All off, now; what was on has ended so."""
        try:
            self._bank.stop()
        finally:
            if (pending := self._pending) is not None:
                self._put_away(pending)
                self._refuse(pending.run, result, reason)
            self._finish(result, reason)

    def _finish(self, result: Result, reason: str) -> None:
        """All pumps are off: the run, if there is one, has ended so."""
        current, self._current = self._current, None
        if self._timer is not None:
            self._timer.cancel()
        if current is None:
            return
        ran: dict[str, float] = {}
        if current.on:
            ran = {str(pump): round(seconds, 4) for pump, seconds in self._bank.ran.items()}
        self._telling.finished(current.run.run_id, result, reason, ran)

    def _refuse(self, run: Run, code: str, reason: str) -> None:
        self.refused += 1
        self._telling.refused(run.run_id, code, reason)

    # What is said

    @property
    def _run_id(self) -> str | None:
        return self._current.run.run_id if self._current else None

    def _tell(self) -> None:
        """Publish the state."""
        self._telling.state(
            PumpsState(
                edge=self._bus.client_id,
                driver=self._bank.driver,
                on=self._bank.on,
                run_id=self._run_id,
                remaining=round(self._bank.remaining(), 3),
                last_run=self._runs.last,
            )
        )
