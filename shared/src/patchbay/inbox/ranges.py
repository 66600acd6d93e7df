"""Takes the durable events of a service's edges in any order, for a service with replicas.

Replicas share one subscription (``$share/<group>/...``), so none of them sees all events of a
source, and "the next after the last" means nothing. Each takes what it gets, persists it and
acknowledges exactly that. An event may come twice, also to two replicas at the same moment:
``apply`` has to be idempotent by the event's id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from patchbay.bus import Bus, Message
from patchbay.errors import DocumentRefused
from patchbay.inbox.inbox import Apply, Inbox
from patchbay.messages import MAX_RANGES, AckRanges, Event, ranges_of
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.topics import shared


class RangeInbox(Inbox):
    """An `Inbox` without watermarks. ``group`` names the replicas; None: there is only one."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        settings: StoreSettings,
        service: str,
        names: Sequence[str],
        apply: Apply,
        *,
        group: str | None = None,
    ) -> None:
        self._group = group
        super().__init__(bus, store, settings, service, names, apply)

    def _pattern(self, pattern: str) -> str:
        return shared(self._group, pattern)

    async def _load(self) -> None:
        """There is nothing to know before an event comes."""

    async def _forget(self, unit: str) -> bool:
        """Nothing is stored of a unit."""
        return False

    async def _round(self, batch: list[tuple[Message, list[Event]]]) -> None:
        events = await self._persist_most([event for _, some in batch for event in some])
        self.taken += len(events)
        for message, _ in batch:
            message.ack()
        done: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for event in events:
            if event.sequence:
                done[event.source, event.epoch].add(event.sequence)
        for (source, epoch), numbers in done.items():
            ranges = ranges_of(numbers)
            for first in range(0, len(ranges), MAX_RANGES):
                self._tell(source, AckRanges(epoch, ranges[first : first + MAX_RANGES]))

    async def _persist_most(self, events: list[Event]) -> list[Event]:
        """Persist events; returns those that are. One whose document the store alone refuses is
        left to its edge, which sends it again: the others do not wait for it. Raises Unavailable.
        """
        if not events:
            return []
        try:
            await self._persist(events)
            return events
        except DocumentRefused as error:
            if len(events) == 1 and not events[0].sequence:
                raise  # nobody would send it again
            if len(events) == 1:
                self._log.warning("event left to its edge", id=events[0].id, why=str(error))
                return []
        middle = len(events) // 2
        first = await self._persist_most(events[:middle])
        return [*first, *await self._persist_most(events[middle:])]
