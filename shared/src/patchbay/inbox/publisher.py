"""Publishes the events that stand in aggregates, until the broker has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import structlog
from msgspec import Struct

from patchbay.bus import Bus
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox.aggregates import Aggregate

T = TypeVar("T", bound=Struct)


class Publisher:
    """At least once: an event is forgotten at its PUBACK, and published again after a restart.

    A subscriber tells a second copy by the event's id, which is the same.
    """

    def __init__(self, bus: Bus, service: str) -> None:
        self._bus = bus
        self._service = service
        self._under_way: set[str] = set()
        self._log = structlog.get_logger("publisher").bind(service=service)

    def flush(self, aggregates: Iterable[Aggregate[T]]) -> None:
        """Publish what these saved aggregates hold. Does nothing while the broker is away."""
        if not self._bus.connected:
            return
        for aggregate in aggregates:
            for id in [one for one in aggregate.outgoing if one not in self._under_way]:
                if not self._publish(aggregate, id):
                    return

    def _publish(self, aggregate: Aggregate[T], id: str) -> bool:
        outgoing = aggregate.outgoing[id]
        topic = self._bus.topics.event(self._service, outgoing.device, outgoing.name)

        def settled(code: int | None) -> None:
            self._under_way.discard(id)
            if code is not None:
                aggregate.published(id)

        try:
            self._bus.post(topic, outgoing.event, on_ack=settled)
        except Unavailable:
            return False
        except TooLarge as error:
            self._log.error("event too large for the broker", topic=topic, error=str(error))
            self._bus.dead_letter(self._service, str(error), outgoing.event, topic=topic)
            aggregate.published(id)
        else:
            self._under_way.add(id)
        return True
