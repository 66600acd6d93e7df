"""The last values of each type of each node, in memory: most questions are about these."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

MAX_QUEUES: Final = 4096
"""Pairs of a node and a type whose values are held: with 256 of six bytes each some 150 MB. Of
more, those not reported for longest are forgotten."""


class Recent:
    """Queues of (time, bytes), each with the newest values without a gap."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._queues: dict[tuple[int, str], deque[tuple[datetime, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, node: int, type: str, at: datetime, data: bytes) -> None:
        """A value that is in the store now; it is the newest of its kind."""
        key = (node, type)
        queue = self._queues.pop(key, None)
        if queue is None:
            queue = deque(maxlen=self._length)
            if len(self._queues) >= MAX_QUEUES:
                del self._queues[next(iter(self._queues))]
        self._queues[key] = queue
        queue.append((at, data))

    def clear(self) -> None:
        """Forget all: the store may have what was not added here."""
        self._queues.clear()

    def find(
        self, node: int, type: str, since: datetime | None, to: datetime | None, limit: int
    ) -> list[tuple[datetime, bytes]] | None:
        """The values from ``since`` to ``to``, newest first; None if the store may have more.

        The time of capture may go back a little (a clock was set): then the store is asked.
        """
        queue = self._queues.get((node, type))
        if not queue or any(a[0] > b[0] for a, b in zip(queue, list(queue)[1:], strict=False)):
            return None
        found = [one for one in reversed(queue) if (since is None or one[0] >= since)]
        found = [one for one in found if to is None or one[0] <= to][:limit]
        complete = len(found) == limit or (since is not None and queue[0][0] < since)
        return found if complete else None
