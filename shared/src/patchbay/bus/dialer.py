"""Connecting for ever: capped exponential backoff with jitter, and the sign of a twin."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from patchbay.bus.connection import Connection
from patchbay.errors import Unavailable
from patchbay.log import Logger
from patchbay.settings import BrokerSettings

TAKEOVER_S = 1.0
TAKEOVERS_LIMIT = 8
"""So many connections in a row that the broker ended so soon mean that another unit has our
instance id, and the two throw each other out: stop, do not fight. Mosquitto 2.0 gives no reason."""


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
    ) -> None:
        self.reconnects = 0
        """Connections that were established and have ended."""
        self._settings = settings
        self._make = make
        self._opened = opened
        self._ended = ended
        self._log = log

    async def dial(self) -> None:
        """Connect for ever. Returns when another client seems to use our client id."""
        failures = takeovers = 0
        said = ""
        while True:
            connection = self._make()
            try:
                await self._opened(connection)
                failures, said = 0, ""
                why = await connection.ended
            except Unavailable as error:
                why = str(error)
            except Exception as error:  # the outermost loop of this task
                why = f"a hook failed: {error!r}"
                self._log.error("hook failed", exc_info=error)
            finally:
                self._ended()
                connection.abort("given up")
            if connection.established:
                self.reconnects += 1
            takeovers = takeovers + 1 if _was_taken_over(connection) else 0
            if takeovers >= TAKEOVERS_LIMIT:
                return
            pause_s = self._pause_s(failures)
            failures += 1
            if why != said:
                self._log.warning("not connected", why=why, next_try_s=round(pause_s, 2))
                said = why
            await asyncio.sleep(pause_s)

    def _pause_s(self, failures: int) -> float:
        doubled_s: float = self._settings.backoff_initial_s * 2 ** min(failures, 16)
        return min(self._settings.backoff_max_s, doubled_s) * random.uniform(0.5, 1.0)


def _was_taken_over(connection: Connection) -> bool:
    lived_s = asyncio.get_running_loop().time() - connection.established_at
    return connection.established and lived_s < TAKEOVER_S
