"""The typed messages that the locker service puts on the bus.

Edge to domain: `Report`. Domain to edge: `Desired`. Domain to everybody: `State` and the events
below it. To the domain: the commands. All are JSON objects; cells are numbers from 1, counted
rightwards, then down (seed: "нумерация идёт вправо затем вниз").
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from patchbay.errors import Rejected as Rejected

SERVICE: Final = "locker"
REPORT: Final = "report"
MAX_MINUTES: Final = 525_600
"""The longest rental: a year."""

MIN_MINUTES: Final = 1

MAX_ID: Final = 128
"""Characters of a board's id: it becomes part of topics and of database keys."""

ALL: Final = "all"
"""Stands for all boards in topics, so no board may have this id."""

MAX_HOLDER: Final = 256
"""Characters of a holder: 64 rentals of them fit into one MQTT packet many times over."""

MAX_INTEGER: Final = 2**53
"""What every JSON reader can represent exactly."""

MAX_CELLS: Final = 4_096
"""Cells, and other entries of one list of a report: the highest cell number that is taken."""

Number = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Cells = Annotated[list[Annotated[int, Meta(ge=0, le=65_535)]], Meta(max_length=MAX_CELLS)]
Texts = Annotated[list[Annotated[str, Meta(max_length=MAX_CELLS)]], Meta(max_length=MAX_CELLS)]
BoardId = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=r"(?i)^(?!all$)")]


class Report(Struct, frozen=True, kw_only=True):
    """``event/report`` (durable): one report of a board, normalized.

    ``boot`` names the board's run between two reboots: the Unix time in seconds at which the edge
    saw it begin. (``boot``, ``send``) rises. ``rebooted``: this report is the first after a
    reboot. ``late``: a lower SEND that is no reboot; it changes no state. ``maybe_repeat``: the
    same accesses as the report before, whose answer may not have reached the board.
    """

    board: BoardId
    boot: Number
    send: Annotated[int, Meta(ge=0, lt=10**18)]
    rebooted: bool = False
    late: bool = False
    maybe_repeat: bool = False
    told_reset: bool | None = None
    """Of a report with ``rebooted`` and without ``reset``: the board came back from the reboot
    that it was told. None: an older edge, which did not say."""
    peers: Annotated[list[Annotated[str, Meta(max_length=MAX_ID)]], Meta(max_length=2)] = []
    """Two boards report under this id now: where they connect from."""
    connection: Number = 0
    """1 Wi-Fi, 2 GSM, 0 not said."""
    wifi_state: Number = 0
    gsm_state: Number = 0
    """0 fine, 1 hardware fault, 2 no access point (Wi-Fi), 3 no internet."""
    reset: bool = False
    state: Annotated[list[Number], Meta(max_length=MAX_CELLS)] = []
    """0 normal, 1 short circuit, 2 wrong code three times in a row, 3 blocked by the server."""
    cols: Annotated[int, Meta(ge=0, le=64)] = 0
    rows: Annotated[int, Meta(ge=0, le=64)] = 0
    act_con: Texts = []
    """Groups of digits as sent: "1" a lock is connected. See `rules.has_lock`."""
    box_eng: Cells = []
    """Cells that, says the board, have a code whose time has not run out."""
    box_to: Cells = []
    """Cells whose time, says the board, has run out."""
    box_acc: Cells = []
    """Cells that were accessed since its last report."""
    rev: Number = 0
    """Revision of the desired state that the edge holds for the board; 0: of none."""
    extra: dict[str, str] = {}
    """Keys that ACon_V1.0 does not name, as sent."""


class DesiredRental(Struct, frozen=True):
    """A code that a board is to know: ``expires_at`` is RFC 3339 UTC."""

    cell: int
    code: Annotated[str, Meta(max_length=MAX_HOLDER)]
    expires_at: Annotated[str, Meta(max_length=MAX_HOLDER)]


class Desired(Struct, frozen=True, kw_only=True):
    """``desired`` (retained): all that a board is to know. ``rev`` rises; a lower one is ignored.

    ``reset_id``: reboot once for this number, or null. Carries codes: for the locker's own units
    and operators only.
    """

    rev: Number
    board: Annotated[str, Meta(max_length=MAX_ID)]
    reset_id: Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | None = None
    blocked: bool = False
    rentals: Annotated[list[DesiredRental], Meta(max_length=MAX_CELLS)] = []


class StateRental(Struct, frozen=True):
    """A rental as everybody may see it: no code."""

    rental: str
    cell: int
    expires_at: str
    holder: str | None = None


class State(Struct, frozen=True, kw_only=True):
    """``state`` (retained): what is known of a board."""

    board: str
    online: bool
    last_seen: str
    boot: int
    send: int
    reports: int
    """Reports taken in since the board was first seen."""
    accesses: int
    """Accesses (cells in BOX_ACC) taken in since the board was first seen."""
    connection: int
    wifi_state: int
    gsm_state: int
    state: list[int]
    cols: int
    rows: int
    free: list[int]
    """Cells that have a lock and no rental."""
    busy: list[int]
    """Cells that have a rental."""
    blocked: bool
    rentals: list[StateRental]
    box_eng: list[int]
    box_to: list[int]
    alarms: list[str]
    """Alarms that stand now."""


# Events for everybody, published by the domain after they are persisted.


class Rebooted(Struct, frozen=True):
    """``event/rebooted``: the board has restarted; ``reset_id`` if that was ours to order."""

    board: str
    boot: int
    send: int
    reset_id: int | None


class Opened(Struct, frozen=True):
    """``event/opened``: a cell was accessed. At least once: see ``maybe_repeat`` of `Report`."""

    board: str
    cell: int
    rental: str | None
    boot: int
    send: int
    maybe_repeat: bool


class Expired(Struct, frozen=True):
    """``event/expired``: a rental's time has run out."""

    board: str
    rental: str
    cell: int


class Alarm(Struct, frozen=True):
    """``event/alarm``: something that a person should look at, once until it is over.

    ``alarm`` is one of short_circuit, wrong_code, unknown_state, wifi_fault, gsm_fault,
    matrix_mismatch, codes_differ, two_boards; of all boards, clock_unsure.
    """

    board: str
    alarm: str
    message: str


class Online(Struct, frozen=True):
    """``event/online``: the board reports (again)."""

    board: str


class Offline(Struct, frozen=True):
    """``event/offline``: no report for too long."""

    board: str
    last_seen: str


# Commands: ``patchbay/locker/<board>/cmd/<name>``.

Minutes = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Cell = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]


class Assign(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/assign`` -> ``{"rental", "cell", "code", "expires_at"}``."""

    cell: Cell | Literal["auto"]
    minutes: Minutes
    code: Annotated[str, Meta(max_length=MAX_HOLDER)] | None = None
    holder: Annotated[str, Meta(max_length=MAX_HOLDER)] | None = None


class Revoke(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/revoke`` -> ``{"rental", "cell"}``: end the rental of a cell now."""

    cell: Cell


class Extend(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/extend`` -> ``{"rental", "cell", "expires_at"}``: minutes are added to what is left."""

    cell: Cell
    minutes: Minutes


class Block(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/block`` -> ``{"blocked": true}``: STATE=3 in every answer until unblock."""


class Unblock(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/unblock`` -> ``{"blocked": false}``."""


class Reset(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/reset`` -> ``{"reset_id"}``: reboot the board once. It moves something: never late."""


class Forget(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/forget`` -> ``{"board", "documents", "removed"}``: the board is gone; remove what is
    known of it. ``removed`` counts the documents of each collection.

    ``documents``: its ended rentals and its accesses are kept, or removed as well. ``force``: also
    if it has active rentals, which are revoked. A board that reports again is a new one.
    """

    documents: Literal["keep", "remove"] = "keep"
    force: bool = False


class Ask(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/state | boards | rentals | accesses``: a question; on ``all``, of all boards.

    ``active``: rentals that have not ended only. ``limit`` and ``skip`` page, newest first.
    """

    active: bool = False
    limit: Annotated[int, Meta(ge=1, le=200)] = 100
    """At most 200: so many boards with 64 cells each fit into one MQTT packet of 256 KiB."""
    skip: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """More than any store has of these."""
