"""Who may stay connected to a WebSocket server when there are not enough slots for all.

    room                                  the newcomer gets a slot
    full, an address over its share       its youngest connection gives way
    full otherwise                        a reserved connection, for `Client.identify`

Clients that only listen are as good as others, so nobody who has a slot gives it up to somebody who
has said nothing. A newcomer on a reserved connection gets a slot with its first valid message: the
youngest client that has never sent one gives way to it. If there is none, it stays where it is, and
its session decides what it may do there (the GUIs of a bar may stop it).

There are few reserved connections. A newcomer takes over one that was silent for long enough, or
one of an address that has more connections than its own.
Pure: connections are only put in order here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from enum import Enum, auto
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Place(Enum):
    """What a connection has."""

    SLOT = auto()
    RESERVED = auto()
    NONE = auto()


class ClientSlots(Generic[P]):
    """The connections of one server.

    ``limit``: how many may have a slot. ``share``: how many of one address, before it gives way to
    others; 0: any number. ``reserved``: how many more may be there without one, and
    ``reserved_s``: how long one of those may stay silent when another needs its place.
    """

    def __init__(
        self, limit: int, *, share: int = 0, reserved: int = 0, reserved_s: float = 2.0
    ) -> None:
        self._limit = limit
        self._share = share
        self._reserved_limit = reserved
        self._reserved_s = reserved_s
        self._slots: dict[P, str] = {}
        self._silent: dict[P, None] = {}
        self._reserved: dict[P, float] = {}
        self._hosts: dict[P, str] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        """Connections that have a slot."""
        return len(self._slots)

    def place(self, peer: P) -> Place:
        """What this connection has."""
        if peer in self._slots:
            return Place.SLOT
        return Place.RESERVED if peer in self._reserved else Place.NONE

    def arrive(self, peer: P, host: str, now: float) -> tuple[Place, P | None]:
        """What a newcomer gets, and who has to go for it. ``host`` is its address, empty for one
        that stands for many clients; ``now`` is in seconds on any clock."""
        if len(self._slots) < self._limit:
            self._admit(peer, host)
            return Place.SLOT, None
        victim = self._over_share(host)
        if victim is not None:
            self.leave(victim)
            self._admit(peer, host)
            return Place.SLOT, victim
        if len(self._reserved) >= self._reserved_limit:
            victim = self._replaceable(host, now)
            if victim is None:
                return Place.NONE, None
            self.leave(victim)
        self._enter(peer, host)
        self._reserved[peer] = now
        return Place.RESERVED, victim

    def identify(self, peer: P) -> P | None:
        """It has sent a valid message. Returns who has to go, if it gets a slot by that."""
        self._silent.pop(peer, None)
        if peer not in self._reserved:
            return None
        victim: P | None = None
        if len(self._slots) >= self._limit:
            victim = next(reversed(self._silent), None)
            if victim is None:
                return None
            self.leave(victim)
        del self._reserved[peer]
        self._slots[peer] = self._hosts[peer]
        return victim

    def leave(self, peer: P) -> None:
        """It is gone."""
        if peer not in self._hosts:
            return
        self._slots.pop(peer, None)
        self._silent.pop(peer, None)
        self._reserved.pop(peer, None)
        host = self._hosts.pop(peer)
        self._count[host] -= 1
        if self._count[host] <= 0:
            del self._count[host]

    def _enter(self, peer: P, host: str) -> None:
        self._hosts[peer] = host
        self._count[host] += 1

    def _admit(self, peer: P, host: str) -> None:
        self._enter(peer, host)
        self._slots[peer] = host
        self._silent[peer] = None

    def _over_share(self, newcomer: str) -> P | None:
        """The youngest connection of the address that has most, if that is over its share; those
        that have never said anything go first."""
        if not self._share:
            return None
        counts = Counter(host for host in self._slots.values() if host and host != newcomer)
        if not counts:
            return None
        [(host, number)] = counts.most_common(1)
        if number <= self._share:
            return None
        silent = self._youngest(self._silent, host)
        return self._youngest(self._slots, host) if silent is None else silent

    def _youngest(self, peers: Iterable[P], host: str) -> P | None:
        found = [peer for peer in peers if self._slots[peer] == host]
        return found[-1] if found else None

    def _replaceable(self, host: str, now: float) -> P | None:
        """Who gives a reserved connection up to a newcomer of this address."""
        for peer, since in self._reserved.items():
            if now - since >= self._reserved_s:
                return peer
        ours = self._count[host] if host else 0
        for peer in self._reserved:
            other = self._hosts[peer]
            if other and self._count[other] > ours + 1:
                return peer
        return None
