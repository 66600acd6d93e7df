"""A link before a MongoDB that refuses writes on purpose and passes everything else through.

    async with StoreLink("127.0.0.1", store.port) as link:
        link.refuse_writes(Refusal(14031, "OutOfDiskSpace", how="documents", collections={"jobs"}))
        link.resume()

The client must not look for servers beyond the link: a standalone server, or a URI with
``directConnection=true``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from bson import encode
from bson.errors import BSONError

from patchbay.chaos import wire
from patchbay.chaos.link import Connection, Direction, Link

WRITES: Final = frozenset({"insert", "update", "delete", "findAndModify", "bulkWrite"})

How = Literal["command", "documents", "write concern", "lands", "hangs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Which writes fail, and how.

    ``how``:

    - ``command``: the command is answered with an error and not done;
    - ``documents``: each document is answered with a write error and not written; those that the
      refusal does not hit are written. A findAndModify fails as a command;
    - ``write concern``: it is done, and answered with a write concern error;
    - ``lands``: it is done, and the connection is reset in the place of an answer;
    - ``hangs``: it is not done, and never answered.

    ``collections``: of these only. ``only``: statements for which this holds only (an insert's
    document, an update's ``{q, u}``, as they are encoded); other than with ``documents`` one such
    statement is enough for the whole command. ``commands``: which are writes. ``labels``: those of
    the error. ``times``: so many commands, and then none any more.
    """

    code: int = 8000
    name: str = "AtlasError"
    how: How = "command"
    collections: frozenset[str] | set[str] | None = None
    only: Callable[[bytes], bool] | None = None
    commands: frozenset[str] = WRITES
    labels: tuple[str, ...] = ()
    times: int | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The error as a command answers with it."""
        error = {"ok": 0.0, "errmsg": self.name, "code": self.code, "codeName": self.name}
        return {**error, "errorLabels": list(self.labels)} if self.labels else error

    def hits(self, command: wire.Command) -> list[int] | None:
        """The statements of a command that it hits, by index; None if it does not apply.

        A command without statements is hit as a whole: an empty list.
        """
        if command.name not in self.commands:
            return None
        if self.collections is not None and command.collection not in self.collections:
            return None
        statements = command.statements()
        if self.only is None:
            return list(range(len(statements)))
        if not statements:
            return [] if self.only(encode(command.body)) else None
        hit = [index for index, one in enumerate(statements) if self.only(one)]
        return hit or None


def containing(text: str) -> Callable[[bytes], bool]:
    """Statements with this text anywhere in them."""
    marker = text.encode()
    return lambda statement: marker in statement


class StoreLink(Link):
    """A `Link` to a MongoDB. `resume` accepts writes again, too."""

    def __init__(
        self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(target_host, target_port, host=host, port=port)
        self.refused = 0
        """Commands that were refused, as a whole or in part."""
        self._refusal: Refusal | None = None
        self._times_left: int | None = None

    @property
    def uri(self) -> str:
        """What a client connects to."""
        return f"mongodb://{self.host}:{self.port}/?directConnection=true"

    def refuse_writes(self, refusal: Refusal) -> None:
        """Refuse these from now on, in the place of those that were refused before."""
        self._refusal = refusal
        self._times_left = refusal.times

    def accept_writes(self) -> None:
        """Refuse no write any more. A write that hangs is never answered."""
        self._refusal = None

    def resume(self) -> None:
        self.accept_writes()
        super().resume()

    def judge(self, command: wire.Command) -> tuple[Refusal, list[int]] | None:
        """The refusal that applies to this command and the statements that it hits, if one does."""
        refusal = self._refusal
        hit = refusal.hits(command) if refusal is not None else None
        if refusal is None or hit is None:
            return None
        self.refused += 1
        if self._times_left is not None:
            self._times_left -= 1
            if self._times_left <= 0:
                self._refusal = None
        return refusal, hit

    def _connection(self, client: socket.socket) -> Connection:
        return _StoreConnection(self, client)


class _StoreConnection(Connection):
    """Whole messages in both directions. An answer that must be changed is found by its request."""

    def __init__(self, link: StoreLink, client: socket.socket) -> None:
        super().__init__(link, client)
        self._store_link = link
        self._changes: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._cut_at: set[int] = set()

    async def carry(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            try:
                head = await reader.readexactly(wire.HEADER.size)
            except asyncio.IncompleteReadError:
                break
            length, *_ = wire.header(head)
            if not wire.HEADER.size <= length <= wire.MAX_MESSAGE:
                raise EOFError("not a message of MongoDB")
            message = head + await reader.readexactly(length - wire.HEADER.size)
            try:
                passed = (
                    await self._request(message) if direction == "up" else self._answer(message)
                )
            except (ValueError, IndexError, struct.error, BSONError) as error:
                raise EOFError(f"not a message of MongoDB: {error}") from error
            if passed is not None:
                await self.pass_on(direction, writer, passed)
        await self.pass_end(direction, writer)

    async def _request(self, message: bytes) -> bytes | None:
        """The message to pass on to the server, or None if it stays here."""
        message = wire.without_compression(message)
        if wire.header(message)[3] != wire.OP_MSG:
            return message
        command = wire.command(message)
        judged = self._store_link.judge(command)
        if judged is None:
            return message
        refusal, hit = judged
        match refusal.how:
            case "hangs":
                return None
            case "lands":
                self._cut_at.add(command.request_id)
                return message
            case "write concern":
                error = {"code": refusal.code, "codeName": refusal.name, "errmsg": refusal.name}

                def add_concern(document: dict[str, Any]) -> None:
                    document["writeConcernError"] = error
                    if refusal.labels:
                        document["errorLabels"] = list(refusal.labels)

                self._changes[command.request_id] = add_concern
                return message
            case "documents" if command.name in wire.STATEMENTS:
                return await self._refuse_documents(command, refusal, hit)
        await self._reply(command, refusal.error)
        return None

    async def _refuse_documents(
        self, command: wire.Command, refusal: Refusal, hit: list[int]
    ) -> bytes | None:
        statements = command.statements()
        if command.body.get("ordered", True):  # the first error ends it
            hit = hit[:1]
            passed = list(range(hit[0]))
        else:
            passed = [index for index in range(len(statements)) if index not in set(hit)]
        errors = [{"index": at, "code": refusal.code, "errmsg": refusal.name} for at in hit]
        if not passed:
            modified = {"nModified": 0} if command.name == "update" else {}
            await self._reply(command, {"ok": 1.0, "n": 0, **modified, "writeErrors": errors})
            return None

        def add_errors(document: dict[str, Any]) -> None:
            theirs = [_renumbered(one, passed) for one in document.get("writeErrors", ())]
            if command.body.get("ordered", True) and theirs:
                document["writeErrors"] = theirs
                return
            both = [*theirs, *errors]
            document["writeErrors"] = sorted(both, key=lambda one: int(one["index"]))
            if "upserted" in document:
                document["upserted"] = [_renumbered(one, passed) for one in document["upserted"]]

        self._changes[command.request_id] = add_errors
        return command.encoded([statements[index] for index in passed])

    async def _reply(self, command: wire.Command, document: dict[str, Any]) -> None:
        if command.answered:
            message = wire.reply(command.request_id, document)
            await self.pass_on("down", self._writers[0], message)

    def _answer(self, message: bytes) -> bytes:
        _, _, response_to, op_code = wire.header(message)
        if response_to in self._cut_at:
            raise EOFError("the write has landed, and its answer is lost")
        change = self._changes.pop(response_to, None)
        if change is None or op_code != wire.OP_MSG:
            return message
        document = wire.answer(message)
        change(document)
        return wire.reply(response_to, document)


def _renumbered(entry: Any, passed: list[int]) -> dict[str, Any]:
    """An entry of an answer with the index that its statement had before some were taken out."""
    return {**entry, "index": passed[int(entry["index"])]}
