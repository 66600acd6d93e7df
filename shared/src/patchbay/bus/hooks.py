"""What a bus client's owner does after each CONNACK, before ``online`` is published."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from patchbay.bus.connection import Connection
from patchbay.errors import Unavailable
from patchbay.log import Logger
from patchbay.progress import BROKER, STORE
from patchbay.settings import BrokerSettings

Hook = Callable[[], Awaitable[None]]


class Hooks:
    """The connect hooks of one client, in the order in which they were added."""

    def __init__(self, settings: BrokerSettings, log: Logger) -> None:
        self._settings = settings
        self._log = log
        self._hooks: list[Hook] = []
        self._waits = False
        self._failed = False

    def add(self, hook: Hook) -> None:
        """One more, after the others."""
        self._hooks.append(hook)

    async def run(self, connection: Connection) -> None:
        """Run all of them. Raises Unavailable when the connection ends."""
        for hook in self._hooks:
            await self._run(hook, connection)

    def cause(self, connected: bool) -> str:
        """What outside keeps a client from being online; empty if it is a hook itself."""
        if self._failed:
            return ""
        if not connected:
            return BROKER
        return STORE if self._waits else ""

    async def _run(self, hook: Hook, connection: Connection) -> None:
        """A hook that fails is run again, on the same connection, whether what it needs is away
        (the store) or it has a mistake: closing that would have the broker publish our Last Will
        and deliver again all that we have not acknowledged, at each attempt."""
        pause_s = self._settings.backoff_initial_s
        while True:
            try:
                await hook()
            except Unavailable as error:
                if connection.ended.done():
                    raise
                if not self._waits:
                    self._log.warning("connect hook waits", why=str(error))
                self._waits = True
                self._failed = False
            except Exception as error:
                self._log.error("connect hook failed", next_try_s=pause_s, exc_info=error)
                self._failed = True
            else:
                self._waits = self._failed = False
                return
            ended, _ = await asyncio.wait([connection.ended], timeout=pause_s)
            if ended:
                raise Unavailable(connection.ended.result())
            pause_s = min(pause_s * 2, self._settings.backoff_max_s)
