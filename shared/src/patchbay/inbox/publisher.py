"""Publishes the events that stand in aggregates, until the broker has them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import structlog
from msgspec import Struct

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.inbox.aggregates import Aggregate, Aggregates

T = TypeVar("T", bound=Struct)

REFUSED = 0x80
"""PUBACK reason codes from here on: trying again would be refused again."""

TURN_EVENTS = 8
"""Events to one turn of the loop: the next round is persisted meanwhile, not after."""


class Publisher(Generic[T]):
    """At least once: an event is forgotten at its PUBACK, and published again after a restart.

    A subscriber tells a second copy by the event's id, which is the same.
    """

    def __init__(self, bus: Bus, service: str) -> None:
        self._bus = bus
        self._service = service
        self._due: deque[tuple[Aggregate[T], str]] = deque()
        self._under_way: set[str] = set()
        self._turn: asyncio.Handle | None = None
        self._find: Callable[[str], Aggregate[T] | None] = lambda _id: None
        self._log = structlog.get_logger("publisher").bind(service=service)

    def follow(self, aggregates: Aggregates[T]) -> None:
        """Publish also what documents hold that were read again after a save that failed: without
        another change nothing else would before the next connect."""
        self._find = aggregates.get
        aggregates.reloaded = self.flush

    def flush(self, aggregates: Iterable[Aggregate[T]]) -> None:
        """Publish, in the turns that follow, what these saved aggregates hold now.

        Does nothing while the broker is away: flush all after each connect.
        """
        if not self._bus.connected:
            return
        for aggregate in aggregates:
            for id in aggregate.outgoing:
                if id not in self._under_way:
                    self._under_way.add(id)
                    self._due.append((aggregate, id))
        if self._due and self._turn is None:
            self._take_turn()

    def _take_turn(self) -> None:
        self._turn = None
        for _ in range(min(TURN_EVENTS, len(self._due))):
            aggregate, id = self._due.popleft()
            try:
                self._publish(aggregate, id)
            except Unavailable:
                self._under_way.discard(id)
                self._under_way.difference_update(other for _, other in self._due)
                self._due.clear()
                return
        if self._due:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def _publish(self, aggregate: Aggregate[T], id: str) -> None:
        """Raises Unavailable."""
        aggregate = self._current(aggregate)
        outgoing = aggregate.outgoing.get(id)
        if outgoing is None:
            self._under_way.discard(id)
            return
        topic = self._bus.topics.event(self._service, outgoing.device, outgoing.name)

        def settled(code: int | None) -> None:
            if code is not None and code >= REFUSED:
                self._set_aside(aggregate, id, topic, f"the broker refuses it with {code:#x}")
                return
            self._under_way.discard(id)
            if code is not None:
                self._current(aggregate).published(id)

        try:
            self._bus.post(topic, outgoing.event, on_ack=settled)
        except Unavailable:
            raise
        except Exception as error:  # the others must not wait for one that cannot be published
            self._set_aside(aggregate, id, topic, str(error))

    def _current(self, aggregate: Aggregate[T]) -> Aggregate[T]:
        """What this one is now: it may have been read again meanwhile."""
        return self._find(aggregate.id) or aggregate

    def _set_aside(self, aggregate: Aggregate[T], id: str, topic: str, why: str) -> None:
        """Forget an event that the broker never takes, once its dead letter is stored."""
        self._log.error("event set aside", topic=topic, why=why)
        event = aggregate.outgoing[id].event

        async def store() -> None:
            try:
                await self._bus.set_aside(self._service, why, event, topic=topic, id=f"event:{id}")
                self._current(aggregate).published(id)
            except Unavailable:
                pass  # it is published again after the next connect, and refused again
            finally:
                self._under_way.discard(id)

        self._bus.tasks.spawn(store(), "set aside an event")
