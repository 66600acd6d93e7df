"""Where what blocks on the outbox's file runs: in the event loop, or in a thread.

A commit waits for the disk. While the disk is quick that is cheapest in the loop: handing a commit
to a thread and back costs a lone device 14 to 28 % of its rate (measured). On a slow disk, an SD
card that takes 50 ms or a second, the loop must not wait, so commits move to a thread as soon as
their average exceeds `SLOW_S`, and back when it has fallen below half of it.

One job runs at a time, and the next begins only after the loop has handled the end of the one
before: so while `Writer.busy` is False, the loop may use the file itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

SLOW_S: Final = 0.002
"""Average duration of a commit above which the loop does not wait for it. An SSD takes 0.1 ms."""

WEIGHT: Final = 0.2
"""Share of the latest commit in the average: one slow commit in a row of quick ones (a checkpoint,
a descheduled process) moves the next few into the thread, not all that follow."""

Job: TypeAlias = Callable[[], None]

Then: TypeAlias = Callable[[Exception | None], None]
"""Called in the loop when a job has ended, with what it raised."""


class Writer:
    """Runs jobs in order, one at a time. ``threaded``: always in the thread."""

    def __init__(self, *, threaded: bool = False) -> None:
        self.threaded = threaded
        """Does the next job run in the thread?"""
        self._always = threaded
        self._average_s = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._running: tuple[Future[float], Then] | None = None
        self._queue: deque[tuple[Job, Then]] = deque()
        self._readers: dict[Callable[[], None], None] = {}

    @property
    def busy(self) -> bool:
        """Is a job running in the thread? Then the loop must not use the file."""
        return self._running is not None

    def run(self, job: Job, then: Then) -> None:
        """Run ``job`` after those before it; ``then`` is called in the loop when it has ended,
        before this returns if it ran in the loop."""
        if self.busy or self._queue:
            self._queue.append((job, then))
        else:
            self._start(job, then)

    def when_idle(self, read: Callable[[], None]) -> None:
        """Call ``read`` as soon as the loop may use the file: at once if it may now. One that is
        waiting already is not called twice."""
        if self.busy:
            self._readers[read] = None
        else:
            read()

    def finish(self) -> None:
        """Block until all jobs have ended: for what cannot wait."""
        while self._running is not None:
            future, _ = self._running
            future.exception()  # waits
            self._ended(future)

    async def idle(self) -> None:
        """Wait until all jobs have ended."""
        while self._running is not None:
            future, _ = self._running
            await asyncio.wait([asyncio.wrap_future(future)])
            self._ended(future)

    def close(self) -> None:
        """End the thread. `finish` first."""
        if self._pool is not None:
            self._pool.shutdown()

    def _start(self, job: Job, then: Then) -> None:
        if self.threaded:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "outbox")
            loop = asyncio.get_running_loop()
            future = self._pool.submit(_timed, job)
            self._running = future, then
            future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._ended, done))
            return
        error: Exception | None = None
        start = time.perf_counter()
        try:
            job()
        except Exception as raised:
            error = raised
        self._measure(time.perf_counter() - start)
        then(error)

    def _ended(self, future: Future[float]) -> None:
        if self._running is None or self._running[0] is not future:
            return  # `finish` or `idle` was here before
        then = self._running[1]
        self._running = None
        error = future.exception()
        if error is None:
            self._measure(future.result())
        elif not isinstance(error, Exception):
            raise error
        try:
            then(error)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Begin what waits: first those who read, since the next job may start at once."""
        if self._running is None:
            readers, self._readers = self._readers, {}
            for read in readers:
                read()
        while self._queue and self._running is None:
            self._start(*self._queue.popleft())

    def _measure(self, took_s: float) -> None:
        self._average_s += WEIGHT * (took_s - self._average_s)
        self.threaded = self._always or self._average_s > (SLOW_S / 2 if self.threaded else SLOW_S)


def _timed(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start
