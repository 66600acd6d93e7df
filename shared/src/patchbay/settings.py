"""Settings: ``patchbay.toml``, a table a subject, overridden by the environment.

    [broker]                     PATCHBAY_BROKER__PORT=1884
    port = 1883                  PATCHBAY_ALLOCATOR__COMBINATORS='["mixer-1:5000"]'

The tables ``runtime``, ``broker`` and ``store`` are described here, each service describes its own.
All of them are read once, at start, and checked whole: a wrong or unknown key in any table is a
`SettingsError` that names the key and the file or variable it came from.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta, Struct

from patchbay.errors import SettingsError
from patchbay.services import Service, resolve
from patchbay.tables import Given, build, hint

Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
RootTopic = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,3}$")]

DEFAULT_FILE: Final = Path("patchbay.toml")
PREFIX: Final = "PATCHBAY_"
FILE_VARIABLE: Final = "PATCHBAY_CONFIG"
NOT_SETTINGS: Final = frozenset(
    {
        FILE_VARIABLE,
        "PATCHBAY_PYTHON",
        "PATCHBAY_BASE_IMAGE",
        "PATCHBAY_BROKER_IMAGE",
        "PATCHBAY_BROKER_MEMORY",
        "PATCHBAY_BROKER_NAMES",
        "PATCHBAY_BUILD_IMAGE",
        "PATCHBAY_DOMAIN_MEMORY",
        "PATCHBAY_GPIO_DEVICE",
        "PATCHBAY_GPIO_GROUP",
        "PATCHBAY_GPIO_IMAGE",
        "PATCHBAY_GPIO_PACKAGE",
        "PATCHBAY_GPIO_REVISION",
        "PATCHBAY_HEALTH_INTERVAL",
        "PATCHBAY_HTTP_MEMORY",
        "PATCHBAY_IMAGE",
        "PATCHBAY_LOCKER_MEMORY",
        "PATCHBAY_OUTBOX_MEMORY",
        "PATCHBAY_SERIAL_DEVICE",
        "PATCHBAY_SERIAL_GROUP",
        "PATCHBAY_STORE_CACHE",
        "PATCHBAY_STORE_IMAGE",
        "PATCHBAY_STORE_MEMORY",
        "PATCHBAY_UNIT_MEMORY",
        "PATCHBAY_VIEW_MEMORY",
    }
)
"""Variables with our prefix that are no settings: the launcher's, and compose.yaml's."""

_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|(?=.*:.*:)[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
"""A host's name, or an IPv4 or IPv6 address, with its zone if it has one."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HIGHEST_PORT: Final = 65_535

Table = TypeVar("Table", bound=Struct)


class RuntimeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[runtime]``: what holds for each unit of this machine."""

    root_topic: RootTopic = "patchbay"
    """The first levels of every topic. At most four: the longest topic has eight then."""

    state_dir: str = ".patchbay"
    """Where outboxes, heartbeats and logs are kept, relative to where the unit is started."""

    port_offset: Annotated[int, Meta(ge=0, le=_HIGHEST_PORT)] = 0
    """Added to every port that we listen on, so that several systems can run side by side."""

    demo: bool = False
    """Simulated devices: device ports then listen on loopback only."""

    demo_host: str = "127.0.0.1"
    """Where simulated devices look for the device ports: another host where they run apart from
    the units, as in containers."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged. ``debug`` says every frame; it slows an edge down."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto``: for people on a terminal, JSON lines otherwise, since then a program reads them."""

    clock_wait_s: Annotated[float, Meta(ge=0)] = 600.0
    """After a boot of the machine with a clock that is not synchronized, no deadline from before it
    ends for so long: NTP answers within minutes, or there is no network."""

    clock_synced_file: str | None = None
    """The clock is synchronized when this file exists, for a container whose kernel cannot tell
    (systemd has ``/run/systemd/timesync/synchronized``). None: as the kernel says (adjtimex)."""

    stuck_after_s: Seconds = 180.0
    """A unit whose work does not get on for so long is stuck, or waits for something: three times
    the longest pause between two attempts to send the same."""

    restart_after_s: Seconds = 30.0
    """A broker or store of `up` that runs and has not worked for so long is started again, and then
    at most as often. A store that recovers its files after a kill takes less."""

    metrics_port: Port | None = None
    """Where each process answers Prometheus (``/metrics``). None: nowhere, and nothing is counted.
    `up` gives its units this port and those after it."""

    metrics_host: str = "127.0.0.1"
    """The address to answer it on. What is said there is no secret, and asks for no password."""

    max_invalid: Count = 10
    """Invalid frames of one connection after which it is closed, where a protocol goes on after
    one. A device with a fault sends some; what sends more is no device."""

    trusted_proxies: list[str] = []
    """Addresses that stand for many devices (NAT, a proxy): how many connections they have says
    nothing."""


class BrokerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[broker]``. Sizes are bytes, times are seconds."""

    host: str = "127.0.0.1"
    """Where the broker is. On loopback it is ours, and the port offset holds for it."""

    port: Port = 1883
    """MQTT's registered port."""

    username: str | None = None
    """None: the client's own id (a unit's instance id) if there is a password, else anonymous,
    which only a broker that listens on loopback should allow."""

    password: str | None = None
    """Goes with the user name. Better in a file of its own: an environment is easily shown."""

    password_file: str | None = None
    """Where the password is read from at each connect, without white space around it. ``{user}``
    stands for the user name, so that all units of a machine can have the same settings."""

    sessions: Annotated[int, Meta(ge=1, le=64)] = 1
    """How many connections the user of the command line may have at once under names of their own,
    ``operator``, ``operator.2``, ...: what a broker needs that binds client ids to user names."""

    tls: bool = False
    """Encrypt, and check the broker's certificate. Its usual port is 8883."""

    ca_file: str | None = None
    """Who may have signed the broker's certificate (PEM). None: whom the system trusts."""

    cert_file: str | None = None
    """A certificate of our own (PEM), for a broker that asks for one."""

    key_file: str | None = None
    """The key of ``cert_file``. None: it stands in the same file."""

    keepalive_s: Annotated[int, Meta(ge=1, le=65_535)] = 30
    """A silent connection is found dead within 1.5 times this. A Pi on Wi-Fi sleeps for seconds."""

    connect_timeout_s: Seconds = 5.0
    """From the first SYN to CONNACK. Longer only delays the next try."""

    max_inflight: Annotated[int, Meta(ge=1, le=65_535)] = 1000
    """Publishes without PUBACK at once: the outbox's window, so that it is the only brake."""

    receive_maximum: Annotated[int, Meta(ge=1, le=65_535)] = 1000
    """Messages that the broker may send us before we acknowledge; it bounds what waits here."""

    max_packet_size: Annotated[int, Meta(ge=1024, le=268_435_455)] = 262_144
    """The largest packet, both ways: twice an outbox batch, and what our mosquitto takes."""

    session_expiry_s: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 86_400
    """How long the broker keeps a durable session for a service that is away: a day, to fix it."""

    backoff_initial_s: Seconds = 0.2
    """The first pause before connecting again: a broker that restarts is back within a second."""

    backoff_max_s: Seconds = 15.0
    """The longest pause: a broker that was away for a night is found again this soon."""

    confirm_s: Seconds = 2.0
    """How long a service waits until whoever sent a request that actuates has confirmed it. No
    answer is a no. Shorter than requesters wait for theirs, so that they read why."""

    dead_letter_queue: Count = 1000
    """Dead letters kept in memory while the broker is away, some 3 KB each; the newest stay."""

    dead_letters_per_s: Count = 10
    """Refusals of a unit in a second that get a dead letter and a log line each; the others are
    counted. Enough to see what devices send, and no work for whoever sends garbage without end."""

    dead_letter_summary_s: Seconds = 10.0
    """How often one dead letter and one log line say how many refusals were left out, if any."""

    bind_host: str = "127.0.0.1"
    """The address that the broker we start listens on: it asks for no password."""

    def __post_init__(self) -> None:
        if not self.host or not _HOST.fullmatch(self.host):
            raise ValueError(
                f"host must be a name or an address, without a scheme, a port or brackets,"
                f" got {self.host!r}"
            )
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file: give one of them")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file: its certificate is missing, cert_file")
        if not self.tls and (self.ca_file is not None or self.cert_file is not None):
            raise ValueError("ca_file, cert_file: they mean nothing without tls = true")


class StoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[store]``. Times are seconds."""

    uri: str | None = None
    """Any MongoDB (``mongodb://...``). None: the embedded store on loopback at ``port``."""

    username: str | None = None
    """The user of ``database`` that we are. None: as ``uri`` says."""

    password_file: str | None = None
    """Where that user's password is read from at the start, without white space around it."""

    port: Port = 27_017
    """The port of the embedded store: MongoDB's, so that its tools find it."""

    database: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "patchbay"
    """One database for all services."""

    events_ttl_s: Annotated[int, Meta(ge=1, le=2_147_483_647)] = 2_592_000
    """Facts in ``events`` are kept for 30 days; what follows from them stays in its own place."""

    dead_letters_max: Count = 10_000
    """Dead letters of a service that are stored, the newest: more than anybody reads, and no more
    than 2.5 GB if each has an original of the size of a packet."""

    cache_size: Annotated[str, Meta(pattern=r"^[0-9]+[KMG]$")] = "256M"
    """The embedded store's cache. A Pi with 1 GB has room for it and the units."""

    timeout_s: Seconds = 10.0
    """An operation that takes longer counts as "the store is away" and is tried again."""

    backoff_initial_s: Seconds = 0.2
    """The first pause before an operation is tried again."""

    backoff_max_s: Seconds = 15.0
    """The longest pause between two tries."""

    suspect_failures: Count = 5
    """A document that the store refuses for an unknown reason is set aside after so many failures,
    if another write to the same collection succeeds each time."""

    suspect_s: Seconds = 600.0
    """And not before it has failed for so long: a store that is repaired or makes room takes it."""

    def __post_init__(self) -> None:
        if self.uri is not None and not self.uri.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("uri must begin with mongodb:// or mongodb+srv://")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file: give both or none")


_OURS: Final[dict[str, type[Struct]]] = {
    "runtime": RuntimeSettings,
    "broker": BrokerSettings,
    "store": StoreSettings,
}


class Config:
    """All settings of this machine, checked. `read` makes it."""

    def __init__(self, services: Mapping[str, Service], tables: Mapping[str, Struct]) -> None:
        self.services = services
        self._tables = tables

    @classmethod
    def read(
        cls, path: Path | None, environ: Mapping[str, str], services: Mapping[str, Service]
    ) -> Config:
        """Read and check every table.

        The file is ``path``, or what ``PATCHBAY_CONFIG`` names, or ``./patchbay.toml`` if there is
        one. The environment overrides it. Raises SettingsError.
        """
        types = {**_OURS, **{name: resolve(one.settings) for name, one in services.items()}}
        given: dict[str, dict[str, Given]] = {name: {} for name in types}
        source, content = _read_file(path, environ)
        for table, keys in content.items():
            if table not in types:
                raise SettingsError(f"{source}: [{table}]: unknown table{hint(table, types)}")
            for key, value in keys.items():
                given[table][key] = Given(f"{source}: [{table}] {key}", value)
        for variable, text in sorted(environ.items()):
            if variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
                table, key = _address(variable, types)
                given[table][key] = Given(variable, text, text=True)
        return cls(services, {name: build(name, types[name], given[name]) for name in types})

    @property
    def runtime(self) -> RuntimeSettings:
        return self.table("runtime", RuntimeSettings)

    @property
    def broker(self) -> BrokerSettings:
        return self.table("broker", BrokerSettings)

    @property
    def store(self) -> StoreSettings:
        return self.table("store", StoreSettings)

    def table(self, name: str, kind: type[Table]) -> Table:
        """The settings of a table, which are of type ``kind``. Raises SettingsError."""
        table = self._tables.get(name)
        if not isinstance(table, kind):
            raise SettingsError(f"[{name}]: no such table of {kind.__name__}")
        return table

    def port(self, number: int) -> int:
        """The port to listen on: moved by ``port_offset``; 0 (any free one) stays 0.

        Raises SettingsError if that leaves no port.
        """
        if number == 0:
            return 0
        moved = number + self.runtime.port_offset
        if moved > _HIGHEST_PORT:
            raise SettingsError(f"[runtime] port_offset: port {number} becomes {moved}")
        return moved

    @property
    def broker_port(self) -> int:
        """The port to connect to: moved by the offset if the broker is ours (on loopback)."""
        broker = self.broker
        return self.port(broker.port) if broker.host in _LOOPBACK else broker.port

    @property
    def store_uri(self) -> str:
        """The MongoDB to connect to: ``[store] uri`` as it is, or the embedded one."""
        return self.store.uri or f"mongodb://127.0.0.1:{self.port(self.store.port)}"

    def listen_host(self, configured: str | None) -> str:
        """The address for device ports: ``configured``, or loopback in a demo, or all."""
        return configured or ("127.0.0.1" if self.runtime.demo else "0.0.0.0")  # noqa: S104


def _read_file(path: Path | None, environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The file's name and its tables."""
    if path is None and environ.get(FILE_VARIABLE):
        path = Path(environ[FILE_VARIABLE])
    if path is None:
        path = DEFAULT_FILE
        if not path.exists():
            return "", {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors add a BOM
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    for name, table in content.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name}: stands outside of a table")
    return str(path), content


def _address(variable: str, types: Mapping[str, type[Struct]]) -> tuple[str, str]:
    """The (table, key) that a variable names."""
    table, parts, key = variable.removeprefix(PREFIX).lower().partition("__")
    if not parts or not key:
        raise SettingsError(f"{variable}: no setting; they are named {PREFIX}<TABLE>__<KEY>")
    if table not in types:
        raise SettingsError(f"{variable}: unknown table {table}{hint(table, types)}")
    return table, key
