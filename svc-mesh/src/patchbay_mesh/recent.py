"""The last values of each type of each node, in memory: most questions are about these."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

MAX_QUEUES: Final = 4096
"""Pairs of a node and a type whose values are held. Of more, those not reported for longest are
forgotten."""

MAX_BYTES: Final = 6_291_456
"""What all values may take: the unit has 44 MiB, of which it needs some 34 itself."""

QUEUE_BYTES: Final = 900
VALUE_BYTES: Final = 145
"""What a queue and a value take beside the value's own bytes, in CPython 3.11: a deque's first
block, its key; a tuple, a datetime, the head of a bytes."""


class Recent:
    """Queues of (time, bytes), each with the newest values without a gap."""

    def __init__(self, length: int, max_bytes: int = MAX_BYTES) -> None:
        self._length = length
        self._max_bytes = max_bytes
        self._bytes = 0
        self._queues: dict[tuple[int, str], deque[tuple[datetime, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, node: int, type: str, at: datetime, data: bytes) -> None:
        """A value that is in the store now; it is the newest of its kind."""
        key = (node, type)
        queue = self._queues.pop(key, None)
        if queue is None:
            queue = deque(maxlen=self._length)
            self._bytes += QUEUE_BYTES
            if len(self._queues) >= MAX_QUEUES:
                self._forget_oldest()
        if self._length and len(queue) == self._length:
            self._bytes -= _size(queue[0])
        self._queues[key] = queue
        queue.append((at, data))
        self._bytes += _size((at, data)) if self._length else 0
        while self._bytes > self._max_bytes and len(self._queues) > 1:
            self._forget_oldest()

    @property
    def size(self) -> int:
        """What all values take, as far as we can tell."""
        return self._bytes

    def _forget_oldest(self) -> None:
        """Forget the pair that was not reported for longest."""
        queue = self._queues.pop(next(iter(self._queues)))
        self._bytes -= QUEUE_BYTES + sum(map(_size, queue))

    def clear(self) -> None:
        """Forget all: the store may have what was not added here."""
        self._queues.clear()
        self._bytes = 0

    def forget(self, nodes: set[int]) -> None:
        """Forget the values of these nodes."""
        for key in [key for key in self._queues if key[0] in nodes]:
            self._bytes -= QUEUE_BYTES + sum(map(_size, self._queues.pop(key)))

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


def _size(value: tuple[datetime, bytes]) -> int:
    return VALUE_BYTES + len(value[1])
