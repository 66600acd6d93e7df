"""The settings of the table ``[locker]``; in the environment ``PATCHBAY_LOCKER__<KEY>``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Ttl = Annotated[int, Meta(ge=0, le=2_147_483_647)]
Seconds = Annotated[float, Meta(gt=0)]


class LockerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[locker]``. Sizes are bytes, times are seconds."""

    port: Port = 5000
    """TCP port that boards connect to (the seed's)."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    max_connections: Positive = 10_000
    """Boards connected at once; one more waits for a place. 10,000 idle ones cost some 100 MB."""

    max_per_address: Annotated[int, Meta(ge=0)] = 2_500
    """Connections of one address beyond which it gives way to others when all are taken: a quarter.
    0: never. Loopback and `[runtime] trusted_proxies` have no such bound."""

    idle_timeout_s: Seconds = 600.0
    """A connection that says nothing for so long is closed: boards report every few minutes."""

    max_boards: Positive = 10_000
    """Boards that are known at once. A board names itself, so anybody can invent some: when there
    are so many, one that was never used makes room, and if there is none, the new one is refused.
    Each takes some 3 KB in the edge, the domain and the broker: 1,000 in the containers' memory."""

    new_boards_per_minute: Annotated[int, Meta(ge=0)] = 60
    """New ids that one address may bring in a minute; 0: any number. A site is switched on board by
    board. Loopback and `[runtime] trusted_proxies` have no such bound."""

    rentals_ttl_s: Ttl = 31_536_000
    """How long a rental that has ended is kept: a year, for disputes about a parcel; its holder's
    name should not be kept for longer than that. 0: for ever."""

    accesses_ttl_s: Ttl = 7_776_000
    """How long an access is kept: 90 days, within which somebody asks who has opened a cell; they
    are most of what the store grows by. 0: for ever."""

    code_length: Annotated[int, Meta(ge=1, le=16)] = 4
    """Digits of a code that we draw."""

    offline_after_s: Annotated[float, Meta(ge=0)] = 0.0
    """A board is offline after no report for so long. 0: three of its own, learned, intervals."""

    state_interval_s: Annotated[float, Meta(ge=0)] = 0.5
    """A board's retained state is published at most this often, however often it reports."""

    outbox_max_rows: Positive = 200_000
    """Reports that wait for the domain before boards are refused: 1,000 boards at one a minute
    for more than three hours, some 200 MB on disk."""

    outbox_max_bytes: Positive = 268_435_456
    """The same bound in bytes of encoded events."""

    outbox_synchronous: str = "FULL"
    """SQLite's synchronous: FULL survives a power cut, NORMAL only a kill (kinder to SD cards)."""

    share_group: None = None
    """Not for this service: what it does depends on the order of reports. Any value is refused."""

    demo_boards: Annotated[int, Meta(ge=0, le=10_000)] = 5
    """Simulated boards in `up --demo`."""

    demo_interval_s: Seconds = 2.0
    """How often each simulated board of the demo reports."""
