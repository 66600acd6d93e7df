"""Which subscription a message belongs to: the first whose filter matches.

A message is delivered to that one alone; one that nobody wants any more is acknowledged. What a
subscription cannot take, because its callback raised, is set aside: otherwise it would end the
connection and come again for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from patchbay.bus.message import Message
from patchbay.bus.meter import Meter
from patchbay.bus.subscription import Subscription
from patchbay.topics import matches

ROUTES_LIMIT: Final = 8_192
"""Topics whose subscription is remembered; a flood of new topics starts the memory anew."""


class Router:
    """The subscriptions of one client, in the order in which they are asked.

    ``set_aside`` sets a message aside with the exception that it caused, and acknowledges it.
    """

    def __init__(
        self, set_aside: Callable[[Message, Exception], None], meter: Meter | None = None
    ) -> None:
        self.subscriptions: list[Subscription] = []
        self.late = False
        """What arrives now was queued while we were away."""
        self.deliver: Callable[[Message], None] = self._deliver
        """Takes each message that arrives."""
        self._routes: dict[str, Subscription | None] = {}
        self._set_aside = set_aside
        if meter is not None:
            self.deliver = self._measured(meter)

    def add(self, subscription: Subscription) -> None:
        """Ask this one, too, after the others."""
        self.subscriptions.append(subscription)
        self._routes.clear()

    def _deliver(self, message: Message) -> None:
        message.late = self.late
        topic = message.topic
        try:
            subscription = self._routes[topic]
        except KeyError:
            subscription = self._route(topic)
        if subscription is None:
            message.ack()
            return
        try:
            subscription.deliver(message)
        except Exception as error:  # the outermost frame of a callback
            self._set_aside(message, error)

    def _route(self, topic: str) -> Subscription | None:
        if len(self._routes) >= ROUTES_LIMIT:
            self._routes.clear()
        found = next((one for one in self.subscriptions if matches(one.pattern, topic)), None)
        self._routes[topic] = found
        return found

    def _measured(self, meter: Meter) -> Callable[[Message], None]:
        """`_deliver`, telling the meter what comes and how long it takes until it is safe."""
        clock = asyncio.get_running_loop().time

        def deliver(message: Message) -> None:
            topic = message.topic
            acknowledge = message.acknowledge
            meter.received(topic)
            if acknowledge is not None:

                def acknowledged() -> None:
                    acknowledge()
                    meter.handled(topic, clock() - message.received_at)

                message.acknowledge = acknowledged
            self._deliver(message)

        return deliver
