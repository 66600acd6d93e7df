"""Devices at work: every access that a board was answered, and every job, must be kept.

A board knows what was answered. A Chromebook is answered nothing: what it said is safe once the
intake has read it, so its jobs are sent while the intake is up, and each to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from patchbay.testing import eventually
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from patchbay_locker.simulator import Behaviour, Board, Unanswered
from tests.containers.composed import System

PERIOD_S: Final = 0.1
PERSISTED_TIMEOUT_S: Final = 90.0


class Load:
    """Ten boards that report ten times a second and, unless told otherwise, a Chromebook."""

    def __init__(self, system: System, name: str, *, jobs: bool = True) -> None:
        self._system = system
        self._name = name
        self._jobs = jobs
        self.sent = 0
        """Jobs that were said to their end."""
        self.boards = [
            Board(f"{name}-{number}", system.ports["locker"], behaviour=Behaviour(1.0))
            for number in range(10)
        ]

    @property
    def answered(self) -> int:
        """Reports of boards that were answered."""
        return sum(board.reports_answered for board in self.boards)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At work for as long as the context lasts."""
        lives = [self._report(board) for board in self.boards]
        if self._jobs:
            lives.append(self._send())
        tasks = [asyncio.create_task(life) for life in lives]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
        assert not failed, failed

    async def all_kept(self) -> None:
        """Wait until the store has every answered access and every job; each only once."""
        for board in self.boards:  # the last word of each, so that nothing is still on its way
            await board.report(deadline_s=PERSISTED_TIMEOUT_S)
            board.disconnect()
        assert all(board.accesses for board in self.boards), "there was no load"
        await eventually(self._nothing_is_missing, PERSISTED_TIMEOUT_S)
        for board in self.boards:
            kept = await self._accesses(board)
            assert len(kept) == len(set(kept)), f"{board.id}: something was kept twice"
            assert set(kept) <= board.accesses_sent, f"{board.id}: something was made up"
        assert len(await self._kept_jobs()) == self.sent

    async def _nothing_is_missing(self) -> bool:
        for board in self.boards:
            if not set(board.accesses) <= set(await self._accesses(board)):
                return False
        return len(await self._kept_jobs()) >= self.sent

    async def _accesses(self, board: Board) -> list[tuple[int, int, int]]:
        """(boot, send, cell), the boots counted from 0 as the board counts them."""
        found = await asyncio.to_thread(self._system.documents, "accesses", {"board": board.id})
        boots = sorted({one["boot"] for one in found})
        return [(boots.index(one["boot"]), one["send"], one["cell"]) for one in found]

    async def _kept_jobs(self) -> list[str]:
        query = {"ClientName": self._name}
        found = await asyncio.to_thread(self._system.documents, "jobs", query)
        return [one["data"]["CustomerName"] for one in found]

    async def _report(self, board: Board) -> None:
        cell = 0
        while True:
            cell = cell % 64 + 1
            with contextlib.suppress(Unanswered):  # the access stays with the board
                await board.report(accessed=[cell])
            await asyncio.sleep(PERIOD_S)

    async def _send(self) -> None:
        while True:
            job = Job(self._name, f"customer {self.sent}", f"{self.sent:06x}")
            await send("127.0.0.1", self._system.ports["allocator"], job)
            self.sent += 1
            await asyncio.sleep(PERIOD_S)
