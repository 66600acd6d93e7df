"""Time in the locker domain: rentals that end, and boards that fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

import structlog

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import new_id, now, rfc3339
from patchbay.progress import Ticks
from patchbay_locker import rules
from patchbay_locker.announce import Announcer
from patchbay_locker.rules import Board, Effect
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import LockerStore
from patchbay_locker.timekeeper import Keep, Timekeeper

TICK_S = 0.5
"""How often time is looked at: an expiry is at most so late."""

TICK_BOARDS = 500
"""Boards that are looked at in one go: reports and commands come in between."""

SHOWN = 128
"""Characters of an id in the log."""

FAILED = timedelta(minutes=1)
"""A board for which time could not do what was due is tried again after so long."""

Collect = Callable[[Aggregate[Board], Iterable[Effect], str, str], None]
"""Takes the effects on a board, what they follow from, and when."""


class Ticker:
    """`run` it as a task. ``prepare`` loads the boards, ``keep`` saves them."""

    def __init__(
        self,
        bus: Bus,
        kept: LockerStore,
        settings: LockerSettings,
        time: Timekeeper,
        announcer: Announcer,
        prepare: Callable[[], Awaitable[None]],
        keep: Keep,
        collect: Collect,
    ) -> None:
        self._bus = bus
        self._kept = kept
        self._settings = settings
        self._time = time
        self._announcer = announcer
        self._prepare = prepare
        self._keep = keep
        self._collect = collect
        self._ticks = Ticks(bus.progress, "ticker", lambda: bus.connected)
        self._due: dict[str, datetime | None] = {}
        self._log = structlog.get_logger("ticker").bind(instance=bus.client_id)

    async def run(self) -> None:
        """Never returns."""
        period_s = min(TICK_S, self._settings.state_interval_s or TICK_S)
        states_at = 0.0
        while True:
            await asyncio.sleep(period_s)
            try:
                await self._tick()
                self._ticks.good()
            except Unavailable as error:
                self._ticks.failed(error)
                self._log.warning("periodic tick skipped: store unavailable", error=str(error))
            except Exception as error:  # the outermost loop of this task
                self._ticks.failed(error)
                self._log.error("tick failed", exc_info=error)
            if (clock := asyncio.get_running_loop().time()) >= states_at:
                states_at = clock + self._settings.state_interval_s
                await self._announcer.publish_saved_states()

    def watch(self, board: Aggregate[Board]) -> None:
        """Note when time will have something to do with this board."""
        self._due[board.id] = rules.due(
            board.state,
            self._settings.offline_after_s,
            self._time.listening_since,
            self._time.ends,
        )

    async def _tick(self) -> None:
        """Do what is due: end rentals, notice silence, forget what the broker has confirmed."""
        moment = now()
        if not self._bus.connected:
            self._time.listening_since = moment
        boards = self._kept.boards
        due = {id: None for id, at in self._due.items() if at is not None and at <= moment}
        if not due and not self._time.due and not any(board.pruned for board in boards):
            return
        ids = [*due, *(board.id for board in boards if board.pruned and board.id not in due)]
        for start in range(0, max(1, len(ids)), TICK_BOARDS):
            await self._tick_some(ids[start : start + TICK_BOARDS], moment)

    async def _tick_some(self, ids: list[str], moment: datetime) -> None:
        boards = self._kept.boards
        try:
            await self._tick_boards(ids, moment)
            return
        except Unavailable:
            raise
        except Exception as error:  # one of them is at fault: time goes on for the others
            self._log.error("tick failed, now board by board", boards=len(ids), error=repr(error))
            boards.doubt(ids)
        for id in ids:
            try:
                await self._tick_boards([id], moment)
            except Unavailable:
                raise
            except Exception as error:
                self._log.error("tick of a board failed", board=id[:SHOWN], error=repr(error))
                boards.doubt([id])
                self._due[id] = moment + FAILED

    async def _tick_boards(self, ids: Iterable[str], moment: datetime) -> None:
        boards = self._kept.boards
        async with boards.lock:
            await self._prepare()
            changed = []
            for id in ids:
                board = boards.get(id)
                if board is None:
                    self._due.pop(id, None)
                    continue
                effects = rules.tick(
                    board.state,
                    moment,
                    self._settings.offline_after_s,
                    self._time.listening_since,
                    self._time.ends,
                )
                if effects:
                    board.changed = True
                    self._collect(board, effects, new_id(), rfc3339(moment))
                self.watch(board)
                changed.append(board)
            await self._keep(changed)
