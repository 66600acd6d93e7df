"""How many lanterns are connected, over all TLV edges, as these say on the bus.

lantern/<edge>/state     retained; see `messages.EdgeState`
lantern/all/state        retained; handed on to who follows it, since both match one filter
status/<instance>        an edge's own: while it is offline, its lanterns do not count
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.messages import decode
from patchbay_lantern.messages import ALL, SERVICE, EdgeState

EDGE_PREFIX = f"{SERVICE}-tlv"


class Census:
    """What the edges last said. ``changed`` is called when the number may have changed."""

    def __init__(
        self,
        bus: Bus,
        changed: Callable[[], None] | None = None,
        state: Callable[[Message], None] | None = None,
    ) -> None:
        self._bus = bus
        self._changed = changed
        self._state = state
        self._connection: object = None
        self._lanterns: dict[str, int] = {}
        self._online: set[str] = set()
        self._decoder = msgspec.json.Decoder(EdgeState)
        self._log = structlog.get_logger("census").bind(instance=bus.client_id)
        bus.listen(bus.topics.state(SERVICE, "+"), self._stated)
        bus.listen(bus.topics.unit_status("+"), self._said)

    @property
    def lanterns(self) -> int:
        """Lanterns connected now, as far as we know."""
        return sum(count for edge, count in self._lanterns.items() if edge in self._online)

    def _stated(self, message: Message) -> None:
        address = self._bus.topics.address(message.topic)
        if address is not None and address.device == ALL:
            if self._state is not None:
                self._state(message)
            message.ack()
            return
        message.ack()
        self._look(message)
        try:
            state = decode(self._decoder, message.payload)
        except msgspec.DecodeError as error:
            if message.payload:
                self._log.warning("no state", topic=message.topic, error=str(error))
            return
        self._lanterns[state.edge] = state.lanterns
        self._tell()

    def _said(self, message: Message) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if not instance.startswith(EDGE_PREFIX):
            return
        self._look(message)
        if message.payload == b"online":
            self._online.add(instance)
        else:
            self._online.discard(instance)
        self._tell()

    def _look(self, message: Message) -> None:
        """After a new connection only what is said there counts: a broker may have forgotten."""
        if message.connection is not self._connection:
            self._connection = message.connection
            self._lanterns.clear()
            self._online.clear()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()
