"""How far each source has come: the collection ``sources``.

{_id: "locker-edge-pi1", epoch: "...", upto: 4711, past: ["...", ...]}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from patchbay.messages import Ack, Event
from patchbay.store import Store

SOURCES = "sources"

PAST_EPOCHS = 16
"""Epochs of a source that are remembered as over, so that a straggler is not taken for a start."""


class Verdict(Enum):
    """What to do with an event."""

    TAKE = auto()
    """It is the next of its source."""
    KNOWN = auto()
    """It is persisted already: acknowledge again."""
    GAP = auto()
    """Something before it is missing: ask for it."""
    OVER = auto()
    """It belongs to an epoch that is over: drop it."""


@dataclass(slots=True)
class _Source:
    epoch: str = ""
    upto: int = 0
    past: list[str] = field(default_factory=list)


class Watermarks:
    """The watermarks of one service's sources, in memory and in the store.

    `judge` counts on the event being persisted; until `save` has returned, nothing may be
    acknowledged. After a failure, `load` again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: dict[str, _Source] = {}
        self._changed: set[str] = set()

    async def load(self) -> None:
        """Read what is in the store. Raises Unavailable."""
        self._changed.clear()
        self._sources = {
            one["_id"]: _Source(one["epoch"], one["upto"], list(one.get("past", [])))
            for one in await self._store.find(SOURCES, {})
        }

    def judge(self, event: Event) -> Verdict:
        """Is this event the next one of its source? If so, count it as taken."""
        source = self._sources.setdefault(event.source, _Source())
        if event.epoch == source.epoch:
            if event.sequence <= source.upto:
                return Verdict.KNOWN
            if event.sequence > source.upto + 1:
                return Verdict.GAP
        elif event.epoch in source.past:
            return Verdict.OVER
        elif event.sequence != 1:
            return Verdict.GAP
        else:
            if source.epoch:
                source.past = [*source.past, source.epoch][-PAST_EPOCHS:]
            source.epoch = event.epoch
        source.upto = event.sequence
        self._changed.add(event.source)
        return Verdict.TAKE

    def upto(self, source: str, epoch: str) -> int:
        """How far this epoch of a source has come; 0 for one that is not known."""
        known = self._sources.get(source)
        return known.upto if known is not None and known.epoch == epoch else 0

    def ack(self, source: str, epoch: str, *, nak: bool) -> Ack:
        """The acknowledgement to send to a source."""
        return Ack(epoch=epoch, upto=self.upto(source, epoch), nak=nak)

    async def save(self) -> None:
        """Write the watermarks that have risen. Raises Unavailable."""
        changed = sorted(self._changed)
        await self._store.save(
            SOURCES,
            [
                {"_id": name, "epoch": one.epoch, "upto": one.upto, "past": one.past}
                for name, one in ((name, self._sources[name]) for name in changed)
            ],
        )
        self._changed.difference_update(changed)
