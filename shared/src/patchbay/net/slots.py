"""Who may have a connection when there are not enough for all.

    room                                the newcomer gets a slot
    full, some have sent nothing valid  the oldest of those is closed for it
    full, an address has over its share its longest silent connection is closed for it
    full of devices                     it waits, unread, until one of them leaves
    too many wait                       it is closed

So a device that has identified itself is never closed, or kept out, because of one that has not.
Pure: peers are only put in order here.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from typing import Final, Generic, TypeVar

P = TypeVar("P", bound=Hashable)

MAX_WAITING: Final = 256
"""Connections that wait for a slot: as many Chromebooks as a school has at one time. Each costs an
open file, and what it has sent stays in the kernel."""


class Verdict(Enum):
    """What becomes of a newcomer."""

    ADMIT = auto()
    WAIT = auto()
    REFUSE = auto()


class Slots(Generic[P]):
    """The connections of one server.

    ``limit``: how many may have a slot. ``share``: how many of one address, before it gives way to
    others; 0: any number. ``speakers``: devices here send frames; where they only listen, a silent
    one is as good as any.
    """

    def __init__(
        self, limit: int, *, share: int = 0, speakers: bool = True, max_waiting: int = MAX_WAITING
    ) -> None:
        self._limit = limit
        self._share = share
        self._speakers = speakers
        self._max_waiting = max_waiting
        self._strangers: dict[P, None] = {}
        self._admitted: dict[P, str] = {}
        self._of: dict[str, dict[P, None]] = {}
        self._waiting: dict[P, str] = {}

    def __len__(self) -> int:
        """Connections that have a slot."""
        return len(self._admitted)

    @property
    def waiting(self) -> int:
        """Connections that wait for one."""
        return len(self._waiting)

    def is_waiting(self, peer: P) -> bool:
        """Does it wait for a slot?"""
        return peer in self._waiting

    def arrive(self, peer: P, host: str) -> tuple[Verdict, P | None]:
        """What becomes of a newcomer, and whom to close for it (its slot is free already).

        ``host`` is its address without the port; empty: its number of connections does not count.
        """
        if len(self._admitted) < self._limit:
            self._admit(peer, host)
            return Verdict.ADMIT, None
        victim = self._victim()
        if victim is not None:
            self.leave(victim)
            self._admit(peer, host)
            return Verdict.ADMIT, victim
        if len(self._waiting) >= self._max_waiting:
            return Verdict.REFUSE, None
        self._waiting[peer] = host
        return Verdict.WAIT, None

    def identify(self, peer: P) -> None:
        """It has sent a valid frame, now: it is a device."""
        self._strangers.pop(peer, None)
        of = self._of.get(self._admitted.get(peer, ""))
        if of is not None and peer in of:
            del of[peer]  # behind all that have been silent for longer
            of[peer] = None

    def leave(self, peer: P) -> None:
        """It is gone."""
        self._waiting.pop(peer, None)
        self._strangers.pop(peer, None)
        host = self._admitted.pop(peer, "")
        of = self._of.get(host)
        if of is not None:
            of.pop(peer, None)
            if not of:
                del self._of[host]

    def next(self) -> P | None:
        """The one that has waited longest has a slot now; None if there is no slot, or nobody."""
        if not self._waiting or len(self._admitted) >= self._limit:
            return None
        peer = next(iter(self._waiting))
        self._admit(peer, self._waiting.pop(peer))
        return peer

    def _admit(self, peer: P, host: str) -> None:
        self._admitted[peer] = host
        if self._speakers:
            self._strangers[peer] = None
        if host and self._share:
            self._of.setdefault(host, {})[peer] = None

    def _victim(self) -> P | None:
        if self._strangers:
            return next(iter(self._strangers))
        if not self._of:
            return None
        most = max(self._of.values(), key=len)
        return next(iter(most)) if len(most) > self._share else None
