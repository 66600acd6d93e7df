"""Does a unit get on with its work? If not: is the cause in the unit, or outside?

    ok        each kind of work has nothing to do, or got on lately
    waiting   one has not got on for ``stuck_after_s``, and waits for the store, the broker, a
              domain or room on its disk: starting the unit again would heal nothing
    stuck     one has not got on for as long, and nothing outside keeps it: start it again

A heartbeat alone says that a process lives, not that it works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from patchbay.errors import Unavailable

OK: Final = "ok"
WAITING: Final = "waiting"
STUCK: Final = "stuck"

BROKER: Final = "broker"
STORE: Final = "store"
DOMAIN: Final = "domain"
DISK: Final = "disk"
"""Causes outside of a unit."""

FROZEN_S: Final = 10.0
"""Whoever looks every two seconds and has not for so long was stopped, or slept with the machine:
that time is nobody's fault."""


class Verdict(NamedTuple):
    """``what`` names the work that does not get on; ``cause`` is outside, or empty."""

    state: str = OK
    cause: str = ""
    what: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.cause or self.what}" if self.what else self.state


class Work:
    """One kind of work of a unit. Call `moved` whenever it has got on."""

    __slots__ = ("_clock", "cause", "moved_at", "name", "pending")

    def __init__(
        self,
        name: str,
        pending: Callable[[], bool],
        cause: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.pending = pending
        self.cause = cause
        self._clock = clock
        self.moved_at = clock()

    def moved(self) -> None:
        """It has got on, now."""
        self.moved_at = self._clock()


class Progress:
    """All kinds of work of one unit. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._works: list[Work] = []
        self._looked_at = clock()
        self.moved = False
        """Something pending has got on since the start."""

    def watch(self, name: str, pending: Callable[[], bool], cause: Callable[[], str]) -> Work:
        """One more kind of work. ``pending``: is there something to do? ``cause``: who outside
        keeps it from getting on, one of the words above; empty if nobody does."""
        work = Work(name, pending, cause, self._clock)
        self._works.append(work)
        return work

    def cause_of_others(self, work: Work) -> str:
        """What outside keeps other work from getting on: a tick may wait behind that."""
        others = (one for one in self._works if one is not work and one.pending())
        return next((cause for one in others if (cause := one.cause())), "")

    def look(self, stuck_after_s: float) -> Verdict:
        """How is it now? Call it every few seconds."""
        now = self._clock()
        frozen_s = now - self._looked_at
        self._looked_at = now
        verdict = Verdict()
        for work in self._works:
            if frozen_s > FROZEN_S:
                work.moved_at = min(now, work.moved_at + frozen_s)
            if not work.pending():
                work.moved_at = now
            elif now - work.moved_at >= stuck_after_s:
                cause = work.cause()
                if not cause:
                    return Verdict(STUCK, "", work.name)
                if verdict.state == OK:
                    verdict = Verdict(WAITING, cause, work.name)
        return verdict


class Ticks:
    """Work that is always due, such as a domain's periodic tick: each has to go well now and then.

    ``connected``: is the broker there?
    """

    def __init__(self, progress: Progress, name: str, connected: Callable[[], bool]) -> None:
        self._progress = progress
        self._connected = connected
        self._waits = False
        self._work = progress.watch(name, lambda: True, self._cause)

    def good(self) -> None:
        """One has gone well."""
        self._waits = False
        self._work.moved()

    def failed(self, error: Exception) -> None:
        """One has failed: with Unavailable for something outside."""
        self._waits = isinstance(error, Unavailable)

    def _cause(self) -> str:
        if self._waits:
            return STORE if self._connected() else BROKER
        return self._progress.cause_of_others(self._work)
