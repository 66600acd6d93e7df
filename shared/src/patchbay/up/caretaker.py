"""Restarts a broker or store that runs and does not work.

A process that is there may be frozen, or refuse everything: the embedded store does after its disk
was full. So each is probed with a write. One that has failed for `after_s` is started again, and
then at most as often: a disk that is still full heals when there is room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

PROBES_PER_PAUSE: Final = 6
"""A probe each five seconds, where one may fail for thirty."""

Probe = Callable[[], Awaitable[None]]
"""Writes something and sees it done. Any exception: it does not work, and why."""


class Caretaker:
    """Looks after one process. Times are seconds.

    ``restart`` starts it again; it blocks, and is called in a thread. ``changed`` is told whenever
    the process stops working, with the reason, or works again, with an empty one.
    """

    def __init__(
        self,
        name: str,
        probe: Probe,
        restart: Callable[[], None],
        changed: Callable[[str, str], None],
        *,
        after_s: float,
        timeout_s: float,
    ) -> None:
        self.name = name
        self._probe = probe
        self._restart = restart
        self._changed = changed
        self._after_s = after_s
        self._timeout_s = timeout_s
        self._failing_since: float | None = None
        self._restarted_at = float("-inf")

    async def watch(self) -> None:
        """Probe it until cancelled."""
        while True:
            why = await self._why_not()
            now = time.monotonic()
            if not why:
                self._works()
            elif self._failing_since is None:
                self._failing_since = now
            if self._failing_since is not None:
                since = max(self._failing_since, self._restarted_at)
                if now - since >= self._after_s:
                    self._changed(self.name, why)
                    await asyncio.to_thread(self._restart)
                    self._restarted_at = time.monotonic()
            await asyncio.sleep(self._after_s / PROBES_PER_PAUSE)

    def _works(self) -> None:
        if self._failing_since is not None:
            self._failing_since = None
            self._changed(self.name, "")

    async def _why_not(self) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._probe()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except Exception as error:  # whatever it is: it does not work
            return str(error) or repr(error)
        return ""
