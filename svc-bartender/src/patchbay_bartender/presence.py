"""Are the pumps there, and what do they do? As their edge says on the bus.

bartender/<bar>-pumps/state      retained; see `messages.PumpsState`
status/<instance>                the edge's own: when it is offline, so are its pumps
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import decode
from patchbay_bartender.messages import SERVICE, PumpsState, pumps_device

EDGE_PREFIX = f"{SERVICE}-pumps"

_state = msgspec.json.Decoder(PumpsState)


class Presence:
    """What the edge last said. ``said`` hears each state that was published while we listened, a
    retained one may be old; ``changed`` hears that the pumps have come or gone."""

    def __init__(
        self,
        bus: Bus,
        bar: str,
        said: Callable[[PumpsState], None],
        changed: Callable[[bool], None],
    ) -> None:
        self._bus = bus
        self._device = pumps_device(bar)
        self._said_live = said
        self._changed = changed
        self._state: PumpsState | None = None
        self._edges: dict[str, bool] = {}
        self._was_online = False
        self._log = structlog.get_logger("presence").bind(instance=bus.client_id)
        bus.listen(bus.topics.state(SERVICE, self._device), self._said)
        bus.listen(bus.topics.unit_status("+"), self._edge_said)

    @property
    def online(self) -> bool:
        """Is the edge of the pumps there?"""
        return self._state is not None and self._edges.get(self._state.edge, False)

    def is_online(self, edge: str) -> bool:
        """Is this edge of pumps there, be they ours or another bar's?"""
        return self._edges.get(edge, False)

    @property
    def driver(self) -> str:
        """The driver of the pins; empty if the pumps were never seen."""
        return self._state.driver if self._state else ""

    def _said(self, message: Message) -> None:
        message.ack()
        try:
            self._state = decode(_state, message.payload)
        except msgspec.DecodeError as error:
            self._state = None
            if message.payload:
                self._log.warning("no state", topic=message.topic, error=str(error))
        if self._state is not None and not message.retain:
            self._said_live(self._state)
        self._look()

    def _edge_said(self, message: Message) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if not instance.startswith(EDGE_PREFIX):
            return
        self._edges[instance] = message.payload == b"online"
        if not self._edges[instance] and self._state and self._state.edge == instance:
            # An edge that was killed cannot say it of its pumps. One that is back corrects us.
            topic = self._bus.topics.status(SERVICE, self._device)
            with contextlib.suppress(Unavailable):
                self._bus.post(topic, b"offline", retain=True)
        self._look()

    def _look(self) -> None:
        if self.online != self._was_online:
            self._was_online = self.online
            self._changed(self.online)
