"""One client of a MongoDB, one database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import structlog
from msgspec import to_builtins

from patchbay.errors import DocumentRejected, SettingsError, Unavailable
from patchbay.lean import without
from patchbay.messages import MAX_ID, DeadLetter, now, parse_time, rfc3339
from patchbay.secret_file import read_secret
from patchbay.settings import StoreSettings
from patchbay.store.faults import ENCODING_ERRORS, describe, reaching
from patchbay.store.writer import PROBE_ID, Collection, Document, Writer

with without("cryptography"):
    import bson
    from bson.codec_options import DatetimeConversion
    from pymongo import AsyncMongoClient, DeleteOne, WriteConcern
    from pymongo.errors import OperationFailure, PyMongoError

ObjectId = bson.ObjectId

DEAD_LETTERS = "dead"
"""The collection that all services share for them."""

OTHER_INDEX = frozenset({85, 86})
"""MongoDB's codes IndexOptionsConflict and IndexKeySpecsConflict: there is one with these keys or
this name, and it is another."""

SELECTION_TIMEOUT_S = 2.0
"""How long an operation looks for a server that is away before it is Unavailable."""

INSERT_BATCH = 1000
"""Documents to one insert. More go as several at a time: the store works on the first while the
others are still being encoded."""

PAGE = 500
"""Documents that are read at a time where there may be many: some 1 MB of ours."""


class Store:
    """One client, one database. Nothing is connected until the first operation."""

    def __init__(self, settings: StoreSettings, uri: str, service: str = "") -> None:
        """``service``: whose dead letters are stored here.

        Raises SettingsError for an invalid URI, or a password file that cannot be read.
        """
        self.service = service
        self.dead_letters = 0
        """Dead letters that were stored since the start."""
        self._client = _client(settings, uri)

        concern = WriteConcern(w=1, j=True)
        self._database = self._client.get_database(settings.database, write_concern=concern)
        self._writer = Writer(self.collection, settings)

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
            async with reaching(through=OTHER_INDEX):
                await self._database[collection].create_index(list(keys), **options)
        except OperationFailure as error:
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
            log.warning("the index that is there stays", why=describe(why))
            return
        seconds = options["expireAfterSeconds"]
        index = {"keyPattern": dict(keys), "expireAfterSeconds": seconds}
        async with reaching():
            try:
                await self._database.command("collMod", collection, index=index)
            except OperationFailure as error:  # no reason to stand still
                log.warning(
                    "documents are kept for as long as before",
                    wanted_s=seconds,
                    why=describe(error),
                )
            else:
                log.info("documents are kept for another time", seconds=seconds)

    async def bury(
        self, collection: str, letter: DeadLetter, original: bytes = b"", content_type: str = ""
    ) -> None:
        """Store a dead letter, with the whole original if we have it, so that it can be replayed.

        ``at`` is its time, by which an index can let it go, or now, if it names a time to come. Of
        a letter that the store does not take, a part is stored. Raises Unavailable, also if the
        store takes not even that.
        """
        document: Document = to_builtins(letter)
        document["_id"] = document.pop("id")
        document["at"] = min(parse_time(letter.time), now())
        document["service"] = self.service
        whole = document
        if original:
            whole = {**document, "original": original, "content_type": content_type}
        short = {**document, "reason": letter.reason[:100], "hex": "", "text": ""}
        short |= {"topic": "", "peer": ""}
        why = ""
        for some in (whole, document, short):
            try:
                await self.insert_new(collection, [some])
            except DocumentRejected as error:
                why = str(error)
            else:
                self.dead_letters += 1
                return
        raise Unavailable(f"no dead letter can be stored: {why}")

    async def set_aside(self, collection: str, error: DocumentRejected) -> None:
        """Store a dead letter for each document that a write to ``collection`` was rejected for.

        For records that follow from documents elsewhere: one that the store never takes must not
        hold up the others. Raises Unavailable.
        """
        for id, (document, why) in error.documents.items():
            structlog.get_logger("store").error(
                "record set aside", collection=collection, id=str(id), why=why
            )
            try:
                original, kind = bson.encode(document), "application/bson"
            except ENCODING_ERRORS:
                original, kind = repr(document).encode(errors="replace"), "text/plain"
            letter = DeadLetter(
                id=f"{collection}:{id}"[:MAX_ID],
                reason=f"{collection}: {why}",
                time=rfc3339(now()),
                source="store",
                size=len(original),
                hex="",
            )
            await self.bury(DEAD_LETTERS, letter, original, kind)

    async def insert_new(self, collection: str, documents: Sequence[Document]) -> int:
        """Insert documents whose ``_id`` names them; those that are there already stay as they are.

        Returns how many were new. Raises Unavailable; then some may have been inserted, and
        inserting the same again completes the rest. Raises DocumentRejected when all but those are
        there.
        """
        chunks = [
            documents[start : start + INSERT_BATCH]
            for start in range(0, len(documents), INSERT_BATCH)
        ]
        inserts = (self._writer.insert(collection, some) for some in chunks)
        results = await asyncio.gather(*inserts, return_exceptions=True)
        done = 0
        rejected: list[DocumentRejected] = []
        for result in results:  # after all have ended: nothing goes on behind our back
            if isinstance(result, DocumentRejected):
                rejected.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                done += result
        if rejected:
            documents_of = {id: one for error in rejected for id, one in error.documents.items()}
            raise DocumentRejected(documents_of, encoding=all(error.encoding for error in rejected))
        return done

    async def save(self, collection: str, documents: Iterable[Document]) -> None:
        """Write documents by ``_id``, over what is there. Raises Unavailable, and DocumentRejected
        when all others are written."""
        await self._writer.save(collection, list(documents))

    async def replace(
        self, collection: str, changes: Iterable[tuple[Mapping[str, Any], Document]]
    ) -> int:
        """Put documents in the place of those that filters match. Returns how many matched.

        A driver that tries again after a lost connection may do one twice: make each filter one
        that its own document no longer matches. (Measured: half as dear as a ``$set`` of the same
        thirty fields.) Raises Unavailable, and DocumentRejected for what cannot be encoded.
        """
        return await self._writer.replace(collection, list(changes))

    async def find(
        self,
        collection: str,
        query: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
        skip: int = 0,
        limit: int = 0,
    ) -> list[Document]:
        """The documents that match. Raises Unavailable, QueryRejected."""
        async with reaching(query=True):
            cursor = self._database[collection].find(query, skip=skip, limit=limit)
            if sort:
                cursor = cursor.sort(list(sort))
            return [one for one in await cursor.to_list() if one.get("_id") != PROBE_ID]

    async def pages(
        self, collection: str, query: Mapping[str, Any], size: int = PAGE
    ) -> AsyncGenerator[list[Document]]:
        """The documents that match, ``size`` at a time: however many there are, memory holds one
        page, and other work goes on between two. Raises Unavailable, QueryRejected."""
        cursor = self._database[collection].find(query, batch_size=size)
        try:
            while True:
                async with reaching(query=True):
                    page = await cursor.to_list(size)
                if not page:
                    return
                yield [one for one in page if one.get("_id") != PROBE_ID]
        finally:
            await cursor.close()

    async def remove(self, collection: str, query: Mapping[str, Any]) -> int:
        """Delete the documents that match. Returns how many there were. Raises Unavailable."""
        async with reaching():
            result = await self._database[collection].delete_many(query)
            return result.deleted_count

    async def remove_ids(self, collection: str, ids: Iterable[Any]) -> int:
        """Delete documents by ``_id``. Returns how many there were. Raises Unavailable.

        One operation each (measured in SecantusDB: 0.1 s for 500; one query that names 500, 1 s).
        """
        operations = [DeleteOne({"_id": id}) for id in ids]
        if not operations:
            return 0
        async with reaching():
            result = await self._database[collection].bulk_write(operations, ordered=False)
            return result.deleted_count

    async def count(self, collection: str, query: Mapping[str, Any]) -> int:
        """How many documents match. Raises Unavailable, QueryRejected."""
        async with reaching(query=True):
            return await self._database[collection].count_documents(query)


def _client(settings: StoreSettings, uri: str) -> AsyncMongoClient[Document]:
    try:
        return AsyncMongoClient(
            uri,
            serverSelectionTimeoutMS=int(SELECTION_TIMEOUT_S * 1000),
            connectTimeoutMS=int(settings.timeout_s * 1000),  # the resolver's, too
            timeoutMS=int(settings.timeout_s * 1000),
            maxPoolSize=8,
            # A server that was marked as away by an error is looked at again within half a second;
            # the streaming mode would wait for its next heartbeat, for ten.
            serverMonitoringMode="poll",
            tz_aware=True,
            # What one document contains must not make the others unreadable.
            unicode_decode_error_handler="replace",
            datetime_conversion=DatetimeConversion.DATETIME_AUTO.name,
            appname="patchbay",
            **_credentials(settings),
        )
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        why = str(error)
        if "@" in uri:  # a part that is repeated may be one of the password
            why = re.sub(r"""(["']).*\1""", "...", why)
        raise SettingsError(f"[store] uri: {why}") from None


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
