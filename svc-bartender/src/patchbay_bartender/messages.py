"""The typed messages that the bartender service puts on the bus.

Two devices: ``<bar>``, the machine as people know it, whose owner is the scheduler, and
``<bar>-pumps``, its pumps, whose owner is the pumps' edge. To the bar: commands of GUIs, the CLI
and anybody. From it: `State` and events. Between scheduler and pumps: `Run`, `Asked`, `Confirm`,
and what has become of it. All are JSON objects; pumps are "0" to "7" as in the seed; times are
seconds.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from patchbay.errors import Rejected as Rejected

SERVICE: Final = "bartender"

Number = Annotated[int, Meta(ge=-(2**53), le=2**53)] | float
"""A number as it was given: 213 stays 213. JSON's true is none."""

PumpIndex = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""A pump as it is named; whether there is one, the scheduler says."""

Ratios = Annotated[dict[Annotated[str, Meta(max_length=20)], Number], Meta(max_length=64)]
"""Pump -> 0.0 to 1.0. More than the machine has is refused by name."""

Kind = Literal["blend", "refill"]
Result = Literal["done", "stopped", "failed"]
RunId = Annotated[str, Meta(min_length=1, max_length=128)]
By = Annotated[str, Meta(max_length=100)]


CLOSE_S: Final = 0.1
"""Two estimates of one end that differ by less are the same: a message takes milliseconds."""

TOLERANCE_S: Final = 0.02
"""A timer that fires so early does not make a second more of what is left."""


def whole_seconds(remaining_s: float) -> int:
    """Seconds to the end as people are told them: whole, rounded up, never below 0."""
    return max(0, math.ceil(remaining_s - TOLERANCE_S))


def pumps_device(bar: str) -> str:
    """The device id of a bar's pumps."""
    return f"{bar}-pumps"


# To the bar: ``patchbay/bartender/<bar>/cmd/<name>``.


class Blend(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/blend`` -> ``{"run_id", "seconds"}``. ``ratios``: pump -> 0.0 to 1.0."""

    cup_size: Number
    """Litres."""
    ratios: Ratios
    by: By = ""
    """Who wants it, for the history."""


class Refill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/refill`` -> ``{"run_id", "seconds"}``: fill the tube of a container that was empty."""

    pump: PumpIndex
    by: By = ""


class Stop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/stop`` -> ``{"stopped"}``, the run or null: all pumps off, now.

    To the bar and to its pumps alike. ``run_id``: only if this one runs.
    """

    run_id: RunId | None = None
    by: By = ""


class Configure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/configure`` -> ``{"pumps", "sec_per_liter"}``. What is null stays as it is."""

    pump: PumpIndex | None = None
    """Which pump the next three are about."""
    enabled: bool | None = None
    refill_time: Number | None = None
    """Seconds to fill its tube."""
    speed_ratio: Number | None = None
    """Its seconds for a litre beside those of ``sec_per_liter``."""
    sec_per_liter: Number | None = None
    by: By = ""


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/state`` -> ``{"bar"}``; ``cmd/history`` -> ``{"runs"}``, newest first."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    """At most 200: so many fit into one MQTT packet of 256 KiB."""
    skip: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Forget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/forget`` -> ``{"bar", "documents", "removed"}``: another bar is gone; remove what is
    stored and retained of it. ``removed`` counts the documents of each collection.

    ``documents``: the records of its blends are kept, or removed as well. ``force``: also if its
    pumps are online or a run is in progress.
    """

    bar: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,40}$")]
    documents: Literal["keep", "remove"] = "keep"
    force: bool = False


# From the bar.


class Pump(Struct, frozen=True, kw_only=True):
    """A pump as everybody may see it."""

    enabled: bool
    refill_time: Number
    speed_ratio: Number
    millilitres: float
    """Pumped since its last refill."""


class State(Struct, frozen=True, kw_only=True):
    """``state`` (retained) of the bar."""

    bar: str
    state: Literal["idle", "blending", "refilling"]
    run_id: str | None
    remaining: float
    """Seconds to the end when this was published."""
    until: str | None = None
    """When it ends (RFC 3339); None: nothing runs. ``remaining`` is as old as the message."""
    pumps: list[Pump]
    sec_per_liter: Number
    pumps_online: bool
    driver: str
    """Of the pins: ``rpi`` or ``simulated``; empty while the pumps have never been seen."""


class Progress(Struct, frozen=True):
    """``event/progress`` (QoS 0): every second while busy. ``remaining`` is whole seconds."""

    run_id: str
    kind: Kind
    remaining: int
    seconds: float
    """How long the whole run takes."""


class Started(Struct, frozen=True):
    """``event/started``: the pumps run."""

    run_id: str
    kind: Kind
    by: str
    seconds: dict[str, float]
    """Pump -> seconds."""
    request: str = ""
    """The id of the request that it answers, as in its envelope."""


class Finished(Struct, frozen=True):
    """``event/finished``: all went as it was wanted."""

    run_id: str
    kind: Kind
    by: str
    millilitres: dict[str, float]
    """Pump -> what it has pumped."""
    request: str = ""


class Failed(Struct, frozen=True):
    """``event/failed``: it ended early, or never began; ``millilitres`` tells what was pumped.

    ``code`` is one of stopped, refused, pumps_offline, pumps_failed, not_started, cancelled,
    unconfirmed, too_late, unavailable: nothing is poured any more. With pumps_lost nobody knows.
    """

    run_id: str
    kind: Kind
    by: str
    code: str
    reason: str
    millilitres: dict[str, float]
    request: str = ""


class Configured(Struct, frozen=True):
    """``event/configured``: somebody has set something, or asked to hear it again.

    ``what`` is what has changed, by the word that GUIs know it by.
    """

    what: Literal["pumps_states", "config", "sec_per_liter"]
    pumps: list[Pump]
    sec_per_liter: Number


# Between scheduler and pumps: ``patchbay/bartender/<bar>-pumps/...``.


class Run(Struct, frozen=True, kw_only=True):
    """``cmd/run``: switch these pumps on, each for its seconds, if `Confirm` follows.

    ``ordered_at`` is seconds on the scheduler's monotonic clock, and ``clock`` names that clock:
    one run of its process. Pumps of version 0.1.0 compare them; ours count on their own clock.
    """

    run_id: RunId
    ordered_at: float
    clock: str
    seconds: dict[str, float]


class Asked(Struct, frozen=True):
    """``event/asked``: the pumps have an order; may it be begun now?"""

    run_id: str
    nonce: str


class Confirm(Struct, frozen=True):
    """``cmd/confirm``: the order stands. ``clock``, ``now``: see `Run`."""

    run_id: str
    nonce: str
    clock: str
    now: float


class Report(Struct, frozen=True):
    """``cmd/report``: publish your state again, now."""


class PumpsState(Struct, frozen=True, kw_only=True):
    """``state`` (retained) of the pumps, at each start and end of a run, and for a `Report`."""

    edge: str
    """The instance id of the pumps' edge."""
    driver: str
    on: list[int]
    """Pumps that are switched on."""
    run_id: str | None
    """The run that is under way."""
    remaining: float
    """Seconds to its end when this was published."""
    last_run: str | None
    """The last run that it has begun, also if it is over."""


class PumpsStarted(Struct, frozen=True):
    """``event/started`` (durable) of the pumps: taken, and on disk; the pumps go on now."""

    run_id: str
    seconds: dict[str, float]


class PumpsFinished(Struct, frozen=True):
    """``event/finished`` (durable) of the pumps: all pumps of the run are off.

    ``ran``: pump -> seconds that it was on; after a kill, an estimate.
    """

    run_id: str
    result: Result
    reason: str
    ran: dict[str, float]


class PumpsRefused(Struct, frozen=True):
    """``event/refused`` (durable) of the pumps: the run was not begun, and will not be.

    ``code`` is one of bad_order, busy, late, unsure, stopped, failed (the pumps' process
    ended), full.
    """

    run_id: str
    code: str
    reason: str


Answer = dict[str, Any]
