"""What the domain removes in the background: boards beyond the bound, and accesses of long ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.messages import now
from patchbay_locker.registry import Registry
from patchbay_locker.store import LockerStore

PERIOD_S: Final = 3600.0
"""How often it is looked for what is over: SecantusDB reads all accesses each time (measured: 0.7 s
for 40,000), MongoDB the oldest only."""

RETRY_S: Final = 5.0
"""After the store or the broker was away."""

PAUSE_S: Final = 0.1
"""Between two pieces: reports and commands come first."""


class Housekeeping:
    """``run`` it as a task. ``unsure``: nobody knows what time it is, so that nothing is over."""

    def __init__(
        self, bus: Bus, kept: LockerStore, registry: Registry, unsure: Callable[[], bool]
    ) -> None:
        self.removed = 0
        """Accesses that were removed."""
        self._bus = bus
        self._kept = kept
        self._registry = registry
        self._unsure = unsure
        self._log = structlog.get_logger("housekeeping").bind(instance=bus.client_id)

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                await self._bus.wait_online()
                await self._registry.remove_surplus()
                await self._remove_expired()
            except Unavailable as error:
                self._log.info("housekeeping waits", why=str(error))
                await asyncio.sleep(RETRY_S)
            except Exception as error:  # the outermost loop of this task
                self._log.error("housekeeping failed", exc_info=error)
                await asyncio.sleep(PERIOD_S)
            else:
                await asyncio.sleep(PERIOD_S)

    async def _remove_expired(self) -> None:
        if self._unsure():
            return
        removed = await self._kept.remove_expired(now(), PAUSE_S)
        self.removed += removed
        if removed:
            self._log.info("accesses removed: kept long enough", number=removed)
