"""Connects without end: capped exponential backoff with jitter, and detection of a twin."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from patchbay.bus.connection import TAKEN_OVER, Connection
from patchbay.errors import Unavailable
from patchbay.log import Logger
from patchbay.settings import BrokerSettings

STABLE_S = 1.0
"""A connection that ends sooner counts as a failed attempt: the next pause is longer."""

TAKEOVERS_LIMIT = 8
"""After so many connections in a row that a client with our id ended, stop: otherwise the two would
disconnect each other without end."""


class Dialer:
    """Makes one connection after the other, and opens each.

    ``make`` makes a fresh one, ``opened`` connects it and does all that follows a CONNACK,
    ``ended`` is called when it is over, however far it came.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        make: Callable[[], Connection],
        opened: Callable[[Connection], Awaitable[None]],
        ended: Callable[[], None],
        log: Logger,
        twin: Callable[[], bool] = lambda: False,
    ) -> None:
        """``twin``: has the connection that just ended found another process with our client id?"""
        self.reconnects = 0
        """Connections that were established and have ended."""
        self._settings = settings
        self._make = make
        self._opened = opened
        self._ended = ended
        self._log = log
        self._twin = twin

    async def dial(self) -> None:
        """Connect, and again after each end. Returns when another client uses our client id."""
        failures = takeovers = 0
        said = ""
        while True:
            connection = self._make()
            try:
                await self._opened(connection)
                said = ""
                why = await connection.ended
            except Unavailable as error:
                why = str(error)
            except Exception as error:  # the outermost loop of this task
                why = f"connect hook failed: {error!r}"
                if why != said:
                    self._log.error("connect hook failed", exc_info=error)
            finally:
                self._ended()
                connection.abort("given up")
            if connection.established:
                self.reconnects += 1
            taken = connection.reason == TAKEN_OVER or (connection.established and self._twin())
            takeovers = takeovers + 1 if taken else 0
            if takeovers >= TAKEOVERS_LIMIT:
                return
            if _was_stable(connection):
                failures = 0
            pause_s = self._pause_s(failures)
            failures += 1
            if why != said:
                self._log.warning("not connected", why=why, next_try_s=round(pause_s, 2))
                said = why
            await asyncio.sleep(pause_s)

    def _pause_s(self, failures: int) -> float:
        doubled_s: float = self._settings.backoff_initial_s * 2 ** min(failures, 16)
        return min(self._settings.backoff_max_s, doubled_s) * random.uniform(0.5, 1.0)


def _was_stable(connection: Connection) -> bool:
    lived_s = asyncio.get_running_loop().time() - connection.established_at
    return connection.established and lived_s >= STABLE_S
