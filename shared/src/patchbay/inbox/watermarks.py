"""How far each source has come: the collection ``sources``.

{_id: "locker-edge-pi1", epoch: "...", upto: 4711, past: ["...", ...], ended: [815, ...]}

``past`` are the epochs that are over, and ``ended`` how far each of them had come. A source that
was forgotten has ``forgotten``, the time, and goes by itself after `[store] events_ttl_s`. Until
then its edge may come back with what it had not sent, and nothing counts twice.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from patchbay.errors import Rejected
from patchbay.inbox.aggregates import RECHECK_S, Report
from patchbay.messages import MAX_INT, Ack, Event, now
from patchbay.store import Document, Store
from patchbay.validation import convert

SOURCES = "sources"

PAST_EPOCHS = 16
"""Epochs of a source that are remembered as over, so that a straggler is not taken for a start, and
an edge whose file was put back from a copy learns what of it is persisted."""

ENDED_UNKNOWN = 0
"""How far an epoch had come that release 0.1.0 noted as over: nobody knows."""

ANNOUNCED = 10_000
"""Units whose epochs are remembered; of more, the oldest is forgotten: any epoch of it counts."""


MAX_SOURCES: Final = 10_000
"""Units whose events are taken. A site has some dozens; where anybody may publish, anybody may make
up names. Beyond it only units are taken that have announced themselves, to twice as many."""


class Verdict(Enum):
    """What to do with an event."""

    TAKE = auto()
    """It is the next of its source."""
    KNOWN = auto()
    """It is persisted already: acknowledge again."""
    GAP = auto()
    """Something before it is missing: ask for it."""
    OVER = auto()
    """It belongs to an epoch that is over and was never persisted: ask for it under a new one."""
    WAIT = auto()
    """The document of its source cannot be read, or there are too many sources: drop it. It is sent
    again, until somebody has repaired that document, or forgotten units that are gone."""


@dataclass(slots=True)
class _Source:
    epoch: str = ""
    upto: int = 0
    past: dict[str, int] = field(default_factory=dict)


def _source(found: Document) -> _Source:
    """Raises whatever is wrong with a document."""
    fields = {"upto": found["upto"], "epoch": found["epoch"], "past": _past(found)}
    source = convert(fields, _Source, strict=True)
    if not isinstance(found["_id"], str) or not 0 <= source.upto <= MAX_INT:
        raise ValueError(f"_id must be a text and upto 0 to {MAX_INT}")
    return source


class Watermarks:
    """The watermarks of one service's sources, in memory and in the store.

    `judge` counts on the event being persisted; until `save` has returned, nothing may be
    acknowledged. After a failure, `load` again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: dict[str, _Source] = {}
        self._changed: set[str] = set()
        self._announced: dict[str, str] = {}
        self._load_again_at = math.inf
        self.faults: dict[str, str] = {}
        """Sources whose documents cannot be read."""
        self.report: Report | None = None
        self.refused = 0
        """Events of sources for which there is no room."""

    def __len__(self) -> int:
        return len(self._sources)

    def announce(self, source: str, epoch: str) -> None:
        """This unit says that it sends this epoch: no other may begin in its name. Empty: any."""
        self._announced.pop(source, None)
        if epoch:
            self._announced[source] = epoch
            if len(self._announced) > ANNOUNCED:
                del self._announced[next(iter(self._announced))]

    @property
    def due(self) -> bool:
        """Is it time to `load` again, since a document may have been repaired?"""
        return asyncio.get_running_loop().time() >= self._load_again_at

    async def load(self) -> None:
        """Read what is in the store. Raises Unavailable."""
        self._changed.clear()
        self._sources, self.faults = {}, {}
        for one in await self._store.find(SOURCES, {}):
            try:
                self._sources[one["_id"]] = _source(one)
            except Exception as error:  # a document can be anything
                fault = f"{type(error).__name__}: {error}"
                if isinstance(id := one.get("_id"), str):
                    self.faults[id] = fault
                if self.report is not None:
                    await self.report(SOURCES, one.get("_id"), fault)
        clock = asyncio.get_running_loop().time()
        self._load_again_at = clock + RECHECK_S if self.faults else math.inf

    def judge(self, event: Event) -> Verdict:
        """Is this event the next one of its source? If so, count it as taken."""
        if event.source in self.faults:
            return Verdict.WAIT
        source = self._sources.get(event.source)
        if source is None:
            if not self._has_room(event.source):
                self.refused += 1
                return Verdict.WAIT
            source = _Source()
        if event.epoch == source.epoch:
            if event.sequence <= source.upto:
                return Verdict.KNOWN
            if event.sequence > source.upto + 1:
                return Verdict.GAP
        elif event.epoch in source.past:
            return Verdict.KNOWN if event.sequence <= source.past[event.epoch] else Verdict.OVER
        elif event.sequence != 1:
            return Verdict.GAP
        elif self._announced.get(event.source, event.epoch) != event.epoch:
            return Verdict.GAP  # forged, or its announcement is not here yet
        else:
            if source.epoch:
                source.past[source.epoch] = source.upto
                while len(source.past) > PAST_EPOCHS:
                    del source.past[next(iter(source.past))]
            source.epoch = event.epoch
        source.upto = event.sequence
        self._sources[event.source] = source
        self._changed.add(event.source)
        return Verdict.TAKE

    def _has_room(self, source: str) -> bool:
        count = len(self._sources)
        return count < MAX_SOURCES or (source in self._announced and count < 2 * MAX_SOURCES)

    def upto(self, source: str, epoch: str) -> int:
        """How far this epoch of a source has come; 0 for one that is not known."""
        known = self._sources.get(source)
        if known is None:
            return 0
        return known.upto if known.epoch == epoch else known.past.get(epoch, 0)

    def ack(self, source: str, epoch: str, *, nak: bool, over: bool = False) -> Ack:
        """The acknowledgement to send to a source."""
        return Ack(epoch=epoch, upto=self.upto(source, epoch), nak=nak, over=over)

    async def forget(self, source: str, ttl_s: int) -> bool:
        """Let what is known of a source go in ``ttl_s`` seconds, unless it comes back. Returns
        whether anything was known. Raises Unavailable; Rejected while events of it arrive."""
        if source in self._changed:
            raise Rejected("unit_online", f"events of {source} are being stored")
        if source in self.faults:
            del self.faults[source]
            return await self._store.remove(SOURCES, {"_id": source}) > 0
        known = self._sources.get(source)
        if known is None or not known.epoch:
            return False
        await self._store.ensure_index(SOURCES, [("forgotten", 1)], expireAfterSeconds=ttl_s)
        seen = {"_id": source, "epoch": known.epoch, "upto": known.upto}
        unmarked = {**seen, "forgotten": {"$exists": False}}
        marked = {**_document(source, known), "forgotten": now()}
        return await self._store.replace(SOURCES, [(unmarked, marked)]) > 0

    async def save(self) -> None:
        """Write the watermarks that have risen. Raises Unavailable."""
        changed = sorted(self._changed)
        await self._store.save(
            SOURCES,
            [_document(name, self._sources[name]) for name in changed],
        )
        self._changed.difference_update(changed)


def _document(name: str, one: _Source) -> Document:
    ended = {"ended": list(one.past.values())} if one.past else {}
    return {"_id": name, "epoch": one.epoch, "upto": one.upto, "past": list(one.past), **ended}


def _past(document: Document) -> dict[str, int]:
    """The epochs that are over; in a document of release 0.1.0 ``ended`` is not there."""
    past = document.get("past", [])
    ended = document.get("ended", [ENDED_UNKNOWN] * len(past))
    return dict(zip(past, ended, strict=False))
