"""A token bucket: so many at once, and after those so many a second."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Holds ``size`` tokens at most and gets ``per_s`` a second; a full one at first."""

    __slots__ = ("_clock", "_per_s", "_since", "_size", "_tokens")

    def __init__(
        self, per_s: float, size: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._size = size
        self._clock = clock
        self._tokens = size
        self._since = clock()

    def take(self) -> bool:
        """Take a token. False if there is none."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._since) * self._per_s)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
