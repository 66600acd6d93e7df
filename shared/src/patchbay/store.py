"""The store: MongoDB, wrapped once.

Every write is acknowledged and journaled (``w: 1, j: true``): measured, without ``j`` a kill -9
lost tens of documents. Connection failures come out as Unavailable; everything else is a bug and
comes out as it is.
Batch what can be batched: an unordered `insert_new` is ten times faster than upserts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import structlog
from msgspec import to_builtins

from patchbay.errors import Unavailable
from patchbay.lean import without
from patchbay.messages import DeadLetter, parse_time
from patchbay.secret_file import read_secret
from patchbay.settings import StoreSettings

with without("cryptography"):
    import bson
    from pymongo import AsyncMongoClient, ReplaceOne, WriteConcern
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import (
        BulkWriteError,
        ConnectionFailure,
        ExecutionTimeout,
        OperationFailure,
        WTimeoutError,
    )

Document = dict[str, Any]
ObjectId = bson.ObjectId
Collection = AsyncCollection[Document]

DUPLICATE_KEY = 11000

UNAUTHORIZED = 13

REFUSED = frozenset({UNAUTHORIZED, 18})
"""MongoDB's codes Unauthorized and AuthenticationFailed: somebody has to set it up, and meanwhile
all waits where it is safe."""

OTHER_INDEX = frozenset({85, 86})
"""MongoDB's codes IndexOptionsConflict and IndexKeySpecsConflict: there is one with these keys or
this name, and it is another."""

ADMIN_TIMEOUT_S = 30.0
"""Who sets a store up waits until it has started."""

SELECTION_TIMEOUT_S = 2.0
"""How long an operation looks for a server that is away before it is Unavailable."""

INSERT_BATCH = 1000
"""Documents to one insert. More go as several at a time: the store works on the first while the
others are still being encoded."""


class Store:
    """One client, one database. Nothing is connected until the first operation."""

    def __init__(self, settings: StoreSettings, uri: str) -> None:
        """Raises SettingsError for a password file that cannot be read."""
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            serverSelectionTimeoutMS=int(SELECTION_TIMEOUT_S * 1000),
            timeoutMS=int(settings.timeout_s * 1000),
            maxPoolSize=8,
            tz_aware=True,
            appname="patchbay",
            **_credentials(settings),
        )
        concern = WriteConcern(w=1, j=True)
        self._database = self._client.get_database(settings.database, write_concern=concern)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    def collection(self, name: str) -> Collection:
        """A collection, with our write concern. Wrap what is done with it in `reaching`."""
        return self._database[name]

    async def ping(self) -> None:
        """Is the store there? Raises Unavailable."""
        async with reaching():
            await self._database.command("ping")

    async def ensure_index(
        self, collection: str, keys: Sequence[tuple[str, int]], **options: Any
    ) -> None:
        """Create an index; harmless when it is there already. Raises Unavailable.

        Where there is another with these keys, that one holds: only how long it keeps documents is
        changed, if we may (MongoDB's action collMod).
        """
        try:
            async with reaching():
                await self._database[collection].create_index(list(keys), **options)
        except OperationFailure as error:
            if error.code not in OTHER_INDEX:
                raise
            await self._change_index(collection, keys, options, error)

    async def _change_index(
        self,
        collection: str,
        keys: Sequence[tuple[str, int]],
        options: Mapping[str, Any],
        why: OperationFailure,
    ) -> None:
        """Another ``expireAfterSeconds`` can be set; an index is not made anew for the rest, which
        would take long and let nothing go meanwhile."""
        log = structlog.get_logger("store").bind(collection=collection, index=dict(keys))
        if "expireAfterSeconds" not in options:
            log.warning("the index that is there stays", why=str(why))
            return
        seconds = options["expireAfterSeconds"]
        index = {"keyPattern": dict(keys), "expireAfterSeconds": seconds}
        try:
            async with reaching(REFUSED - {UNAUTHORIZED}):
                await self._database.command("collMod", collection, index=index)
        except OperationFailure as error:  # no reason to stand still
            log.warning(
                "documents are kept for as long as before", wanted_s=seconds, why=str(error)
            )
        else:
            log.info("documents are kept for another time", seconds=seconds)

    async def bury(self, collection: str, letter: DeadLetter) -> None:
        """Keep a dead letter. ``at`` is its time, by which an index can let it go. Raises
        Unavailable."""
        document: Document = to_builtins(letter)
        document["_id"] = document.pop("id")
        document["at"] = parse_time(letter.time)
        await self.insert_new(collection, [document])

    async def insert_new(self, collection: str, documents: Sequence[Document]) -> int:
        """Insert documents whose ``_id`` names them; those that are there already stay as they are.

        Returns how many were new. Raises Unavailable; then some may have been inserted, and saying
        the same again completes the rest.
        """
        chunks = [
            documents[start : start + INSERT_BATCH]
            for start in range(0, len(documents), INSERT_BATCH)
        ]
        inserts = (self._insert(collection, some) for some in chunks)
        results = await asyncio.gather(*inserts, return_exceptions=True)
        for result in results:  # after all have ended: nothing goes on behind our back
            if isinstance(result, BaseException):
                raise result
        return sum(result for result in results if isinstance(result, int))

    async def _insert(self, collection: str, documents: Sequence[Document]) -> int:
        async with reaching():
            try:
                await self._database[collection].insert_many(documents, ordered=False)
            except BulkWriteError as error:
                details = error.details or {}
                codes = {failure.get("code") for failure in details.get("writeErrors", [])}
                if codes != {DUPLICATE_KEY} or details.get("writeConcernErrors"):
                    raise
                return int(details.get("nInserted", 0))
            return len(documents)

    async def save(self, collection: str, documents: Iterable[Document]) -> None:
        """Write documents by ``_id``, over what is there. Raises Unavailable."""
        writes = [ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in documents]
        if writes:
            async with reaching():
                await self._database[collection].bulk_write(writes, ordered=False)

    async def replace(
        self, collection: str, changes: Iterable[tuple[Mapping[str, Any], Document]]
    ) -> int:
        """Put documents in the place of those that filters match. Returns how many matched.

        A driver that tries again after a lost connection may do one twice: make each filter one
        that its own document no longer matches. (Measured: half as dear as a ``$set`` of the same
        thirty fields.) Raises Unavailable.
        """
        writes = [ReplaceOne(which, what) for which, what in changes]
        if not writes:
            return 0
        async with reaching():
            result = await self._database[collection].bulk_write(writes, ordered=False)
            return result.matched_count

    async def find(
        self,
        collection: str,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
        skip: int = 0,
        limit: int = 0,
    ) -> list[Document]:
        """The documents that match. Raises Unavailable."""
        async with reaching():
            cursor = self._database[collection].find(query, skip=skip, limit=limit)
            if sort:
                cursor = cursor.sort(list(sort))
            return await cursor.to_list()

    async def remove(self, collection: str, query: Mapping[str, Any]) -> int:
        """Delete the documents that match. Returns how many there were. Raises Unavailable."""
        async with reaching():
            result = await self._database[collection].delete_many(query)
            return result.deleted_count

    async def count(self, collection: str, query: Mapping[str, Any]) -> int:
        """How many documents match. Raises Unavailable."""
        async with reaching():
            return await self._database[collection].count_documents(query)


class Administrator:
    """The user of a MongoDB who makes the others. ``async with``."""

    def __init__(self, uri: str, user: str, password: str) -> None:
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            username=user,
            password=password,
            serverSelectionTimeoutMS=int(ADMIN_TIMEOUT_S * 1000),
            appname="patchbay",
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def define(
        self, database: str, kind: Literal["role", "user"], name: str, definition: Document
    ) -> bool:
        """Make a role or a user, or replace what it was. True if it is new. Raises Unavailable."""
        async with reaching():
            found = await self._client[database].command({f"{kind}sInfo": name})
            new = not found[f"{kind}s"]
            verb = "create" if new else "update"
            await self._client[database].command({f"{verb}{kind.title()}": name, **definition})
        return new


def _credentials(settings: StoreSettings) -> dict[str, Any]:
    """What the driver has to know of us. Our users are those of our own database."""
    if settings.username is None or settings.password_file is None:
        return {}
    key = "[store] password_file"
    return {
        "username": settings.username,
        "password": read_secret(settings.password_file, settings.username, key),
        "authSource": settings.database,
    }


@contextlib.asynccontextmanager
async def reaching(refused: frozenset[int] = REFUSED) -> AsyncIterator[None]:
    """Around an operation: what means "away for now" comes out as Unavailable, the codes in
    ``refused`` too.

    Being cancelled comes out as it is. The driver waits with ``asyncio.wait_for``, which before
    Python 3.12 loses one cancellation in some fifty (measured): whoever stops such a task and then
    waits for its end would wait for ever.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
    except (ConnectionFailure, WTimeoutError, ExecutionTimeout) as error:
        raise Unavailable(f"the store is away: {error}") from error
    except BulkWriteError as error:
        if (error.details or {}).get("writeConcernErrors"):
            raise Unavailable(f"the store did not confirm: {error}") from error
        raise
    except OperationFailure as error:
        if error.code in refused:
            raise Unavailable(f"the store refuses us: {error}") from error
        raise
    finally:
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError
