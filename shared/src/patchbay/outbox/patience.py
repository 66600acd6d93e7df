"""How long a sender waits for an acknowledgement before it sends the same again.

A repeat costs the domain service what the first sending did, so a slow one that is sent everything
again and again becomes slower still. The wait is therefore learnt from how long acknowledgements
take, as TCP learns its own.
"""

from __future__ import annotations

PATIENCE_S = 5.0
"""The shortest wait: a domain service that keeps up acknowledges within tenths of a second."""

PATIENCE_MAX_S = 60.0
"""The longest wait: so long after the domain service is back all goes on at the latest."""

TIMES = 2.0
"""So many times what the last acknowledgement took: the next may be of a larger round."""

FADES = 0.8
"""With each acknowledgement the wait shrinks to this part at most, since rounds are of all sizes: a
small one that was quick says nothing about the large one behind it."""


class Patience:
    """The wait of one sender. Times are seconds of one monotonic clock, given by the caller."""

    def __init__(self) -> None:
        self._wait_s = PATIENCE_S
        self._waiting_since = 0.0
        self._measured_since = 0.0

    def begin(self, now: float) -> None:
        """What is under way was not, or could not arrive, before now: measure from here."""
        self._waiting_since = self._measured_since = now

    def progressed(self, now: float) -> None:
        """An acknowledgement has come: learn from it."""
        took_s = now - self._measured_since
        wait_s = max(PATIENCE_S, TIMES * took_s, FADES * self._wait_s)
        self._wait_s = min(wait_s, PATIENCE_MAX_S)
        self.begin(now)

    def is_over(self, now: float) -> bool:
        """Is it time to send the same again? If so the next wait begins, twice as long.

        What the acknowledgement takes is still measured from the first sending, since it may well
        be for that.
        """
        if now - self._waiting_since <= self._wait_s:
            return False
        self._waiting_since = now
        self._wait_s = min(self._wait_s * 2, PATIENCE_MAX_S)
        return True
