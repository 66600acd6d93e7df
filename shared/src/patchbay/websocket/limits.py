"""What a WebSocket server puts up with, and the pages that it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from patchbay.net.limits import MAX_INVALID


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server puts up with. Times are seconds, sizes bytes."""

    max_connections: int = 1000
    """Clients that are served at a time; see `ClientSlots` for who is when there are more."""
    max_per_address: int = 0
    """Clients of one address beyond which it gives way when all slots are taken. 0: any number."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses that stand for many clients, so that their number says nothing; loopback always."""
    reserved: int = 0
    """Connections beyond ``max_connections`` for newcomers that have not sent a valid message."""
    reserved_s: float = 2.0
    """How long one of those may be silent when another newcomer needs its place."""
    max_opening: int = 200
    """Connections that have not finished their handshake, or are being given a page. With one more
    the oldest of them is cut: whoever opens connections and says nothing keeps nobody out. A
    thousand browsers that come back at once are fewer than this at any one moment. Each takes some
    30 KB, and a unit with browsers may take 36 MiB in a container."""
    max_message_bytes: int = 65_536
    """A longer message closes the connection with 1009."""
    write_buffer_bytes: int = 262_144
    """A client that lets more than this wait is dropped: it does not read what we send."""
    open_timeout_s: float = 10.0
    """From the connection to the end of its handshake; who says nothing is closed then."""
    ping_interval_s: float = 20.0
    """A ping this often keeps connections open through routers."""
    ping_timeout_s: float = 20.0
    """A client that does not answer a ping for so long is gone."""
    max_invalid: int = MAX_INVALID
    """Invalid messages after which a client is closed, where its session goes on after one
    (`Client.invalid`)."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a plain GET of one path answers."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
