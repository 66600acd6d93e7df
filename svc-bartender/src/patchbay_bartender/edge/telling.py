"""What the pumps' edge says: its state, and of each run, for good, how it began and ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import structlog

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.messages import encode
from patchbay.outbox import Outbox, OutboxFull
from patchbay_bartender.edge.runs import Runs
from patchbay_bartender.messages import (
    SERVICE,
    PumpsFinished,
    PumpsRefused,
    PumpsStarted,
    PumpsState,
    Result,
    Run,
)

RETRY_S: Final = 1.0
"""How often what the outbox had no room for is tried again."""

ONLINE, OFFLINE = b"online", b"offline"


class Telling:
    """Tells for one bar's pumps. ``told`` is called when an end is on disk."""

    def __init__(
        self, bus: Bus, outbox: Outbox, runs: Runs, device: str, told: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._outbox = outbox
        self._runs = runs
        self._device = device
        self._told = told
        self._leaving = False
        self._log = structlog.get_logger("pumps").bind(instance=bus.client_id)

    def online(self) -> None:
        """The pumps are there."""
        if not self._leaving:
            self._retain(self._bus.topics.status(SERVICE, self._device), ONLINE)

    def leave(self) -> None:
        """We go, and the pumps with us. What is not on disk yet is told by the next process."""
        self._leaving = True
        self._retain(self._bus.topics.status(SERVICE, self._device), OFFLINE)

    def state(self, state: PumpsState) -> None:
        """What the pumps do now."""
        self._retain(self._bus.topics.state(SERVICE, self._device), encode(state))

    def started(self, run: Run) -> None:
        """A run begins, once this turn of the loop is on disk. Raises OutboxFull."""
        self._add("started", run.run_id, PumpsStarted(run.run_id, run.seconds))

    def finished(self, run_id: str, result: Result, reason: str, ran: dict[str, float]) -> None:
        """All pumps of a run are off."""
        self._log.info("run ended", run=run_id, result=result, reason=reason)
        self._record("finished", run_id, PumpsFinished(run_id, result, reason, ran))

    def refused(self, run_id: str, code: str, reason: str) -> None:
        """A run was not begun, and will not be."""
        self._log.warning("run refused", run=run_id, code=code, reason=reason)
        self._record("refused", run_id, PumpsRefused(run_id, code, reason))

    def _record(self, name: str, run_id: str, data: Any) -> None:
        """Say how a run ended, for good; while there is no room for it, it is tried again."""
        try:
            self._add(name, run_id, data)
        except OutboxFull as error:
            self._record_later(name, run_id, data, str(error))
            return
        if name == "finished":
            self._runs.end(run_id)
        else:
            self._runs.remember(run_id)

        def committed(ok: bool) -> None:
            if not ok:
                self._record_later(name, run_id, data, "the commit has failed")
            self._told()

        self._outbox.after_commit(committed)

    def _record_later(self, name: str, run_id: str, data: Any, why: str) -> None:
        self._log.error("an end is not written down yet", run=run_id, why=why)
        if not self._leaving:
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_S, self._record, name, run_id, data)

    def _add(self, name: str, run_id: str, data: Any) -> None:
        self._outbox.add(
            self._device,
            name,
            key=f"{run_id}/{name}",
            subject=self._device,
            time=self._outbox.now(),
            data=data,
        )

    def _retain(self, topic: str, payload: bytes) -> None:
        """While the broker is away the next connect does it."""
        with contextlib.suppress(Unavailable):
            self._bus.post(topic, payload, retain=True)
