"""The line of waiting jobs, as far as it is known: ids, oldest first.

Reading it from the store costs time that grows with its length (measured: the embedded store looks
at every waiting job, whatever the limit), so its head is kept here. It is only a hint: whether a
job waits is decided by the claim.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

HEAD = 1000
"""Ids read at once: a quarter of a second of the embedded store, spread over a thousand claims."""


class Line:
    """The head of the line, and whether it is all of it."""

    def __init__(self) -> None:
        self.read_at = -1e9
        """When it was read last, on the loop's clock."""
        self.reading_s = 0.0
        """How long that took."""
        self._ids: list[str] = []
        self._complete = False
        self._meanwhile: list[str] | None = None
        """What was added while the store is being read; None while it is not."""

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def exhausted(self) -> bool:
        """Nothing is known to wait, but there may be more in the store."""
        return not self._ids and not self._complete

    def begin(self) -> None:
        """The store is being read: what is added from now on may not be in what it says."""
        self._meanwhile = []

    def read(self, ids: list[str]) -> None:
        """These are the oldest `HEAD` of the store."""
        self._ids = sorted(ids)
        self._complete = len(ids) < HEAD
        meanwhile, self._meanwhile = self._meanwhile, None
        self.add(meanwhile or ())

    def add(self, ids: Iterable[str]) -> None:
        """These wait (again). What belongs behind an incomplete head will be read in its time."""
        for id in ids:
            if self._meanwhile is not None:
                self._meanwhile.append(id)
            place = bisect_left(self._ids, id)
            if place == len(self._ids):
                if self._complete:
                    self._ids.append(id)
            elif self._ids[place] != id:
                self._ids.insert(place, id)

    def discard(self, ids: Iterable[str]) -> None:
        """These do not wait any more."""
        gone = set(ids)
        if self._meanwhile is not None:
            self._meanwhile = [id for id in self._meanwhile if id not in gone]
        self._ids = [id for id in self._ids if id not in gone]

    def first(self, count: int) -> list[str]:
        """The oldest ``count``."""
        return self._ids[:count]
