"""``cmd/forget``: an operator removes a board that is gone.

What the broker retains of it goes first: a kill in between leaves a board that is published again.
Then the store notes that it is removed (`store.Forgotten`), and removes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from patchbay.bus import Request
from patchbay.errors import Rejected
from patchbay.inbox import Aggregate
from patchbay.messages import encode, now
from patchbay_locker.board import Board, SaveRental
from patchbay_locker.messages import Forget
from patchbay_locker.rules import Ends, known
from patchbay_locker.store import BOARDS, Forgotten, LockerStore

Answer = dict[str, Any]
Clear = Callable[[Sequence[str]], Awaitable[None]]
"""Clears what the broker retains of boards, and has edges forget them."""


class Forgetting:
    """Handles the command. ``ends``: when a rental ends."""

    def __init__(self, kept: LockerStore, ends: Ends, clear: Clear) -> None:
        self._kept = kept
        self._ends = ends
        self._clear = clear

    async def handle(self, request: Request, body: Forget) -> Answer:
        """Remove a board, or a document that cannot be read. Raises Rejected ``unknown_board``,
        and ``rented`` if it has active rentals and the command does not say ``force``."""
        boards = self._kept.boards
        async with boards.lock:
            before = await self._found(request, body)
        if before is not None:
            return before
        await request.confirm()
        async with boards.lock:
            before = await self._found(request, body)
            if before is not None:
                return before
            return await self._remove(request, body)

    async def remembered(self, request: Request, body: object) -> Answer | None:
        """The answer that this request has had already."""
        async with self._kept.boards.lock:
            await self._kept.prepare(now())
            return self._answered(request)

    async def _found(self, request: Request, body: Forget) -> Answer | None:
        """Raises Rejected if there is nothing to remove, or it must not be. Hold the lock."""
        await self._kept.prepare(now())
        before = self._answered(request)
        if before is not None or request.device in self._kept.boards.faults:
            return before
        board = self._kept.boards.get(request.device)
        state = known(board.state if board else None, request.device)
        active = [one for one in state.rentals.values() if self._ends(one) > now()]
        if active and not body.force:
            cells = ", ".join(str(one.cell) for one in active)
            raise Rejected("rented", f"board {state.id} has active rentals: cells {cells}")
        return None

    def _answered(self, request: Request) -> Answer | None:
        gone = self._kept.forgotten.get(request.device)
        if gone is None or gone.request != request.id:
            return None
        answer: Answer = msgspec.json.decode(gone.answer)
        return answer

    async def _remove(self, request: Request, body: Forget) -> Answer:
        """Hold the lock. Raises Unavailable; then the command is handled once more."""
        device = request.device
        board: Aggregate[Board] | None = self._kept.boards.get(device)
        id = board.state.id if board else device
        await self._clear([device])
        moment = now()
        removed = {BOARDS: 1}
        if board is not None:
            for rental in board.state.rentals.values():
                self._kept.record(SaveRental(rental, id, "revoked", moment))
            await self._kept.save_records()
        if body.documents == "remove":
            removed |= await self._kept.remove_history(device, id)
        answer = {"board": id, "documents": body.documents, "removed": removed}
        rev = board.state.rev if board else 0
        gone = Forgotten(device, rev, moment, request.id, encode(answer).decode())
        await self._kept.forget(gone)
        return answer
