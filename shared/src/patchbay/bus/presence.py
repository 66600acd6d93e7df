"""What a client says of itself: ``online`` and ``offline``, retained, on its status topic."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from patchbay.bus.connection import Will
from patchbay.bus.message import Message
from patchbay.errors import Unavailable
from patchbay.messages import new_id

if TYPE_CHECKING:
    from patchbay.bus.client import Bus

ONLINE = b"online"
OFFLINE = b"offline"

OFFLINE_S = 1.0
"""Who leaves waits no longer for the broker to take its ``offline``; the Last Will says it too."""


class Presence:
    """Says how its client is, and puts it right when somebody says otherwise."""

    def __init__(self, bus: Bus, announced: bool) -> None:
        """``announced``: publish it. Otherwise the client only knows it of itself."""
        self._bus = bus
        self._announced = announced
        self._topic = bus.topics.unit_status(bus.client_id)
        self._ready = False
        self._leaving = False
        self._process = new_id()
        self._published = False
        self.twin = False
        """On this connection we have found a status that another process published after us: it
        uses our client id."""
        self.online = asyncio.Event()
        """Set while the client is connected, ready, and has said so."""
        if announced:
            bus.listen(self._topic, self._hear)

    @property
    def will(self) -> Will | None:
        """What the broker says when a connection breaks."""
        return Will(self._topic, OFFLINE, self._process) if self._announced else None

    async def set_ready(self) -> None:
        """The owner is ready: say so now, if connected, and from now on with `say_online`."""
        self._ready = True
        if self._bus.connected:
            await self.say_online()

    async def say_online(self) -> None:
        """``online``, if the owner is ready. Raises Unavailable."""
        if self._announced and self._ready and not self._leaving:
            await self._bus.publish(self._topic, ONLINE, retain=True, process=self._process)
            self._published = True
        if self._ready:
            self.online.set()

    def repeat_online(self) -> None:
        """Say ``online`` again, for somebody who must hear it live. Nothing while we are not."""
        if self._announced and self.online.is_set() and not self._leaving:
            with contextlib.suppress(Unavailable):
                self._bus.post(self._topic, ONLINE, retain=True, process=self._process)

    def leave(self) -> None:
        """From now on nothing says ``online``."""
        self._leaving = True

    async def say_offline(self) -> None:
        """``offline``, as the last word on a connection that is still there. Never raises."""
        if self._announced:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(OFFLINE_S):
                    await self._bus.publish(
                        self._topic, OFFLINE, retain=True, process=self._process
                    )

    def _hear(self, message: Message) -> None:
        """A late Last Will of an old connection must not overwrite our ``online``.

        A retained status of another process that is there although we have published ours before
        is from a twin: a process that ran before us cannot publish after us.
        """
        message.ack()
        if message.retain and self._published and message.process not in ("", self._process):
            self.twin = True
        if message.payload != ONLINE and self.online.is_set() and not self._leaving:
            said = message.payload.decode("utf-8", "replace")
            self._bus.log.info("status corrected", said=said)
            self.repeat_online()
