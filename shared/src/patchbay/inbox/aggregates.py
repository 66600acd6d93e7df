"""Documents that one domain service owns and changes by compare-and-set.

    {_id: "1953", v: 7, applied: {"locker-edge-pi1": {epoch: "...", seq: 4711}},
     outgoing: "[...]", done: {"<command id>": "<answer>"}, ...fields}

``v`` rises with each change, and a change names the ``v`` that it was made from. ``applied`` says
up to which event of each source the fields tell, so that an event that comes again changes nothing:
it stands in the document itself, since a standalone MongoDB has no transactions. ``outgoing`` are
the events that follow from the change and that the broker has not confirmed: a CloudEvents batch
as text (measured: a list of documents costs the embedded store several times as much). ``done``
are the last commands and their answers, so that a command delivered twice acts once.

A document that cannot be read is set aside: it stays as it is and is reported once, its commands
are refused, and events for it wait in the collection ``parked``. It is looked at again every few
seconds; once somebody has repaired or removed it, all that waited follows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

from patchbay.errors import DocumentRejected, Rejected, Unavailable, Unreadable
from patchbay.messages import MAX_INT, Event, batch, decode
from patchbay.store import Document, Store
from patchbay.topics import device_id
from patchbay.validation import convert

T = TypeVar("T", bound=Struct)

_BSON_TYPES = (bytes, datetime)
"""What BSON has and JSON has not, of what our states hold."""

RECHECK_S = 5.0
"""How often documents that are set aside are read again."""

MAX_NESTING = 32
"""Levels of a document. Ours have three or four; the store's limit is 100."""

Report = Callable[[str, Any, str], Awaitable[None]]
"""The collection, the id and the fault of a document that cannot be read."""

DONE_COMMANDS = 16
"""Commands that each document remembers: more than the broker sends again of one device."""

APPLIED_SOURCES = 32
"""Sources that each document remembers, those applied last: a device changes its edge now and then,
and whoever may publish events can name as many sources as he likes."""


class Outgoing(NamedTuple):
    """An encoded event that is to be published on ``<device>/event/<name>``."""

    device: str
    name: str
    event: bytes


class _Head(Struct):
    """Of an event of ours: what says where it is published."""

    id: str
    type: str
    subject: str = ""


_outgoing = msgspec.json.Decoder(list[Raw])
_head = msgspec.json.Decoder(_Head)


class Aggregate(Generic[T]):
    """One document: its fields as ``state``, and what is still to be published."""

    __slots__ = ("applied", "changed", "done", "id", "outgoing", "pruned", "state", "version")

    def __init__(self, id: str, state: T, version: int = 0) -> None:
        self.id = id
        self.state = state
        self.version = version
        self.applied: dict[str, tuple[str, int]] = {}
        self.outgoing: dict[str, Outgoing] = {}
        self.done: dict[str, str] = {}
        self.changed = False
        """The state tells more than what is stored, until `Aggregates.save` has returned."""
        self.pruned = False

    def knows(self, event: Event) -> bool:
        """Has this event been applied already? One without a sequence never has."""
        epoch, seq = self.applied.get(event.source, ("", 0))
        return bool(event.sequence) and epoch == event.epoch and event.sequence <= seq

    def apply(self, event: Event) -> None:
        """Remember that this event has been applied."""
        if event.sequence:
            self.applied.pop(event.source, None)
            self.applied[event.source] = (event.epoch, event.sequence)
            if len(self.applied) > APPLIED_SOURCES:
                del self.applied[next(iter(self.applied))]
        self.changed = True

    def publish(self, id: str, outgoing: Outgoing) -> None:
        """An event, by its id, to publish once this document is saved (see `Publisher`)."""
        self.outgoing[id] = outgoing
        self.changed = True

    def published(self, id: str) -> None:
        """The broker has it."""
        if self.outgoing.pop(id, None) is not None:
            self.pruned = True

    def finish(self, command: str, answer: str) -> None:
        """Remember the answer that a command got."""
        self.done[command] = answer
        while len(self.done) > DONE_COMMANDS:
            del self.done[next(iter(self.done))]
        self.changed = True

    def answered(self, command: str) -> dict[str, Any] | None:
        """The answer that a command got, if it is remembered."""
        answer = self.done.get(command)
        return None if answer is None else msgspec.json.decode(answer)


class Aggregates(Generic[T]):
    """The documents of one collection, all in memory.

    ``lock`` is held around each change, from the decision to the save. A change that could not be
    saved is forgotten: `load` reads the document again before the next decision. Who only asks may
    `load` without the lock.
    """

    def __init__(self, store: Store, collection: str, kind: type[T]) -> None:
        self._store = store
        self._collection = collection
        self._kind = kind
        self._known: dict[str, Aggregate[T]] = {}
        self._stale: set[str] = set()
        self._loaded = False
        self._loading = asyncio.Lock()
        self._recheck_at = 0.0
        self.faults: dict[str, str] = {}
        """Documents that are set aside, by id, and what is wrong with each."""
        self.report: Report | None = None
        """Hears of each document that cannot be read, whenever it is read."""
        self.reloaded: Callable[[Iterable[Aggregate[T]]], None] | None = None
        """Told of documents that were read again: what they hold may not be in flight."""
        self.trim: Callable[[dict[str, Aggregate[T]]], None] | None = None
        """At the first load, after each page: takes out what there is no room for. It stays in the
        store, and is read when it is invalidated by `doubt`."""
        self.repaired: list[Aggregate[T]] = []
        """Documents that can be read again, until somebody has published what they are."""
        self.lock = asyncio.Lock()

    def __iter__(self) -> Iterator[Aggregate[T]]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def get(self, id: str) -> Aggregate[T] | None:
        """The document with this id, or None if there is none yet."""
        return self._known.get(id)

    def require_readable(self, id: str) -> None:
        """Raises Rejected, with the fault, for a document that is set aside."""
        fault = self.faults.get(id)
        if fault is not None:
            raise Rejected(
                "unreadable",
                f"the document {id} in {self._collection} is unreadable, repair or remove it:"
                f" {fault}",
            )

    def wait_for(self, id: str) -> None:
        """Raises Unavailable, with the fault, while a document is set aside without which its
        service can do nothing."""
        try:
            self.require_readable(id)
        except Rejected as error:
            raise Unavailable(error.message) from None

    def add(self, aggregate: Aggregate[T]) -> None:
        """A document that is new; it is in the store after `save`. Not for one that is set aside:
        check `faults` first."""
        self._known[aggregate.id] = aggregate

    async def remove(self, ids: Iterable[str]) -> int:
        """Delete documents, also those that are set aside. Returns how many there were. Raises
        Unavailable; then they are in doubt, as after `save`."""
        gone = sorted(set(ids))
        self.doubt(gone)
        removed = await self._store.remove_ids(self._collection, gone)
        for id in gone:
            self._known.pop(id, None)
            self.faults.pop(id, None)
        self._stale.difference_update(gone)
        return removed

    def doubt(self, ids: Iterable[str]) -> None:
        """Forget what these have become in memory: `load` reads them before the next decision."""
        self._stale.update(ids)

    async def load(self) -> bool:
        """Read all at first, and later what is in doubt. True if it has read something.

        Raises Unavailable.
        """
        async with self._loading:
            return await self._load()

    async def _load(self) -> bool:
        if not self._loaded:
            self.faults.clear()
            known: dict[str, Aggregate[T]] = {}
            async for page in self._store.pages(self._collection, {}):
                known |= await self._read(page)
                if self.trim is not None:
                    self.trim(known)
            self._known = known
            self._stale.clear()
            self._loaded = True
            self._recheck_at = asyncio.get_running_loop().time() + RECHECK_S
            return True
        changed = await self._recheck()
        if self._stale:
            stale = sorted(self._stale)
            found = await self._store.find(self._collection, {"_id": {"$in": stale}})
            for id in stale:
                self._known.pop(id, None)
                self.faults.pop(id, None)
            again = await self._read(found)
            self._known.update(again)
            self._stale.clear()
            if self.reloaded is not None:
                self.reloaded(again.values())
            return True
        return changed

    async def _recheck(self) -> bool:
        """Look again at what is set aside. True if something has been repaired or removed."""
        loop = asyncio.get_running_loop()
        if not self.faults or loop.time() < self._recheck_at:
            return False
        ids = sorted(self.faults)
        found = await self._store.find(self._collection, {"_id": {"$in": ids}})
        self._recheck_at = loop.time() + RECHECK_S
        self.faults.clear()
        repaired = await self._read(found)
        self._known.update(repaired)
        self.repaired += repaired.values()
        return len(self.faults) < len(ids)

    async def _read(self, found: Iterable[Document]) -> dict[str, Aggregate[T]]:
        known = {}
        for one in found:
            id = one.get("_id")
            try:
                if not isinstance(id, str):
                    raise Unreadable("_id must be a text")
                known[id] = self._decode(one)
            except Unreadable as error:
                if isinstance(id, str):
                    self.faults[id] = str(error)
                if self.report is not None:
                    await self.report(self._collection, id, str(error))
        return known

    async def save(self, aggregates: Iterable[Aggregate[T]]) -> None:
        """Write what has changed. Raises Unavailable, and DocumentRejected for what cannot be
        encoded; what was to be written is then in doubt."""
        changed = {one.id: one for one in aggregates if one.changed or one.pruned}
        if not changed:
            return
        for one in changed.values():
            one.pruned = False
        try:
            await self._write([self._encode(one) for one in changed.values()])
        except BaseException:
            self.doubt(changed)
            raise
        for one in changed.values():
            one.version += 1
            one.changed = False

    async def _write(self, documents: list[Document]) -> None:
        fresh = [one for one in documents if one["v"] == 1]
        replaced = [
            ({"_id": one["_id"], "v": one["v"] - 1}, one) for one in documents if one["v"] > 1
        ]
        try:
            matched = await self._store.insert_new(self._collection, fresh)
        except DocumentRejected as error:
            if error.encoding:
                raise
            # Documents are bounded: no event may be dropped for what a server says of them.
            raise Unavailable(str(error)) from error
        matched += await self._store.replace(self._collection, replaced)
        if matched != len(documents):
            await self._verify(documents)

    async def _verify(self, documents: list[Document]) -> None:
        """Fewer matched than were written: a driver's second try finds its first one done."""
        ids = sorted(one["_id"] for one in documents)
        found = {
            one["_id"]: one
            for one in await self._store.find(self._collection, {"_id": {"$in": ids}})
        }
        for ours in documents:
            id = ours["_id"]
            theirs = found.get(id, {})
            if any(theirs.get(key) != ours[key] for key in ("v", "applied", "outgoing", "done")):
                raise Unavailable(f"{self._collection} {id}: somebody else has changed it")

    def _encode(self, one: Aggregate[T]) -> Document:
        fields: Document = msgspec.to_builtins(one.state, builtin_types=_BSON_TYPES)
        return {
            "_id": one.id,
            "v": one.version + 1,
            "applied": {
                source: {"epoch": epoch, "seq": seq} for source, (epoch, seq) in one.applied.items()
            },
            "outgoing": batch([out.event for out in one.outgoing.values()]).decode()
            if one.outgoing
            else "",
            "done": [[command, answer] for command, answer in one.done.items()],
            **fields,
        }

    def _decode(self, document: Document) -> Aggregate[T]:
        """Raises Unreadable: whatever is wrong with one document, the others must not wait."""
        try:
            _check_numbers(document, "")
            return self._aggregate(dict(document))
        except Unreadable:
            raise
        except KeyError as error:
            raise Unreadable(f"{error} is required") from error
        except Exception as error:  # a document can be anything
            raise Unreadable(str(error) or repr(error)) from error

    def _aggregate(self, fields: dict[str, Any]) -> Aggregate[T]:
        id = fields.pop("_id")
        one = Aggregate(id, self._state(fields), _version(fields["v"]))
        one.applied = {
            source: (_text(at["epoch"]), _count(at["seq"]))
            for source, at in fields["applied"].items()
        }
        for raw in decode(_outgoing, fields["outgoing"].encode()) if fields["outgoing"] else ():
            head = decode(_head, raw)
            name = head.type.rpartition(".")[2]
            one.outgoing[head.id] = Outgoing(device_id(head.subject), name, bytes(raw))
        one.done = {_text(command): _text(answer) for command, answer in fields["done"]}
        return one

    def _state(self, fields: dict[str, Any]) -> T:
        return convert(fields, self._kind, builtin_types=_BSON_TYPES, strict=True)


def _check_numbers(value: Any, where: str, depth: int = 0) -> None:
    """No number that a later sum or JSON could not hold. Raises Unreadable."""
    if isinstance(value, int) and not -MAX_INT <= value <= MAX_INT:
        raise Unreadable(f"{where} must be at most {MAX_INT}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unreadable(f"{where} must be a finite number")
    if not isinstance(value, dict | list):
        return
    if depth == MAX_NESTING:
        raise Unreadable(f"{where} is nested deeper than {MAX_NESTING}")
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        if isinstance(part, int | float | dict | list):
            _check_numbers(part, f"{where}.{key}" if where else str(key), depth + 1)


def _version(found: Any) -> int:
    """A version; one that a JavaScript shell has written is a double."""
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise Unreadable("v must be a whole number above 0")
    return found


def _count(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise Unreadable("applied: seq must be a whole number")
    return found


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise Unreadable(f"a text is required, got {type(found).__name__}")
    return found
