"""What the scheduler tells the pumps: run this, it may begin; stop; what do you do?

cmd/run -> event/asked -> the requester confirms -> cmd/confirm       see docs/adr/0049
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.bus.requests import NO_SUBSCRIBER
from patchbay.errors import Rejected, Unavailable
from patchbay.messages import decode, encode, new_id
from patchbay_bartender import messages
from patchbay_bartender.bar import Run
from patchbay_bartender.messages import SERVICE, Asked, Confirm, Report, Stop, pumps_device

OFFLINE: Final = ("pumps_offline", "the pumps are offline")
SILENT: Final = ("not_started", "the pumps have not begun it")
STOPPED: Final = ("stopped", "stopped")

_asked = msgspec.json.Decoder(Asked)


@dataclass(slots=True)
class _Pending:
    """An order that was not confirmed yet. Times are monotonic."""

    run_id: str
    requested_at: float
    deadline: float
    nonce: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Of the pumps' question, or why there is none."""

    def fail(self, why: tuple[str, str]) -> None:
        if not self.nonce.done():
            self.nonce.set_exception(Rejected(*why))
            self.nonce.exception()  # nobody may wait for it


class Orders:
    """Orders of one bar, one at a time. ``deadline_s``: how long the pumps may take to ask."""

    def __init__(self, bus: Bus, bar: str, deadline_s: float) -> None:
        self._bus = bus
        self._device = pumps_device(bar)
        self._deadline_s = deadline_s
        self._clock = new_id()
        """Names the clock that orders tell: the monotonic one, as this process reads it."""
        self._pending: _Pending | None = None
        self._stopping: str | None = None
        self._stopped_at = -math.inf
        self._log = structlog.get_logger("orders").bind(instance=bus.client_id)
        bus.listen(bus.topics.event(SERVICE, self._device, "asked"), self._on_asked)

    async def order(self, run: Run, requested_at: float) -> None:
        """Order a run, and wait until the pumps ask whether it may begin.

        ``requested_at`` is when it was asked for, on the loop's clock, which is the monotonic one.
        Raises Rejected: then they never begin it.
        """
        now = time.monotonic()
        pending = self._pending = _Pending(run.id, requested_at, now + self._deadline_s)
        order = messages.Run(run_id=run.id, ordered_at=now, clock=self._clock, seconds=run.seconds)

        def on_ack(code: int | None) -> None:
            if code in (None, NO_SUBSCRIBER):
                pending.fail(OFFLINE)

        self._refuse_stopped(pending)
        try:
            topic = self._bus.topics.command(SERVICE, self._device, "run")
            self._bus.post(topic, encode(order), on_ack=on_ack)
        except Unavailable:
            raise Rejected(*OFFLINE) from None
        await asyncio.wait([pending.nonce], timeout=self._deadline_s)
        if not pending.nonce.done():
            raise Rejected(*SILENT)
        pending.nonce.result()

    def confirm(self, run: Run) -> None:
        """The run may begin. Raises Rejected: then it never does."""
        pending, self._pending = self._pending, None
        if pending is None or pending.run_id != run.id:
            raise Rejected(*SILENT)
        self._refuse_stopped(pending)
        confirm = Confirm(run.id, pending.nonce.result(), self._clock, time.monotonic())
        try:
            topic = self._bus.topics.command(SERVICE, self._device, "confirm")
            self._bus.post(topic, encode(confirm))
        except Unavailable:
            raise Rejected("unavailable", "the broker is away: nothing is poured") from None

    def call_off(self, run_id: str) -> None:
        """This run is never confirmed; the pumps need not wait for that."""
        if self._pending is not None and self._pending.run_id == run_id:
            self._pending = None
        self._tell("stop", Stop(run_id=run_id))

    def refused(self, run_id: str, reason: str) -> None:
        """The pumps do not begin this run."""
        if self._pending is not None and self._pending.run_id == run_id:
            self._pending.fail(("refused", f"the pumps refused it: {reason}"))

    def stop(self, which: str | None, told_at: float) -> None:
        """Stop this run, or whatever the pumps do. One that has not begun is not confirmed, nor,
        when all are stopped, one that was asked for before ``told_at``, on the loop's clock, and is
        being saved."""
        if which is None:
            self._stopped_at = told_at
        else:
            self._stopping = which
        self._tell("stop", Stop(run_id=which))
        if self._pending is not None and self._is_stopped(self._pending):
            self._pending.fail(STOPPED)

    def ask(self) -> None:
        """What do the pumps do now?"""
        self._tell("report", Report())

    def _is_stopped(self, pending: _Pending) -> bool:
        return self._stopping == pending.run_id or pending.requested_at <= self._stopped_at

    def _refuse_stopped(self, pending: _Pending) -> None:
        if self._is_stopped(pending):
            self._log.warning("stopped before it began", run=pending.run_id)
            raise Rejected(*STOPPED)

    def _on_asked(self, message: Message) -> None:
        """The pumps have an order: may it begin? A late question is left unanswered."""
        message.ack()
        try:
            asked = decode(_asked, message.payload)
        except msgspec.DecodeError as error:
            self._bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
            return
        pending = self._pending
        in_time = pending is not None and time.monotonic() < pending.deadline
        if message.late or pending is None or pending.run_id != asked.run_id or not in_time:
            self._log.warning("not confirmed", run=asked.run_id)
        elif not pending.nonce.done():
            pending.nonce.set_result(asked.nonce)

    def _tell(self, name: str, body: msgspec.Struct) -> None:
        with contextlib.suppress(Unavailable):
            self._bus.post(self._bus.topics.command(SERVICE, self._device, name), encode(body))
