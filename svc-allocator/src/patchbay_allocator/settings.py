"""The settings of the table ``[allocator]``; in the environment ``PATCHBAY_ALLOCATOR__<KEY>``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from patchbay.settings import Config

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$")]

DEMO_PORTS: Final = (8373, 8374)
"""Where the combinators of ``up --demo`` listen, on loopback, moved by the port offset."""


class AllocatorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[allocator]``. Sizes are bytes, times are seconds."""

    port: Port = 8372
    """TCP port that Chromebooks connect to."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    combinators: list[Address] | None = None
    """``host:port`` of each colour combinator; the first is number 1. None: with --demo the two
    simulated ones, otherwise none."""

    max_connections: Positive = 1000
    """Chromebooks connected at once; one more waits for a place. A class has thirty of them."""

    max_per_address: Annotated[int, Meta(ge=0)] = 250
    """Connections of one address beyond which it gives way to others when all are taken: a
    quarter, eight classes. 0: never. Loopback and `[runtime] trusted_proxies` have no such
    bound."""

    idle_timeout_s: Seconds = 600.0
    """A connection that says nothing for so long is closed."""

    job_timeout_s: Seconds = 600.0
    """No answer of a combinator for so long: the attempt has failed."""

    reconnect_grace_s: Annotated[float, Meta(ge=0)] = 60.0
    """After its connection was lost a combinator gets nothing new for so long: what it had in hand
    may still be answered."""

    retry_initial_s: Seconds = 1.0
    """The first pause before a combinator is connected to again; doubled each time."""

    retry_max_s: Seconds = 30.0
    """The longest such pause."""

    reissue_s: Seconds = 2.0
    """A command that a combinator's edge has not confirmed for so long is sent again."""

    state_interval_s: Seconds = 1.0
    """The retained state of the queue is published at most this often. Counting costs the store
    time that grows with the jobs, so a long queue is counted less often."""

    outbox_max_rows: Positive = 200_000
    """Jobs that wait for the domain before Chromebooks are not read from: some 100 MB on disk."""

    outbox_max_bytes: Positive = 268_435_456
    """The same bound in bytes of encoded events."""

    outbox_synchronous: str = "FULL"
    """SQLite's synchronous: FULL survives a power cut, NORMAL only a kill (kinder to SD cards)."""

    share_group: Annotated[str, Meta(pattern=r"^[a-z0-9_-]+$")] | None = None
    """Replicas of the domain service name the same group here and share the work. None: one."""

    demo_interval_s: Seconds = 3.0
    """How often, on the average, a simulated Chromebook of the demo sends a job."""

    demo_mixing_s: Annotated[float, Meta(ge=0)] = 2.0
    """How long a simulated combinator of the demo mixes."""


def combinators(config: Config) -> dict[int, tuple[str, int]]:
    """Where each combinator is: number -> (host, port)."""
    settings = config.table("allocator", AllocatorSettings)
    if settings.combinators is None:
        ports = DEMO_PORTS if config.runtime.demo else ()
        return {
            number: ("127.0.0.1", config.port(port)) for number, port in enumerate(ports, start=1)
        }
    found = {}
    for number, address in enumerate(settings.combinators, start=1):
        host, _, port = address.rpartition(":")
        found[number] = (host.strip("[]"), int(port))
    return found
