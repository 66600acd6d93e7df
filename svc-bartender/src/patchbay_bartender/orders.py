"""What the scheduler tells the pumps: run this, it stands; stop; what do you do?

cmd/run -> event/asked -> cmd/confirm        see docs/adr/0036
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.bus.requests import NO_SUBSCRIBER
from patchbay.errors import Unavailable
from patchbay.messages import decode, encode, new_id
from patchbay_bartender import messages
from patchbay_bartender.bar import Run
from patchbay_bartender.messages import SERVICE, Asked, Confirm, Report, Stop, pumps_device

_asked = msgspec.json.Decoder(Asked)


class Orders:
    """Orders of one bar. ``current``: the run that stands now, if one does."""

    def __init__(self, bus: Bus, bar: str, current: Callable[[], Run | None]) -> None:
        self._bus = bus
        self._device = pumps_device(bar)
        self._current = current
        self._clock = new_id()
        """Names the clock that orders tell: the monotonic one, as this process reads it."""
        self._ordered_at = 0.0
        self._stopping: str | None = None
        self._stopped_at = -math.inf
        self._log = structlog.get_logger("orders").bind(instance=bus.client_id)
        bus.listen(bus.topics.event(SERVICE, self._device, "asked"), self._asked)

    async def order(self, run: Run, ordered_at: float, sent: Callable[[], None]) -> bool:
        """Order a run; call ``sent``, then wait for the broker. False: nobody hears it.

        ``ordered_at`` is when it was asked for, on the loop's clock, which is the monotonic one.
        """
        self._ordered_at = ordered_at
        order = messages.Run(
            run_id=run.id, ordered_at=ordered_at, clock=self._clock, seconds=run.seconds
        )
        heard: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def settle(code: int | None) -> None:
            if not heard.done():
                heard.set_result(code)

        try:
            topic = self._bus.topics.command(SERVICE, self._device, "run")
            self._bus.post(topic, encode(order), on_ack=settle)
        except Unavailable:
            return False
        sent()
        return await heard not in (None, NO_SUBSCRIBER)

    def stop(self, which: str | None, told_at: float) -> None:
        """Stop this run, or whatever the pumps do. One that has not begun is not confirmed, nor,
        when all are stopped, one that was asked for before ``told_at``, on the loop's clock, and is
        being saved."""
        if which is None:
            self._stopped_at = told_at
        else:
            self._stopping = which
        self._tell("stop", Stop(run_id=which))

    def ask(self) -> None:
        """What do the pumps do now?"""
        self._tell("report", Report())

    def _asked(self, message: Message) -> None:
        """The pumps have an order: does it stand, and what time is it?"""
        message.ack()
        try:
            asked = decode(_asked, message.payload)
        except msgspec.DecodeError as error:
            self._bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
            return
        run = self._current()
        if message.late or run is None or run.id != asked.run_id:
            self._log.warning("not confirmed", run=asked.run_id)
            return
        if self._stopping == run.id or self._ordered_at <= self._stopped_at:
            self._log.warning("stopped before it began", run=run.id)
            self._tell("stop", Stop(run_id=run.id))  # the first may have come before the order
            return
        self._tell("confirm", Confirm(asked.run_id, asked.nonce, self._clock, time.monotonic()))

    def _tell(self, name: str, body: msgspec.Struct) -> None:
        with contextlib.suppress(Unavailable):
            self._bus.post(self._bus.topics.command(SERVICE, self._device, name), encode(body))
