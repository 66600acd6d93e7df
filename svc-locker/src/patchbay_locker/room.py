"""Which board makes room for a new one, and how many new ones an address may bring.

A board's id is what it calls itself, so anybody can invent some. A *stranger* is a board that never
had a rental or a command, nor 24 hours of reports. Only strangers make room, in this order:

    silent for a day       the one that has been silent for longest first
    few reports            before many: invented ids report once, boards report all the time
    silent for longer      before one that has just reported

A stranger that has made room and reports again is new again; nothing of value was lost.

Pure: the clock is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from heapq import nsmallest
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0
"""A stranger that has been silent for so long goes first; so long must a board have reported to be
one that is never evicted."""

HOSTS: Final = 4_096
"""Addresses that are counted in one minute; all others together count as one."""

MINUTE_S: Final = 60.0

BATCH: Final = 64
PART: Final = 16
"""One search through all boards finds so many strangers, or this part of them if that is more: it
takes milliseconds for 10,000, and somebody may invent ids as fast as a connection carries them."""


class Rank(NamedTuple):
    """What says which of two strangers makes room first."""

    reports: int
    """How many reports it has sent, roughly: the number of bits."""
    seen_s: float
    """When it was last seen: Unix time in seconds."""


def rank(reports: int, seen_s: float) -> Rank:
    """The rank of a stranger that has sent so many reports."""
    return Rank(reports.bit_length(), seen_s)


class Strangers:
    """Finds who makes room. ``rank_of`` is asked for the rank of an id: None if it is no stranger
    any more, or not known. It remembers who may be one: see `add`."""

    def __init__(self, rank_of: Callable[[str], Rank | None]) -> None:
        self._rank_of = rank_of
        self._candidates: dict[str, None] = {}
        self._found: deque[tuple[Rank, str]] = deque()

    def __len__(self) -> int:
        """How many may be strangers: some may have been used since."""
        return len(self._candidates)

    def add(self, *ids: str) -> None:
        """These are known now."""
        self._candidates.update(dict.fromkeys(ids))

    def first(self, number: int, now_s: float, spared: Collection[str] = ()) -> list[str]:
        """The strangers that make room first, at most ``number``."""
        return [id for _, id in self._search(number, now_s, spared)]

    def next(self, now_s: float, spared: Collection[str] = ()) -> str | None:
        """The stranger that makes room next; None if there is none. ``spared``: those that do not.
        ``now_s``: Unix time."""
        while True:
            while self._found:
                found, id = self._found.popleft()
                if self._rank_of(id) == found and id not in spared:  # it is as it was found
                    return id
            ranked = self._search(max(BATCH, len(self) // PART), now_s, spared)
            # Only those of one kind: of a kind that goes sooner there may be new ones by then.
            self._found.extend(
                one for one in ranked if _order(one, now_s)[:2] == _order(ranked[0], now_s)[:2]
            )
            if not self._found:
                return None

    def _search(self, number: int, now_s: float, spared: Collection[str]) -> list[tuple[Rank, str]]:
        ranked = []
        for id in list(self._candidates):
            rank = self._rank_of(id)
            if rank is None:
                del self._candidates[id]
            elif id not in spared:
                ranked.append((rank, id))
        return nsmallest(number, ranked, lambda one: _order(one, now_s))


def _order(one: tuple[Rank, str], now_s: float) -> tuple[bool, int, float]:
    (reports, seen_s), _ = one
    lately = now_s - seen_s < DAY_S
    return lately, reports if lately else 0, seen_s


class Newcomers:
    """Counts the new ids that each address has brought in this minute.

    ``limit``: how many one may bring; 0: any number. ``exempt``: addresses that stand for many
    devices.
    """

    def __init__(self, limit: int, exempt: Collection[str]) -> None:
        self._limit = limit
        self._exempt = frozenset(exempt)
        self._counts: dict[str, int] = {}
        self._since = 0.0

    def admit(self, host: str, now: float) -> bool:
        """May this address bring one more? ``now``: seconds, on any clock that only rises."""
        if not self._limit or host in self._exempt:
            return True
        if now - self._since >= MINUTE_S:
            self._since = now
            self._counts.clear()
        if host not in self._counts and len(self._counts) >= HOSTS:
            host = ""
        count = self._counts.get(host, 0)
        if count >= self._limit:
            return False
        self._counts[host] = count + 1
        return True
