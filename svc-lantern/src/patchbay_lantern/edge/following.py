"""How an edge follows the domain: every command once, in order, and the state after a gap.

    event/commanded    the next one: obey. An old one, or one after a gap: the state will tell
    state              of another numbering, or ahead of us: we have missed something

The domain publishes an event before the state that has it, so while nothing is missed the states
say what we know already.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.messages import decode, decode_events
from patchbay_lantern.commands import COMMANDS, Light, Registry
from patchbay_lantern.messages import ALL, COMMANDED, SERVICE, Commanded, Order, State

_commanded = msgspec.json.Decoder(Commanded)
_state = msgspec.json.Decoder(State)


class Follower:
    """Follows the state of the lanterns.

    ``obey`` is called with each command, ``catch_up`` when lanterns must be told the whole
    `present` state, since a command was missed or nothing was known before.
    """

    def __init__(
        self,
        bus: Bus,
        obey: Callable[[Order], None],
        catch_up: Callable[[], None],
        registry: Registry = COMMANDS,
    ) -> None:
        self._bus = bus
        self._obey = obey
        self._catch_up = catch_up
        self._registry = registry
        self._epoch = ""
        self._rev = 0
        self._light = Light()
        self._log = structlog.get_logger("follower").bind(instance=bus.client_id)
        bus.listen(bus.topics.event(SERVICE, ALL, COMMANDED), self._commanded)

    @property
    def present(self) -> list[Order]:
        """What brings a lantern that knows nothing to the present state."""
        return self._registry.present(self._light)

    @property
    def for_a_lantern(self) -> list[Order]:
        """The same in the order for a lantern that connects."""
        return self._registry.for_a_lantern(self._light)

    def state(self, message: Message) -> None:
        """``all/state`` has come, retained or live."""
        message.ack()
        try:
            state = decode(_state, message.payload)
        except msgspec.DecodeError as error:
            if message.payload:
                self._refuse(message, error)
            return
        if state.epoch == self._epoch and state.rev <= self._rev:
            return
        self._epoch, self._rev = state.epoch, state.rev
        light = Light()
        for order in filter(self._known, state.orders):
            light = self._registry.obey(light, order)
        if light != self._light:
            self._light = light
            self._catch_up()

    def _commanded(self, message: Message) -> None:
        message.ack()
        try:
            (event,) = decode_events(message.payload)
            told = decode(_commanded, bytes(event.data))
        except (msgspec.DecodeError, ValueError) as error:
            self._refuse(message, error)
            return
        if told.epoch != self._epoch or told.rev != self._rev + 1:
            return
        self._rev = told.rev
        order = Order(told.command, told.value)
        if self._known(order):
            self._light = self._registry.obey(self._light, order)
            self._obey(order)

    def _known(self, order: Order) -> bool:
        """A domain that is newer than we are may command what we do not know."""
        known = any(kind.name == order.command for kind in self._registry)
        if not known:
            self._log.warning("command not known", command=order.command)
        return known

    def _refuse(self, message: Message, error: Exception) -> None:
        self._log.error("not understood", topic=message.topic, error=str(error))
        self._bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
