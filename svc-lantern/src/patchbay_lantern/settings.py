"""The settings of the table ``[lantern]``; in the environment ``PATCHBAY_LANTERN__<KEY>``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from patchbay.hosts import NAME_PATTERN

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
HostName = Annotated[str, Meta(pattern=NAME_PATTERN)]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/]+$")]


class LanternSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of ``[lantern]``. Sizes are bytes, times are seconds."""

    port: Port = 9999
    """TCP port that lanterns connect to (the seed's)."""

    api_port: Port = 9000
    """Port of the HTTP API (the seed's)."""

    page_port: Port = 8888
    """Port of the page and its WebSocket (the seed's)."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    api_url: Url | None = None
    """Where the page finds the API, if it stands behind a proxy: ``https://api.example``. None: on
    the page's own host, at ``api_port``. The page's origin must then be one of ``origins``."""

    origins: list[Url] = []
    """Pages that may call the API from a browser, besides our own: ``https://lights.example``. Our
    own is that on the host that the API was asked as, at ``page_port``; behind a proxy or a mapped
    port the browser sees another, which is to be named here."""

    hosts: list[HostName] = []
    """Names that browsers may know the page and the API by, besides what nobody else can make to
    lead here: addresses, names without a dot, this machine's own (``pi1.local``), and those in
    ``api_url`` and ``origins``. A request for another name is answered with 421: a page of somebody
    else would be taken for ours (DNS rebinding). ``*``: all names."""

    max_connections: Positive = 10_000
    """Lanterns connected at once; one more waits for a place. The unit raises its limit of open
    files for them as far as it may, and says so when that is less."""

    max_per_address: Annotated[int, Meta(ge=0)] = 2_500
    """Connections of one address beyond which it gives way to others when all are taken: a quarter.
    0: never. Loopback and `[runtime] trusted_proxies` have no such bound."""

    max_api_connections: Positive = 128
    """Connections to the API at once. With one more, the one is closed that has been without a
    whole request for longest; 503 if all have one. A call takes milliseconds, so hundreds at once
    are open for nothing, and each takes some 60 KB of the 40 MiB of a container."""

    request_s: Seconds = 30.0
    """The API closes a connection that has sent no request, or not the whole body of one, for so
    long: a slow line takes seconds for the 64 KiB that a body may have."""

    max_browsers: Positive = 1000
    """Browsers connected at once; one more is answered with 503. Those on their way in do not count
    here: see `patchbay.websocket.Limits`."""

    send_state: bool = True
    """A lantern that connects, for the first time or again, gets the present state at once."""

    send_pause_s: Annotated[float, Meta(ge=0, le=10)] = 0.1
    """Between two commands of the present state: there are lanterns that take one command from each
    read and lose the rest. A tenth of a second is many turns of such a program's event loop."""

    backlog_bytes: Positive = 65_536
    """A lantern that has missed so much because it does not read is disconnected. What it missed
    is not kept: when it reads again it gets the present state."""

    send_buffer_bytes: Positive = 65_536
    """What the kernel may hold for one lantern before that counts as not reading: some 200 commands
    that are under way (measured), and no more than that of memory for each that is deaf."""

    max_said_bytes: Positive = 65_536
    """A lantern that says more within a second is disconnected: nothing that it says is read."""

    dead_after_s: Annotated[int, Meta(ge=6, le=3600)] = 45
    """A lantern that has vanished without a word (power, cable) is found within so long."""

    answer_s: Seconds = 2.0
    """The API answers 503 after so long without a question of the domain, and 504 without an answer
    to what it has confirmed. The domain refuses a command that has waited for so long."""

    state_interval_s: Annotated[float, Meta(ge=0)] = 0.05
    """The number of connected lanterns is published at most this often: thousands come at once."""

    history: Annotated[int, Meta(ge=0, le=1000)] = 100
    """Commands that the state's document remembers, some 100 bytes each; it is written whole."""

    share_group: None = None
    """Not for this service: commands are applied in one order. Any value is refused."""

    demo_lanterns: Annotated[int, Meta(ge=0, le=10_000)] = 3
    """Simulated lanterns in `up --demo`."""
