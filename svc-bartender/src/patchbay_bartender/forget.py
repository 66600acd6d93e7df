"""``cmd/forget``: an operator removes a bar that is gone. The scheduler of another bar does it.

What the broker retains of it goes first, its document last: whoever is killed in between leaves a
bar that can be forgotten again.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from patchbay.bus import Bus, Message, Request
from patchbay.errors import Rejected
from patchbay.messages import decode
from patchbay_bartender.messages import SERVICE, Forget, PumpsState, pumps_device
from patchbay_bartender.presence import Presence
from patchbay_bartender.store import BartenderStore

MAX_BARS: Final = 1000
"""Pumps of other bars that are followed: more than a site has, and a bound for names that somebody
makes up."""

_state = msgspec.json.Decoder(PumpsState)


class Forgetting:
    """Handles the command. Make it before the bus connects, and after ``presence``."""

    def __init__(self, bus: Bus, kept: BartenderStore, bar: str, presence: Presence) -> None:
        self._bus = bus
        self._kept = kept
        self._bar = bar
        self._presence = presence
        self._edges: dict[str, str] = {}
        bus.listen(bus.topics.state(SERVICE, "+"), self._state_published)

    def _state_published(self, message: Message) -> None:
        """The state of another bar, or of its pumps."""
        message.ack()
        device = message.topic.split("/")[-2]
        self._edges.pop(device, None)
        try:
            self._edges[device] = decode(_state, message.payload).edge
        except msgspec.DecodeError:
            return
        while len(self._edges) > MAX_BARS:
            del self._edges[next(iter(self._edges))]

    async def handle(self, _request: Request, body: Forget) -> dict[str, Any]:
        """Remove a bar. Raises Rejected: ``in_use`` for ours, and for one whose pumps are online or
        that has a run in progress, unless the command says ``force``; ``unknown_bar``."""
        if body.bar == self._bar:
            raise Rejected("in_use", f"{body.bar} is this bar: it cannot be forgotten")
        async with self._kept.bars.lock:
            await self._kept.prepare()
            known = self._kept.bars.get(body.bar)
            edge = self._edges.get(pumps_device(body.bar), "")
            if not body.force:
                if self._presence.is_online(edge):
                    raise Rejected("in_use", f"the pumps of {body.bar} are online ({edge})")
                if known is not None and known.state.run is not None:
                    raise Rejected("in_use", f"{body.bar} has a run in progress")
            await self._clear_retained(body.bar)
            removed = await self._kept.forget(body.bar, history=body.documents == "remove")
        if not any(removed.values()) and not edge:
            raise Rejected("unknown_bar", f"there is no bar {body.bar}")
        return {"bar": body.bar, "documents": body.documents, "removed": removed}

    async def _clear_retained(self, bar: str) -> None:
        """Raises Unavailable."""
        topics = self._bus.topics
        for device in (bar, pumps_device(bar)):
            for topic in (topics.state(SERVICE, device), topics.status(SERVICE, device)):
                await self._bus.publish(topic, b"", retain=True)
        self._edges.pop(pumps_device(bar), None)
