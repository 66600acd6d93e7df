"""The settings of the table ``[mesh]``; in the environment ``PATCHBAY_MESH__<KEY>``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct, field

if TYPE_CHECKING:
    from patchbay.settings import Config

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
DataId = Annotated[str, Meta(pattern=r"^\d{1,3}:[!-9;-~]{3}:\d{1,3}$")]
Seconds = Annotated[float, Meta(gt=0)]

DEMO_LINK = "mesh-root"
"""The simulated root of the demo is found under this name in the state directory."""


class MeshSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[mesh]``. Sizes are bytes, times are seconds."""

    serial: str | None = None
    """Serial port of the root: a device or any pyserial URL. None: with --demo the simulated root,
    otherwise none."""

    baud: Positive = 115_200
    """Bits a second: what an ESP32 uses if nobody says otherwise."""

    dtr: bool = True
    """Assert DTR while the port is open, as pyserial and terminals do. Some boards need it (USB
    CDC firmware that waits for it), some are held in their boot loader by it."""

    rts: bool = True
    """Assert RTS while the port is open. A board whose reset pin hangs on RTS alone is held in
    reset by it: set it to false. Linux asserts both lines for a moment whenever a port is
    opened."""

    dead_after_s: Annotated[int, Meta(ge=2, le=3600)] = 45
    """A root at a TCP connection (``socket://``, ``rfc2217://``) that has vanished without a word
    (power, cable) is found within so long, and its port opened anew."""

    root_silence_s: Seconds = 300.0
    """A root that has sent nothing for so long is reported as silent: in the log, and later as
    ``waiting: root``. A mesh in which nodes report does so every few seconds; one without nodes may
    rightly be silent."""

    escape_xor: Annotated[int, Meta(ge=0, le=255)] = 0xFA
    """What an escaped byte is XORed with; later firmware has 255."""

    types: Literal["letters", "opcodes"] = "letters"
    """How the root's frames name what they are: with three letters, or with an opcode of one byte
    as today's firmware does."""

    data_ids: list[DataId] = field(default_factory=lambda: ["0:SEQ:1", "1:GPS:6"])
    """With ``types = "opcodes"``: what the values of a `D` are, each as id:type:length. The ids and
    lengths are those of the firmware's Data_Info.json; a type has three letters here."""

    tx_framing: Literal["line", "frame"] = "line"
    """How commands go to the root: as a line, or escaped between ff and fe as later firmware
    reads them."""

    reconnect_initial_s: Seconds = 1.0
    """The first pause before a port that is away is opened again; doubled each time."""

    reconnect_max_s: Seconds = 10.0
    """The longest such pause: a root that is plugged in again is found this soon."""

    write_timeout_s: Seconds = 5.0
    """A command that the port has not taken in so long is refused."""

    write_queue: Positive = 1000
    """Commands that may wait for the port; one more is refused."""

    port: Port = 5001
    """TCP port of the socket API."""

    monitor_port: Port = 7654
    """WebSocket port of the monitor, where the dashboard in use looks."""

    monitor_format: Literal["v1", "v2"] = "v1"
    """What the monitor sends: v1, a snapshot and then changes; v2, the whole list of nodes each
    time, with `Active`, `Idle` and `Disconnect`, as today's dashboard reads it."""

    monitor_interval_s: Seconds = 1.0
    """With ``monitor_format = "v2"``: the list is sent at most this often."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    max_connections: Positive = 1000
    """Clients of the socket API at once; one more waits for a place. So many again may watch the
    monitor."""

    max_per_address: Annotated[int, Meta(ge=0)] = 250
    """Connections of one address beyond which it gives way to others when all are taken: a quarter.
    0: never. Loopback and `[runtime] trusted_proxies` have no such bound."""

    idle_timeout_s: Seconds = 60.0
    """A connection that has asked nothing for so long is closed. Who listens is not."""

    request_gap_s: Seconds = 0.02
    """A request without an end is complete after so long without a byte: clients in use neither
    half-close nor mark the end."""

    end_mark: str = "[E]"
    """What ends a request that has no fixed length, and then its answer. Empty: nothing does."""

    get_order: Literal["type", "node"] = "type"
    """What stands first in [GET] where the bytes themselves do not tell."""

    listener_buffer_bytes: Positive = 262_144
    """Who listens and lets more than this wait is dropped: it does not read."""

    buffers_bytes: Positive = 4_194_304
    """What may wait for all clients of the socket API, or all dashboards, together: sixty answers
    about all nodes, and a part of the unit's memory. Beyond that the client that lets most wait is
    dropped."""

    command_timeout_s: Seconds = 5.0
    """A command that the root's edge has not asked for within so long is refused, and never sent.
    One that it has asked for and not answered is neither confirmed nor refused."""

    start_deadline_s: Seconds = 2.0
    """The root's edge asks whoever sent a command whether it is still wanted, and begins to write
    it within so long of its question, or never. Shorter than ``command_timeout_s``, so that the
    answer arrives."""

    active_timeout_s: Seconds = 60.0
    """A node is active for so long after its last word."""

    history_length: Annotated[int, Meta(ge=0)] = 256
    """Values of each type of each node that are kept in memory; the store has them all."""

    history_bytes: Positive = 6_291_456
    """What these values may take in memory, all together: the unit may take 44 MiB in a container.
    Beyond that those not reported for longest are read from the store."""

    values_bytes: Positive = 6_291_456
    """What the latest values of all nodes may take in mesh.domain, together: some 22,000 values.
    Beyond that a node that reports keeps its share (this divided by ``max_nodes``) at most, its
    newest values."""

    cache_bytes: Positive = 6_291_456
    """What the latest values may take in the unit of the socket API, all together: some 15,000
    values. Beyond that the nodes that were silent for longest are forgotten there."""

    max_nodes: Annotated[int, Meta(ge=1, le=65_536)] = 1000
    """Nodes that are known at a time; a mesh of these roots has some hundred. For one more the node
    makes room that has been away for longest, if it was known for less than a day; else the new one
    is refused, and its reports are counted and not stored. Those that are active, or were known for
    a day, stay."""

    max_types: Positive = 64
    """Types of which a node's latest value is known. One more puts out the one reported longest
    ago: a line in disorder must not fill the memory."""

    readings_ttl_s: Positive = 2_592_000
    """How long the store keeps values and messages: 30 days."""

    nodes_ttl_s: Annotated[int, Meta(ge=0)] = 7_776_000
    """A node that has been away for so long is forgotten: 90 days, thrice as long as its values
    are stored. 0: never."""

    state_interval_s: Annotated[float, Meta(ge=0)] = 0.5
    """A node's retained state is published at most this often, however often it reports."""

    traffic_lines_per_s: Positive = 50
    """Lines of the monitor's log: more are counted and not shown, since nobody can read them."""

    outbox_max_rows: Positive = 500_000
    """Frames that wait for the domain before the oldest telemetry is given up: four minutes at
    2,000 a second, half a day at ten. Some 150 MB on disk."""

    outbox_max_bytes: Positive = 268_435_456
    """The same bound in bytes of encoded events."""

    outbox_synchronous: str = "FULL"
    """SQLite's synchronous: FULL survives a power cut, NORMAL only a kill (kinder to SD cards)."""

    outbox_gather_s: Annotated[float, Meta(ge=0)] = 0.02
    """Frames of so long share a commit, since nobody waits for an answer. What comes after a pause
    is committed at once."""

    share_group: None = None
    """Not for this service: what it does depends on the order of reports. Any value is refused."""

    demo_nodes: Annotated[int, Meta(ge=0, le=1000)] = 5
    """Simulated nodes in `up --demo`."""

    demo_interval_s: Seconds = 2.0
    """How often each simulated node of the demo reports."""

    def __post_init__(self) -> None:
        ids = [one.partition(":")[0] for one in self.data_ids]
        lengths = [one.rpartition(":")[2] for one in self.data_ids]
        if any(int(one) > 255 for one in ids + lengths):
            raise ValueError("data_ids: an id and a length must be 0 to 255")
        if len({int(one) for one in ids}) < len(ids):
            raise ValueError("data_ids: an id must stand there once")


def demo_addresses(config: Config) -> dict[str, str]:
    """The simulated root's serial port, if it is the one that is used."""
    named = config.table("mesh", MeshSettings).serial
    port = serial_port(config)
    return {"mesh-root": port} if named is None and port is not None else {}


def serial_port(config: Config) -> str | None:
    """The serial port that holds: the one that is named, the simulated one, or none."""
    named = config.table("mesh", MeshSettings).serial
    if named is None and config.runtime.demo:
        return str(Path(config.runtime.state_dir).resolve() / DEMO_LINK)
    return named
