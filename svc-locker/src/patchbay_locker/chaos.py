"""Boards for ``patchbay chaos``: each access in an answered report has to be in the store."""

from __future__ import annotations

import asyncio
from collections import Counter

from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.store import Store
from patchbay.topics import device_id
from patchbay_locker.settings import LockerSettings
from patchbay_locker.simulator import Behaviour, Board, Unanswered

BOARDS = 6
INTERVAL_S = 0.3
ANSWER_S = 3.0
"""A frozen edge is given up for a new connection after so long."""


class Boards(Load):
    """Boards that report, each report with one access."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        port = around.config.port(around.config.table("locker", LockerSettings).port)
        behaviour = Behaviour(answer_timeout_s=ANSWER_S)
        self.boards = [
            Board(f"chaos-{number}", port, behaviour=behaviour, chance=around.chance)
            for number in range(1, BOARDS + 1)
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for board in self.boards:
                group.create_task(self._live(board))

    async def _live(self, board: Board) -> None:
        cell = 0
        while not self.quiet.is_set():
            cell = cell % 64 + 1
            try:
                await board.report(accessed=[cell], deadline_s=5.0)
            except Unanswered:
                continue  # the access stays in the next report
            await self.pause(INTERVAL_S)
        board.disconnect()

    async def tally(self, store: Store) -> Tally:
        ids = [board.id for board in self.boards]
        stored: dict[str, Counter[tuple[int, int]]] = {id: Counter() for id in ids}
        for one in await store.find("accesses", {"board": {"$in": ids}}):
            stored[one["board"]][one["send"], one["cell"]] += 1
        documents = {
            one["_id"]: one
            for one in await store.find("boards", {"_id": {"$in": list(map(device_id, ids))}})
        }
        tally = Tally()
        for board in self.boards:
            found = stored[board.id]
            accepted = {(send, cell) for _, send, cell in board.accesses}
            sent = {(send, cell) for _, send, cell in board.accesses_sent}
            tally.accepted += len(accepted)
            tally.unknown += len(sent) - len(accepted)
            tally.lost += [
                f"{board.id} SEND={send} cell {cell}" for send, cell in accepted - {*found}
            ]
            tally.doubled += [f"{board.id} {one}" for one, times in found.items() if times > 1]
            tally.doubled += [f"{board.id} {one}: never sent" for one in {*found} - sent]
            document = documents.get(device_id(board.id), {})
            counted, there = document.get("accesses", 0), found.total()
            if counted != there:
                tally.miscounted.append(f"{board.id}: counts {counted} accesses, has {there}")
            reports = document.get("reports", 0)
            if not board.reports_answered <= reports <= board.reports_sent:
                tally.miscounted.append(
                    f"{board.id}: counts {reports} reports; {board.reports_answered} were answered,"
                    f" {board.reports_sent} were sent"
                )
        return tally
