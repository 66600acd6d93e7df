"""What GUIs are told of a run: how long it still takes, from its start to 0.

The GUI in use closes its window at 0, so there is one in every case: also when scheduler or broker
are away, and nobody says that it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from patchbay_bartender.messages import CLOSE_S, whole_seconds

ROUGH_S: Final = 1.5
"""Whole seconds, rounded up and some time on their way, are no better: what differs by less from
what we know changes nothing. It is said every second, so that in this time we hear of it."""

SILENCE_S: Final = 3.0
"""So long after its time a run of which nobody says anything is over for GUIs: a killed scheduler
is back by then."""


class Countdown:
    """Calls ``say`` with whole seconds: at the start, every second, and with 0 at the end."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._run: str | None = None
        self._over: str | None = None
        """The run that was said to be over though nobody had told us."""
        self._end_at = 0.0
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def remaining(self) -> int:
        """Whole seconds to the end, rounded up; 0 while nothing runs."""
        if self._run is None:
            return 0
        return max(1, whole_seconds(self._end_at - self._loop.time()))

    def busy(self, run: str, remaining_s: float) -> None:
        """This run takes so long from now."""
        end_at = self._loop.time() + remaining_s
        if run != self._run:
            if run == self._over and remaining_s <= 0:
                return
            self._cancel()
            self._run, self._end_at = run, end_at
            self._next_at = self._loop.time()
            self._tick()
        elif abs(end_at - self._end_at) > CLOSE_S:
            self._end_at = end_at
            self._wait()

    def about(self, run: str, seconds: int) -> None:
        """This run takes so many whole seconds from now, rounded up."""
        if run != self._run or abs(self._loop.time() + seconds - self._end_at) > ROUGH_S:
            self.busy(run, seconds)

    def found(self, run: str, at_most_s: float) -> None:
        """This run was under way some time ago, and took so long then. It is said only if nobody
        says better."""
        if run not in (self._run, self._over):
            self._cancel()
            now = self._loop.time()
            self._run, self._end_at, self._next_at = run, now + at_most_s, now + ROUGH_S
            self._wait()

    def idle(self) -> None:
        """Nothing runs."""
        self._over = None
        if self._run is not None:
            self._end()

    def close(self) -> None:
        """Say nothing more."""
        self._cancel()

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if whole_seconds(self._end_at - now):
            self._say(self.remaining)
            self._next_at += 1.0
            self._wait()
        elif now < self._end_at + SILENCE_S:
            self._wait()
        else:
            self._over = self._run
            self._end()

    def _wait(self) -> None:
        """For the next whole second, or after the last one for somebody to say that it is over."""
        self._cancel()
        left = whole_seconds(self._end_at - max(self._next_at, self._loop.time()))
        at = self._next_at if left else self._end_at + SILENCE_S
        self._timer = self._loop.call_at(at, self._tick)

    def _end(self) -> None:
        self._cancel()
        self._run = None
        self._say(0)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
