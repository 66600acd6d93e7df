"""``cmd/forget``: an operator removes a combinator that is gone, or the jobs of a Chromebook.

    combinator-<n>    its document, its retained state and status, what its edge remembers of it
    any other name    a Chromebook: nothing but its jobs is stored of it

With ``documents: remove`` the jobs go, too, that have ended there or came from it. What the broker
retains goes first: a kill in between leaves a command that can be given again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from patchbay.bus import Bus, Request
from patchbay.errors import Rejected
from patchbay.messages import now
from patchbay_allocator.dispatch import Dispatcher
from patchbay_allocator.messages import (
    SERVICE,
    Answer,
    Forget,
    combinator_device,
    combinator_number,
)
from patchbay_allocator.store import AllocatorStore


class Forgetting:
    """Handles the command."""

    def __init__(
        self,
        bus: Bus,
        kept: AllocatorStore,
        devices: Collection[int],
        dispatcher: Dispatcher,
        prepare: Callable[[], Awaitable[None]],
        look: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._kept = kept
        self._devices = devices
        self._dispatcher = dispatcher
        self._prepare = prepare
        self._look = look

    async def handle(self, request: Request, body: Forget) -> Answer:
        """Remove it. Given again, there is nothing left, and that is said. Raises Rejected."""
        await self._prepare()
        number = combinator_number(body.device)
        if number is None or combinator_device(number) != body.device:
            number = None
        if number in self._devices:
            raise Rejected(
                "in_use", f"{body.device} is in the settings: take it out of combinators first"
            )
        await request.confirm()
        removed = {"combinators": 0, "jobs": 0}
        query: dict[str, Any] = {"ClientName": body.device}
        if number is not None:
            query = {"assignedAt": {"$in": [number, str(number)]}}
            topics = self._bus.topics
            for topic in (topics.state(SERVICE, body.device), topics.status(SERVICE, body.device)):
                await self._bus.publish(topic, b"", retain=True)
            await self._dispatcher.release_all(number)
            removed["combinators"] = await self._kept.remove_combinator(number)
        if body.documents == "remove":
            while count := await self._kept.remove_ended(query, now(), request.id):
                removed["jobs"] += count
        self._look()
        return {"device": body.device, "documents": body.documents, "removed": removed}
