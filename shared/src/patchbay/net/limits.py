"""What a server puts up with before it closes a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchbay.net.slots import MAX_WAITING

ENDED_GRACE_S: Final = 1.0
"""A peer that has said all (``printf ... | nc``) still gets answers for so long."""


MAX_INVALID: Final = 10
"""A device with a fault in its program may send some; what sends more is no device."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server puts up with. Times are seconds, sizes bytes."""

    max_connections: int = 10_000
    """Connections that are served at a time; see `Slots` for who is when there are more."""
    idle_timeout_s: float = 600.0
    """A peer that sends nothing for so long is closed. `math.inf`: never, it need not speak."""
    write_buffer_bytes: int = 262_144
    """A peer that lets more than this wait is dropped: it does not read what we write."""
    ended_grace_s: float = ENDED_GRACE_S
    """A peer that has said all still gets answers for so long. 0: it never gets any."""
    dead_after_s: int = 0
    """A peer that has vanished without FIN or reset is found within so long, also while nobody
    sends anything (see `find_dead`). 0: within a minute, and one that does not read is left alone
    (see `notice_power_cuts`)."""
    send_buffer_bytes: int = 0
    """What the kernel may hold for one peer. 0: as it likes, up to megabytes."""
    max_waiting: int = MAX_WAITING
    """Connections beyond those that wait, unread, for one of them to end. One more is closed."""
    max_per_address: int = 0
    """Connections of one address beyond which it gives way when all are taken. 0: any number."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses that stand for many devices (NAT, a proxy), so that their number says nothing.
    Loopback is one of them always."""
    speakers: bool = True
    """Devices here send frames: those that have sent a valid one (`Peer.identify`) come first."""
    max_invalid: int = MAX_INVALID
    """Invalid frames after which a peer is closed, where a session goes on after one
    (`Peer.invalid`)."""
