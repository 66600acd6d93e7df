"""Is there room on the outbox's disk? (see `patchbay.outbox.reserve`)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from patchbay.log import Logger
from patchbay.outbox.journal import Journal
from patchbay.outbox.writer import Writer

DISK_RETRY_S: Final = 1.0
"""A full disk is tried again after so long."""


class Room:
    """The room that is kept on the disk, and whether a commit may use more."""

    def __init__(self, journal: Journal, writer: Writer, log: Logger) -> None:
        self._journal = journal
        self._writer = writer
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.retry_at = 0.0
        self.ok = journal.hold_reserve()
        """Was the last commit with events written?"""
        if not self.ok:
            log.error("outbox full: no room on its disk")

    def lost(self) -> None:
        """A commit found none: use what was kept, to forget what is acknowledged, and that only."""
        self.ok = False
        self.retry_at = self._loop.time() + DISK_RETRY_S
        self._journal.give_up_reserve()

    def worth_a_try(self) -> bool:
        """Might a commit with events be written? Looked at every second."""
        now = self._loop.time()
        if not self.ok and not self._journal.holds_reserve and now >= self.retry_at:
            self.retry_at = now + DISK_RETRY_S
            self._hold(lambda: None)
        return self.ok or self._journal.holds_reserve

    def found(self, *, wrote: bool, then: Callable[[], None]) -> None:
        """A commit was written. There is room again when the reserve can be held, and when that
        commit had events; until then only more is forgotten."""

        def held() -> None:
            if self._journal.holds_reserve and wrote:
                self._log.info("outbox is written again")
                self.ok = True
            then()

        self._hold(held)

    def _hold(self, then: Callable[[], None]) -> None:
        def hold() -> None:
            self._journal.hold_reserve()

        self._writer.run(hold, lambda _error: then())
