"""The settings of the table ``[bartender]``; in the environment ``PATCHBAY_BARTENDER__<KEY>``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from patchbay.hosts import NAME_PATTERN

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Bar = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,40}$")]
BoardPin = Annotated[int, Meta(ge=1, le=40)]

PUMPS: Final = 8
"""Pumps of a machine, 0 to 7 (the seed's)."""

REFILL_TIMES: Final[tuple[float, ...]] = (2, 2, 3, 3, 4, 4, 5, 5)
"""Tubes are longer the farther a pump is from its container."""

BOARD_PINS: Final = (7, 11, 12, 13, 15, 16, 18, 22)
"""Pins for pumps 0 to 7, as the machine is wired."""


class BartenderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[bartender]``. Times are seconds, cups are litres."""

    bar: Bar = "bar"
    """The machine's name in topics; its pumps are ``<bar>-pumps``. Two on one broker need two."""

    port: Port = 8765
    """TCP port of the WebSocket that GUIs connect to (the seed's)."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    origins: list[str] = field(default_factory=lambda: ["http://localhost:4200"])
    """Origins of pages that may connect: by default where the GUI in use is served. A page of
    somebody else could start pumps from a browser that has it open. ``*``: any page. What is no
    browser has no origin, and may connect."""

    hosts: list[Annotated[str, Meta(pattern=NAME_PATTERN)]] = []
    """Names that GUIs may know this machine by: ``bar.example``. Addresses, names without a dot,
    this machine's own (``pi1.local``) and those in ``origins`` are known anyway. ``*``: all."""

    max_connections: Positive = 100
    """GUIs connected at once. A bar has a few."""

    max_per_address: Annotated[int, Meta(ge=0)] = 20
    """GUIs of one address beyond which it gives way to others when all connections are taken. A
    tablet has one or two. 0: any number. Loopback and ``trusted_proxies`` have no bound."""

    reserved_connections: Annotated[int, Meta(ge=0, le=100)] = 2
    """Connections beyond those, for newcomers when all are taken. With its first valid message a
    GUI takes the place of one that never sent any; if there is none, it can only stop."""

    reserved_s: Seconds = 0.3
    """How long a newcomer there may be silent when another one comes: a stop is sent at once."""

    max_message_bytes: Positive = 65_536
    """A longer message closes its connection (1009): a blend has some 200 bytes."""

    write_buffer_bytes: Positive = 262_144
    """A GUI that lets more than this wait is dropped: it does not read what it is told."""

    max_cup_size: Seconds = 1.0
    """Litres. A larger cup is a slip of the finger."""

    max_run_seconds: Annotated[float, Meta(gt=0, le=3600)] = 300.0
    """No pump is on for longer, whoever asks: a litre takes 213 s."""

    start_deadline_s: Annotated[float, Meta(gt=0, le=30)] = 2.0
    """The pumps begin a run within so long of their own question whether they may, or never: nobody
    stands there with a cup any more. What cannot be asked is not older than this either."""

    answer_s: Annotated[float, Meta(gt=0, le=60)] = 3.0
    """A GUI gets an error when the scheduler has not answered for so long. What it has ordered is
    poured only if the pumps ask before."""

    watchdog_s: Annotated[float, Meta(ge=0.3, le=10)] = 0.5
    """A pumps' process whose loop does nothing for so long cannot be told to stop: all goes off.
    The loop says that it turns every tenth of a second."""

    lost_after_s: Seconds = 5.0
    """A run whose pumps are away for so long has failed: a killed edge is back within two."""

    sec_per_liter: Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] = 213
    """Seconds that a pump takes for a litre; what a new bar begins with, later `configure` says."""

    refill_times: Annotated[list[Seconds], Meta(min_length=PUMPS, max_length=PUMPS)] = field(
        default_factory=lambda: list(REFILL_TIMES)
    )
    """Seconds to fill the tube of each pump, by position; what a new bar begins with."""

    gpio: Literal["auto", "rpi", "simulated"] = "auto"
    """The driver of the pins. auto: rpi on a Raspberry Pi without --demo, simulated elsewhere."""

    pins: Annotated[list[BoardPin], Meta(min_length=PUMPS, max_length=PUMPS)] = field(
        default_factory=lambda: list(BOARD_PINS)
    )
    """The pin of each pump's relay, numbered as on the board's header (BOARD)."""

    active_low: bool = True
    """A relay is on while its pin is low, as on most relay boards."""

    release_pins: bool = False
    """Make inputs of the pins at the end (RPi.GPIO's cleanup). Then nothing holds the relays off
    but what the relay board itself does with an open input: leave it, unless others use the pins.
    """

    outbox_max_rows: Positive = 10_000
    """Events of runs that wait for the domain before runs are refused: some 5,000 runs, 5 MB."""

    outbox_max_bytes: Positive = 16_777_216
    """The same bound in bytes of encoded events."""

    outbox_synchronous: str = "FULL"
    """SQLite's synchronous: FULL survives a power cut, NORMAL only a kill (kinder to SD cards)."""

    blends_ttl_s: Annotated[int, Meta(ge=0)] = 63_072_000
    """Records of blends and refills that have ended are deleted after so long: two years, to
    compare one season with the last. 0: never."""

    share_group: None = None
    """Not for this service: there is one scheduler. Any value is refused."""

    demo_interval_s: Seconds = 10.0
    """How long the simulated GUI of the demo waits between two blends."""

    def __post_init__(self) -> None:
        """Two pumps on one pin: neither could be switched off alone. Raises ValueError."""
        if len(set(self.pins)) < PUMPS:
            raise ValueError("pins: one pin for each pump")
