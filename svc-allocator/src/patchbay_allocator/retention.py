"""Which jobs are removed because they ended long ago, and which event comes too late for that.

A job that is ``done`` or ``error`` is removed ``jobs_ttl_s`` after its last change; one that waits
or is in progress never. Its event may still come once more: an edge that was switched off sends
again what was not acknowledged, weeks later. So a trace of each removed job stays in ``events`` for
``events_ttl_s``, as of one that was deleted. An event that is older than both may be of a job whose
trace is gone, too, or of one that never came: its job is parked, so that nothing is lost and
nothing is mixed twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from patchbay.messages import now
from patchbay_allocator.removals import REMOVED_AT_ONCE
from patchbay_allocator.store import AllocatorStore

INTERVAL_S: Final = 60.0
"""How often old jobs are looked for, by an index."""

PAGE_PAUSE_S: Final = 1.0
SHARE: Final = 20
"""While there are more: at least this pause, and one part in so many of the time."""


class Retention:
    """Removes old jobs. ``jobs_ttl_s``: 0 is never."""

    def __init__(self, kept: AllocatorStore, jobs_ttl_s: int, events_ttl_s: int) -> None:
        self._kept = kept
        self._ttl = timedelta(seconds=jobs_ttl_s)
        self._known = timedelta(seconds=jobs_ttl_s + events_ttl_s)
        self._due_at = -1e9
        self.clock_unsure: Callable[[], bool] = lambda: False
        """After a boot whose clock nobody has synchronized nothing is old."""

    async def work(self) -> int:
        """Remove what is due, a page at most. Returns how many jobs. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        if not self._ttl or loop.time() < self._due_at or self.clock_unsure():
            return 0
        began = loop.time()
        self._due_at = began + PAGE_PAUSE_S
        moment = now()
        count = await self._kept.expire(moment - self._ttl, moment)
        self._due_at = loop.time() + max(PAGE_PAUSE_S, (loop.time() - began) * SHARE)
        if count < REMOVED_AT_ONCE:
            self._due_at = loop.time() + min(INTERVAL_S, self._ttl.total_seconds())
        return count

    def complaint(self, at: datetime, moment: datetime) -> str:
        """Why a job that was sent at ``at`` is not mixed without being asked for; or empty."""
        if not self._ttl or moment - at <= self._known:
            return ""
        days = (moment - at).days
        return f"it came {days} days late and may have been mixed already: retry mixes it"
