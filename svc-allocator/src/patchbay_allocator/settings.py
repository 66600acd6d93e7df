"""The settings of the table ``[allocator]``; in the environment ``PATCHBAY_ALLOCATOR__<KEY>``."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from patchbay.errors import SettingsError
from patchbay.up.plan import ANY, own_ports

if TYPE_CHECKING:
    from patchbay.settings import Config

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
CombinatorNumber = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}$")]
ColorCode = Annotated[str, Meta(pattern=r"^#?[0-9A-Fa-f]{6}$")]
Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$")]

IPV6: Final = 6

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

    palettes: dict[CombinatorNumber, list[ColorCode]] = {}
    """The colours that a combinator can mix, by its number: the keys of the table of the seed's
    combinator, which ends with an error on any other. It gets no job of another colour, and a job
    that no combinator can mix is refused. One without a palette mixes every colour."""

    max_attempts: Positive = 3
    """Failed attempts, over all combinators and connections, after which a job is parked as
    ``error``: one that stops the machine must not stop it again and again."""

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

    jobs_ttl_s: Annotated[int, Meta(ge=0, le=2_147_483_647)] = 7_776_000
    """A job that is done or an error is removed so long after its last change: 90 days, a term of a
    school. One that waits or is in progress never is. 0: none is."""

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
    """Where each combinator is: number -> (host, port).

    Raises SettingsError for one on a port that we listen on ourselves.
    """
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
    for line in on_our_ports(config, settings.combinators):
        raise SettingsError(f"[allocator] combinators: {line}")
    return found


def demo_addresses(config: Config) -> dict[str, str]:
    """The simulated combinators, if there are any."""
    if config.table("allocator", AllocatorSettings).combinators is not None:
        return {}
    return {
        f"combinator-{number}": f"{host}:{port}"
        for number, (host, port) in combinators(config).items()
    }


def check(config: Config) -> None:
    """Raises SettingsError for what contradicts other settings."""
    known = combinators(config)
    for number in config.table("allocator", AllocatorSettings).palettes:
        if int(number) not in known:
            raise SettingsError(
                f"[allocator] palettes: {number}: no such combinator, there are {len(known)}"
            )


def on_our_ports(config: Config, addresses: list[str]) -> list[str]:
    """One line for each of these addresses (``host:port``) that is a port of our own on this host:
    whose it is, and which setting moves it."""
    ports = own_ports(config)
    lines = []
    for address in addresses:
        host, _, number = address.rpartition(":")
        for port in ports:
            if port.number == int(number) and _reaches(host.strip("[]"), port.host):
                lines.append(
                    f"{address} is our own port {port.name} ({port.key}), not a combinator:"
                    f" give the combinator another port, or change {port.key}"
                )
                break
    return lines


def _reaches(host: str, listening: str) -> bool:
    """Does a connection to ``host`` reach what listens at this address of this machine?"""
    if _is_loopback(host):
        return listening in ANY or _is_loopback(listening)
    return host == listening or (listening in ANY and _is_ours(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback or host in ANY
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def _is_ours(host: str) -> bool:
    """Is it an address or the name of this machine? No name server is asked."""
    try:
        family = socket.AF_INET6 if ip_address(host).version == IPV6 else socket.AF_INET
    except ValueError:
        return host.lower().removesuffix(".local") == socket.gethostname().lower()
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
