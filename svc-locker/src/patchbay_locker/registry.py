"""Which boards the domain knows: at most ``max_boards``, and one goes when it is told to.

A board comes to be known by its first report, and its id is what it calls itself. When there are as
many as there may be, a stranger makes room (`room`): its document goes, and what the broker
retains of it. Its accesses go when their time is over. When there is none, the report of the new
board is refused, and becomes a dead letter.

What an earlier version has stored beyond the bound is not loaded, and is removed in the background,
but for boards that never make room: those are loaded however many there are.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import structlog

from patchbay.bus import Bus
from patchbay.inbox import Aggregate
from patchbay.messages import now
from patchbay.rate import TokenBucket
from patchbay.store import Document, Store
from patchbay_locker.announce import Announcer
from patchbay_locker.board import Board
from patchbay_locker.room import Rank, Strangers, rank
from patchbay_locker.store import BOARDS, LockerStore

SHOWN_PER_HOUR: Final = 10
"""New boards that are published while there are as many as there may be, after the first tenth of
`max_boards`. Of each topic that was ever retained Mosquitto 2.0 keeps 400 bytes, also once it is
cleared (measured), so that ids without end would fill it. Others are published once they are used:
edges, commands and lists know them all the same."""


class Registry:
    """Hold the boards' lock around all of it but `remove_surplus`."""

    def __init__(
        self, bus: Bus, store: Store, kept: LockerStore, announcer: Announcer, max_boards: int
    ) -> None:
        self.max_boards = max_boards
        self.refused = 0
        """Reports of new boards for which there was no room."""
        self.evicted = 0
        """Boards that have made room."""
        self.surplus = False
        """The store has boards for which there is no room: they are not loaded."""
        self._bus = bus
        self._store = store
        self._kept = kept
        self._announcer = announcer
        self._leaving: dict[str, None] = {}
        self._strangers = Strangers(self._rank)
        self._shown = TokenBucket(SHOWN_PER_HOUR / 3600.0, max(SHOWN_PER_HOUR, max_boards // 10))
        self._loaded = False
        self._log = structlog.get_logger("registry").bind(instance=bus.client_id)
        kept.boards.trim = self._trim

    def _rank(self, id: str) -> Rank | None:
        board = self._kept.boards.get(id)
        return None if board is None else _rank(board)

    # A new board

    def admit(self, id: str, moment: datetime) -> bool:
        """Is there room for this new board? Those that make room for it go with `evict`."""
        full = len(self._kept.boards) >= self.max_boards
        if self._shrink(self.max_boards - 1, moment):
            self._strangers.add(id)
            if full and not self._shown.take():
                self._announcer.hush(id)
            return True
        self.refused += 1
        return False

    def _shrink(self, most: int, moment: datetime) -> bool:
        """Have strangers leave until there are no more than ``most`` boards. False if they do not
        suffice."""
        boards = self._kept.boards
        if not self._loaded:
            self._loaded = True
            self._strangers.add(*(board.id for board in boards))
        while len(boards) + len(boards.faults) - len(self._leaving) > most:
            id = self._strangers.next(moment.timestamp(), self._leaving)
            if id is None:
                return False
            self._leaving[id] = None
        return True

    def stays(self, id: str) -> None:
        """It was to make room, and has just reported."""
        self._leaving.pop(id, None)

    async def evict(self, changed: dict[str, Aggregate[Board]], facts: list[Document]) -> None:
        """Remove those that make room, and take what this round has of them out of ``changed`` and
        ``facts``. Raises Unavailable; then all are as they were."""
        self._shrink(self.max_boards, now())
        leaving, self._leaving = list(self._leaving), {}
        if not leaving:
            return
        for id in leaving:
            changed.pop(id, None)
        prefixes = tuple(f"{id}:" for id in leaving)
        facts[:] = [one for one in facts if not one["_id"].startswith(prefixes)]
        try:
            await self._announcer.clear(leaving)
            await self._kept.boards.remove(leaving)
        except BaseException:
            self._kept.boards.doubt(leaving)
            raise
        self.evicted += len(leaving)

    def cancel(self) -> None:
        """The round has failed: nobody leaves."""
        self._kept.boards.doubt(self._leaving)
        self._leaving = {}

    # More than there may be

    def _trim(self, known: dict[str, Aggregate[Board]]) -> None:
        """Of boards that are loaded, drop those for which there is no room."""
        surplus = len(known) - self.max_boards
        if surplus <= 0:
            return
        strangers = Strangers(lambda id: _rank(known[id]))
        strangers.add(*known)
        for id in strangers.first(surplus, now().timestamp()):
            del known[id]
            self.surplus = True

    async def remove_surplus(self) -> None:
        """Remove from store and broker what was not loaded, a page at a time. Takes the boards'
        lock itself. Raises Unavailable."""
        boards = self._kept.boards
        if len(boards) > self.max_boards:
            self._log.warning("more boards than max_boards, and each was used", boards=len(boards))
        if not self.surplus:
            return
        self._log.warning("more boards than max_boards", loaded=len(boards), max=self.max_boards)
        removed = 0
        async for page in self._store.pages(BOARDS, {}):
            ids = [id for one in page if isinstance(id := one.get("_id"), str)]
            async with boards.lock:
                await boards.load()
                gone = [id for id in ids if boards.get(id) is None and id not in boards.faults]
                await self._announcer.clear(gone)
                await self._kept.boards.remove(gone)
            removed += len(gone)
        self.surplus = False
        self.evicted += removed
        self._log.warning("boards evicted that were never used", boards=removed)

    async def find_surplus(self, ids: Collection[str], moment: datetime) -> None:
        """Load those of these boards that the store still has; others make room. Raises
        Unavailable."""
        unknown = [id for id in ids if self._kept.boards.get(id) is None]
        if self.surplus and unknown:
            self._kept.boards.doubt(unknown)
            await self._kept.boards.load()
            self._strangers.add(*unknown)
            self._shrink(self.max_boards, moment)


def _rank(board: Aggregate[Board]) -> Rank | None:
    state = board.state
    return rank(state.reports, state.last_seen.timestamp()) if state.stranger() else None
