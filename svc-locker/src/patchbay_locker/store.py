"""What the locker service keeps in MongoDB.

    boards     one document a board: `board.Board`, changed by compare-and-set. The truth
    rentals    one a rental, for looking up: {_id, board, cell, code, holder, created_at,
               expires_at, status: active | expired | revoked, ended_at}
    accesses   one for each cell in a report's BOX_ACC: {_id, board, boot, send, cell, rental, at,
               maybe_repeat}
    forgotten  one for each of the last boards that an operator has removed: `Forgotten`
    dead       dead letters, for as long as ``[store] events_ttl_s`` says

``board`` is the board's own id; ``_id`` in ``boards`` is its id in topics, and each ``_id`` in
``accesses`` begins with that and rises with time (while SEND has ten digits or fewer). There is no
other index there (measured: a second one makes each insert three times as dear): ask for a board's
accesses by the range of ids. They are inserted as time goes on, so the oldest stand first in the
store's own order, and those whose time is over are found there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct

from patchbay.errors import DocumentRejected
from patchbay.inbox import Aggregates
from patchbay.messages import DeadLetter, rfc3339
from patchbay.store import Document, Store
from patchbay.topics import device_id
from patchbay_locker.board import Access, Board, SaveRental

BOARDS = "boards"
RENTALS = "rentals"
ACCESSES = "accesses"
FORGOTTEN = "forgotten"
DEAD = "dead"

ENDLESS_S: Final = 2_147_483_647
"""The longest time that an index of MongoDB keeps a document: 68 years."""

EXPIRED_PIECE: Final = 1000
"""Accesses that are looked at, and removed, at a time: the service's other work goes on between."""

FORGOTTEN_MOST: Final = 1000
"""Removed boards that are remembered; of more, the oldest are not."""


class Forgotten(Struct, frozen=True):
    """A board that was removed. Edges that were away then have to be told when they come; and a
    report from before that does not make the board known again."""

    id: str
    rev: int
    """Of its last list of codes: a board that comes back begins above it."""
    at: datetime
    request: str = ""
    """The command that removed it, and what that was answered."""
    answer: str = ""


class LockerStore:
    """The collections of the locker service."""

    def __init__(
        self,
        store: Store,
        dead_letters_ttl_s: int,
        rentals_ttl_s: int = 0,
        accesses_ttl_s: int = 0,
    ) -> None:
        """How long each is kept; 0: for ever."""
        self._store = store
        self._ttl_s = dead_letters_ttl_s
        self._rentals_ttl_s = rentals_ttl_s or ENDLESS_S
        self._accesses_ttl_s = accesses_ttl_s
        self._rentals: dict[str, Document] = {}
        self._prepared = False
        self.boards: Aggregates[Board] = Aggregates(store, BOARDS, Board)
        self.forgotten: dict[str, Forgotten] = {}
        """Boards that were removed, by id, the oldest first."""

    async def prepare(self, now: datetime) -> None:
        """Make indexes, read the boards, and finish what a kill cut short: at the start, and after
        each save that failed. Raises Unavailable."""
        if await self.boards.load():
            self._prepared = False
        if self._prepared:
            return
        await self._store.ensure_index(RENTALS, [("board", 1), ("created_at", -1)])
        # By it ended rentals go, and active ones, which have not ended, are found.
        await self._store.ensure_index(
            RENTALS, [("ended_at", 1)], expireAfterSeconds=self._rentals_ttl_s
        )
        await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=self._ttl_s)
        self.forgotten = await self._load_forgotten()
        await self._finish_forgetting()
        await self._reconcile(now)
        self._prepared = True

    async def save_facts(self, accesses: list[Document]) -> None:
        """Keep accesses; those that are kept already stay as they are. Raises Unavailable."""
        await self._store.insert_new(ACCESSES, accesses)

    def record(self, effect: SaveRental) -> None:
        """A rental's record to be written by `save_records`."""
        self._rentals[effect.rental.id] = _rental(effect)

    async def save_records(self) -> None:
        """Write what `record` was given. Raises Unavailable; then they are written later."""
        documents = list(self._rentals.values())
        try:
            await self._store.save(RENTALS, documents)
        except DocumentRejected as error:  # the boards are the truth, and go on
            await self._store.set_aside(RENTALS, error)
        for one in documents:
            if self._rentals.get(one["_id"]) is one:
                del self._rentals[one["_id"]]

    async def _reconcile(self, now: datetime) -> None:
        """The boards are the truth; a kill may have come between a board and its records, or a
        record have been made of a decision that was not kept."""
        running = {
            rental.id: (aggregate.state.id, rental)
            for aggregate in self.boards
            for rental in aggregate.state.rentals.values()
        }
        self._rentals = {
            id: one
            for id, one in self._rentals.items()
            if one["status"] != "active" and id not in running
        }
        active = await self._active()
        for id, (board, rental) in running.items():
            if id not in active or active[id]["expires_at"] != rental.expires_at:
                self.record(SaveRental(rental, board, "active"))
        for id, one in active.items():
            if device_id(one["board"]) in self.boards.faults:
                continue  # nobody can say whether it still runs
            if id not in running and id not in self._rentals:
                over = one["expires_at"] <= now
                ended = {
                    "status": "expired" if over else "revoked",
                    "ended_at": one["expires_at"] if over else now,
                }
                self._rentals[id] = {**one, **ended}
        await self.save_records()

    async def _active(self) -> dict[str, Document]:
        """The records of active rentals, without those that cannot be read."""
        active: dict[str, Document] = {}
        for one in await self._store.find(RENTALS, {"ended_at": None, "status": "active"}):
            for key, kind in (("_id", str), ("board", str), ("expires_at", datetime)):
                if not isinstance(one.get(key), kind):
                    fault = f"{key} must be a {kind.__name__}"
                    if self.boards.report is not None:
                        await self.boards.report(RENTALS, one.get("_id"), fault)
                    break
            else:
                active[one["_id"]] = one
        return active

    # Removing

    async def remove_history(self, device: str, board: str) -> dict[str, int]:
        """Remove a board's rentals and accesses. Returns how many there were. Raises
        Unavailable."""
        return {
            RENTALS: await self._store.remove(RENTALS, {"board": board}),
            ACCESSES: await self._store.remove(ACCESSES, {"_id": _ids_of(device)}),
        }

    async def forget(self, board: Forgotten) -> None:
        """Remember that a board was removed, and remove it. Raises Unavailable; then it is removed
        by the next `prepare`, or nothing has happened."""
        fields = msgspec.structs.asdict(board)
        await self._store.save(FORGOTTEN, [{"_id": fields.pop("id"), **fields}])
        self.forgotten.pop(board.id, None)
        self.forgotten[board.id] = board
        surplus = list(self.forgotten)[:-FORGOTTEN_MOST]
        if surplus:
            await self._store.remove_ids(FORGOTTEN, surplus)
            for id in surplus:
                del self.forgotten[id]
        await self.boards.remove([board.id])

    async def _load_forgotten(self) -> dict[str, Forgotten]:
        found = []
        for one in await self._store.find(FORGOTTEN, {}):
            try:
                fields = {**one, "id": one["_id"]}
                found.append(msgspec.convert(fields, Forgotten, builtin_types=(datetime,)))
            except (KeyError, msgspec.ValidationError) as error:
                if self.boards.report is not None:
                    await self.boards.report(FORGOTTEN, one.get("_id"), str(error))
        return {one.id: one for one in sorted(found, key=lambda one: one.at)}

    async def _finish_forgetting(self) -> None:
        """A kill may have come between the note that a board is removed and its removal. One that
        was taken in later is another board."""
        for id, gone in self.forgotten.items():
            board = self.boards.get(id)
            if board is not None and (board.state.since or board.state.first_seen) <= gone.at:
                await self.boards.remove([id])

    async def remove_expired(self, now: datetime, pause_s: float) -> int:
        """Remove accesses whose time is over, a piece at a time with pauses between. Returns how
        many there were. Raises Unavailable."""
        if not self._accesses_ttl_s:
            return 0
        until = now - timedelta(seconds=self._accesses_ttl_s)
        removed = 0
        async with contextlib.aclosing(self._store.pages(ACCESSES, {}, EXPIRED_PIECE)) as pages:
            async for page in pages:
                over = [one["_id"] for one in page if _is_before(one.get("at"), until)]
                if not over:
                    break
                removed += await self._store.remove_ids(ACCESSES, over)
                await asyncio.sleep(pause_s)
        return removed

    # Questions

    async def rentals(
        self, board: str | None, *, active: bool, skip: int, limit: int
    ) -> tuple[list[Document], int]:
        """Rentals of a board or of all, newest first, and how many there are."""
        query: dict[str, Any] = {} if board is None else {"board": board}
        if active:
            query["status"] = "active"
        found = await self._store.find(
            RENTALS, query, sort=[("created_at", -1)], skip=skip, limit=limit
        )
        return found, await self._store.count(RENTALS, query)

    async def accesses(self, device: str | None, *, skip: int, limit: int) -> list[Document]:
        """Accesses of a board, newest first, or of all, by board.

        How many there are the boards know: counting millions takes a store seconds.
        """
        query = {} if device is None else {"_id": _ids_of(device)}
        return await self._store.find(ACCESSES, query, sort=[("_id", -1)], skip=skip, limit=limit)

    async def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Raises Unavailable."""
        await self._store.bury(DEAD, letter)


def _is_before(at: Any, until: datetime) -> bool:
    return isinstance(at, datetime) and at < until


def _ids_of(device: str) -> dict[str, str]:
    """The range of the ids of a board's accesses."""
    return {"$gte": f"{device}:", "$lt": f"{device};"}


def access(event_id: str, board: str, effect: Access) -> Document:
    """The document of an access: its id is the report's and the cell."""
    return {
        "_id": f"{event_id}:{effect.cell:04d}",
        "board": board,
        "boot": effect.boot,
        "send": effect.send,
        "cell": effect.cell,
        "rental": effect.rental,
        "at": effect.at,
        "maybe_repeat": effect.maybe_repeat,
    }


def _rental(effect: SaveRental) -> Document:
    rental = effect.rental
    return {
        "_id": rental.id,
        "board": effect.board,
        "cell": rental.cell,
        "code": rental.code,
        "holder": rental.holder,
        "created_at": rental.created_at,
        "expires_at": rental.expires_at,
        "status": effect.status,
        "ended_at": effect.ended_at,
    }


def public(documents: Iterable[Document], *hidden: str) -> list[Document]:
    """Documents as an answer shows them: without ``_id`` and what is hidden, times as RFC 3339."""
    return [
        {
            key: rfc3339(value) if isinstance(value, datetime) else value
            for key, value in one.items()
            if key != "_id" and key not in hidden
        }
        for one in documents
    ]
