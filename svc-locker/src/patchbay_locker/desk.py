"""Where people ask: the commands ``patchbay/locker/<board>/cmd/<name>`` and their answers.

The device ``all`` stands for all boards, for those commands that ask and change nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import encode, new_id, now
from patchbay.store import Document
from patchbay_locker import rules
from patchbay_locker.forget import Clear, Forgetting
from patchbay_locker.messages import (
    ALL,
    SERVICE,
    Ask,
    Assign,
    Block,
    Extend,
    Forget,
    Reset,
    Revoke,
    Unblock,
)
from patchbay_locker.rules import Board, Effect, Ends, SaveRental
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import LockerStore, public

Answer = dict[str, Any]
Handle = Callable[[Request, Any], Awaitable[Answer]]
Decide = Callable[[Board], tuple[Answer, list[Effect]]]
Keep = Callable[[Iterable[Aggregate[Board]]], Awaitable[None]]


def draw_code(length: int) -> str:
    """A code of so many digits, unpredictable."""
    return f"{secrets.randbelow(10**length):0{length}d}"


class Desk:
    """Serves the locker's commands. ``keep`` saves changed boards and publishes what follows."""

    def __init__(
        self,
        bus: Bus,
        kept: LockerStore,
        settings: LockerSettings,
        keep: Keep,
        ends: Ends,
        *,
        mark: Callable[[], str],
        clear: Clear,
    ) -> None:
        """``ends``: when a rental ends. ``mark``: for a new one (`Rental.clock`). ``clear``: see
        `Forgetting`."""
        self._kept = kept
        self._ends = ends
        self._mark = mark
        self._code_length = settings.code_length
        self._keep = keep
        self._in_doubt = ""
        forgetting = Forgetting(kept, ends, clear)
        Commands(
            bus,
            SERVICE,
            {
                "assign": self._changes(Assign, self._assign),
                "revoke": self._changes(Revoke, self._revoke),
                "extend": self._changes(Extend, self._extend),
                "block": self._changes(Block, self._block),
                "unblock": self._changes(Unblock, self._unblock),
                "reset": Command(
                    Reset, self._reset, moves=True, confirms=True, remembered=self._remembered
                ),
                "forget": Command(
                    Forget,
                    forgetting.handle,
                    desired=True,
                    confirms=True,
                    remembered=forgetting.remembered,
                ),
                "state": Command(Ask, self._state),
                "boards": Command(Ask, self._boards),
                "rentals": Command(Ask, self._rentals),
                "accesses": Command(Ask, self._accesses),
            },
            cancels=True,
        )

    # What changes a board

    def _changes(self, body: type[Any], handle: Handle) -> Command:
        """A command that changes what a board should be: stored, it takes effect with a report."""
        remembered = self._remembered
        return Command(body, handle, desired=True, confirms=True, remembered=remembered)

    async def _assign(self, request: Request, body: Assign) -> Answer:
        length, ends, mark = self._code_length, self._ends, self._mark()
        return await self._change(
            request,
            lambda board: rules.assign(board, body, now(), new_id, draw_code, length, ends, mark),
        )

    async def _revoke(self, request: Request, body: Revoke) -> Answer:
        return await self._change(
            request, lambda board: rules.revoke(board, body, now(), self._ends)
        )

    async def _extend(self, request: Request, body: Extend) -> Answer:
        return await self._change(
            request, lambda board: rules.extend(board, body, now(), self._ends)
        )

    async def _block(self, request: Request, body: Block) -> Answer:
        return await self._change(request, rules.block)

    async def _unblock(self, request: Request, body: Unblock) -> Answer:
        return await self._change(request, rules.unblock)

    async def _reset(self, request: Request, body: Reset) -> Answer:
        return await self._change(request, rules.reset)

    async def _change(self, request: Request, decide: Decide) -> Answer:
        """Confirm, decide, save, publish; the same request delivered again gets the same answer.

        Before it is confirmed nothing is changed. Reports go on while we wait for that. A save that
        fails leaves in doubt whether it landed; the bus then gives us the request once more, and
        the board itself knows.
        """
        boards = self._kept.boards
        async with boards.lock:
            _, before = await self._found(request)
        if before is not None:
            return before
        await request.confirm()
        async with boards.lock:
            aggregate, before = await self._found(request)
            if before is not None:
                return before
            answer, effects = decide(aggregate.state)
            aggregate.state.use()
            for effect in effects:
                if isinstance(effect, SaveRental):
                    self._kept.record(effect)
            aggregate.finish(request.id, encode(answer).decode())
            try:
                await self._keep([aggregate])
            except Unavailable:
                self._in_doubt = request.id
                raise
            self._in_doubt = ""
            return answer

    async def _found(self, request: Request) -> tuple[Aggregate[Board], Answer | None]:
        """The board of a request, and the answer that the request has had already. Hold the lock.
        Raises Rejected for a board not known."""
        await self._kept.prepare(now())
        self._kept.boards.require_readable(request.device)
        aggregate = self._kept.boards.get(request.device)
        rules.known(aggregate.state if aggregate else None, request.device)
        assert aggregate is not None  # noqa: S101 - known() has refused
        return aggregate, await self._answered(request, aggregate)

    async def _remembered(self, request: Request, body: object) -> Answer | None:
        """The answer that this request has had already."""
        boards = self._kept.boards
        async with boards.lock:
            await self._kept.prepare(now())
            aggregate = boards.get(request.device)
            return await self._answered(request, aggregate) if aggregate else None

    async def _answered(self, request: Request, board: Aggregate[Board]) -> Answer | None:
        if not request.again and request.id != self._in_doubt:
            return None
        answer = board.answered(request.id)
        if answer is not None:
            # The save landed, though it looked failed: what follows is still to be published.
            await self._keep([board])
        return answer

    # What only asks

    async def _state(self, request: Request, body: Ask) -> Answer:
        board = await self._asked_about(request)
        state = rules.state(rules.known(board.state if board else None, request.device))
        return {"board": msgspec.to_builtins(state)}

    async def _boards(self, request: Request, body: Ask) -> Answer:
        one = await self._asked_about(request)
        boards = [one] if one else sorted(self._kept.boards, key=lambda board: board.id)
        shown = boards[body.skip : body.skip + body.limit]
        states = [msgspec.to_builtins(rules.state(board.state)) for board in shown]
        return {"boards": states, "total": len(boards)}

    async def _rentals(self, request: Request, body: Ask) -> Answer:
        board = await self._asked_about(request)
        found, total = await self._kept.rentals(
            board.state.id if board else None,
            active=body.active,
            skip=body.skip,
            limit=body.limit,
        )
        shown: list[Document] = [
            {"rental": one["_id"], **fields}
            for one, fields in zip(found, public(found, "code"), strict=True)
        ]
        return {"rentals": shown, "total": total}

    async def _accesses(self, request: Request, body: Ask) -> Answer:
        board = await self._asked_about(request)
        found = await self._kept.accesses(
            board.id if board else None, skip=body.skip, limit=body.limit
        )
        total = sum(one.state.accesses for one in ([board] if board else self._kept.boards))
        return {"accesses": public(found), "total": total}

    async def _asked_about(self, request: Request) -> Aggregate[Board] | None:
        """The board that is asked about; None for all. Raises Rejected for one not known."""
        async with self._kept.boards.lock:
            await self._kept.prepare(now())
        if request.device == ALL:
            return None
        self._kept.boards.require_readable(request.device)
        board = self._kept.boards.get(request.device)
        rules.known(board.state if board else None, request.device)
        return board
