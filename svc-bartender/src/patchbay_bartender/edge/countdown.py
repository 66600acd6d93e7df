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
"""An end that moves by less is the same run, heard of late or from a scheduler that was killed and
is back: each second is still said once. One that moves by more is said as it is."""

SILENCE_S: Final = 3.0
"""So long after its time a run of which nobody says anything is over for GUIs: a killed scheduler
is back by then."""


class Countdown:
    """Calls ``say`` with whole seconds: at the start, every second, and with 0 at the end.

    None is said twice of a run, and none left out, however often and late we hear of it.
    """

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._run: str | None = None
        self._over: str | None = None
        """The run that was said to be over though nobody had told us."""
        self._ended: str | None = None
        """The run that was over when we were told: what comes of it now was under way."""
        self._end_at = 0.0
        self._rounded_s = 0.0
        """The end may be so much earlier: it was told in whole seconds, rounded up."""
        self._next: int | None = None
        """What is said next; 0: nothing before the end; None: what is true then."""
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def remaining(self) -> int:
        """Whole seconds to the end, rounded up; 0 while nothing runs."""
        if self._run is None:
            return 0
        left = max(1, whole_seconds(self._end_at - self._loop.time()))
        return left if self._next is None else min(left, self._next + 1)

    def busy(self, run: str, remaining_s: float) -> None:
        """This run takes so long from now."""
        end_at = self._loop.time() + remaining_s
        if run == self._ended or (run == self._over and remaining_s <= 0):
            return
        if run != self._run:
            self._begin(run, end_at, self._loop.time())
        elif abs(end_at - self._end_at) > CLOSE_S:
            if abs(end_at - self._end_at) > ROUGH_S:
                self._next = None
            self._end_at, self._rounded_s = end_at, 0.0
            self._wait()

    def about(self, run: str, seconds: int) -> None:
        """This run takes so many whole seconds from now, rounded up."""
        above_s = self._loop.time() + seconds - self._end_at
        if run != self._run or not -ROUGH_S < above_s < 1 + ROUGH_S:
            self.busy(run, seconds)
            self._rounded_s = 1.0

    def found(self, run: str, at_most_s: float) -> None:
        """This run was under way some time ago, and took so long then. It is said only if nobody
        says better."""
        if run not in (self._run, self._over, self._ended):
            now = self._loop.time()
            self._begin(run, now + at_most_s, now + ROUGH_S)

    def idle(self) -> None:
        """Nothing runs."""
        self._over = None
        if self._run is not None:
            self._ended = self._run
            self._end()

    def close(self) -> None:
        """Say nothing more."""
        self._cancel()

    def _begin(self, run: str, end_at: float, first_at: float) -> None:
        self._run, self._end_at, self._rounded_s = run, end_at, 0.0
        self._next, self._next_at = None, first_at
        if first_at <= self._loop.time():
            self._tick()
        else:
            self._wait()

    def _tick(self) -> None:
        now = self._loop.time()
        seconds = whole_seconds(self._end_at - now) if self._next is None else self._next
        if seconds:
            self._say(seconds)
            self._next, self._next_at = seconds - 1, self._next_at + 1.0
        elif now >= self._end_at + SILENCE_S:
            self._over = self._run
            self._end()
            return
        else:
            self._next = 0
        self._wait()

    def _wait(self) -> None:
        """For the next second, or after the last one for somebody to say that it is over."""
        self._cancel()
        if self._next == 0:
            at = self._end_at + SILENCE_S
        else:
            left = whole_seconds(self._end_at - self._next_at)
            if self._next is not None and self._next != left:  # the end has moved
                self._next_at = self._end_at - self._next
            at = self._next_at
        self._timer = self._loop.call_at(at, self._tick)

    def _end(self) -> None:
        """Say what should have been said by now, if we are late ourselves, and 0."""
        self._cancel()
        self._run = None
        end_at = self._end_at - self._rounded_s
        while self._next and end_at - self._next <= self._loop.time():
            self._say(self._next)
            self._next -= 1
        self._say(0)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
