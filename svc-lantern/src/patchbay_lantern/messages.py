"""The typed messages that the lantern service puts on the bus.

TLV edge to all: `EdgeState`. Domain to edges and everybody: `State` and `Commanded`. To the domain:
the commands. All are JSON objects. A colour is six hexadecimal digits in lower case, RRGGBB.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

SERVICE: Final = "lantern"
ALL: Final = "all"
"""The device that stands for all lanterns: every lantern obeys every command."""

SET: Final = "set"
OUTCOME: Final = "outcome"

MAX_TEXT: Final = 64
"""Characters of a command's name and of its value: the longest that there are have seven."""

WholeNumber = Annotated[int, Meta(ge=-(2**53), le=2**53)]
COMMANDED: Final = "commanded"


class Order(Struct, frozen=True):
    """One command with its value in normal form; null for one that takes none."""

    command: str
    value: str | None = None


class Commanded(Struct, frozen=True, kw_only=True):
    """``all/event/commanded``: a command was given, and is persisted.

    ``rev`` rises by one for each within ``epoch``: who has seen it ignores it the second time.
    """

    command: str
    value: str | None
    by: str
    epoch: str
    rev: int


class State(Struct, frozen=True, kw_only=True):
    """``all/state`` (retained): how the lanterns shine.

    ``orders``: what brings a lantern that knows nothing there, in this order; none before the first
    command. ``rev`` and ``epoch`` are those of the last `Commanded`.
    """

    on: bool | None
    """null: nobody has said so yet."""
    color: str | None
    since: str | None
    by: str | None
    epoch: str
    rev: int
    orders: list[Order]


class EdgeState(Struct, frozen=True, kw_only=True):
    """``<edge>/state`` (retained): how many lanterns a TLV edge has. Void while it is offline."""

    edge: str
    """Its instance id."""
    lanterns: int


class Given(Struct, frozen=True, kw_only=True):
    """A command that was given, as `History` shows it."""

    rev: int
    at: str
    command: str
    value: str | None
    by: str


# Commands: ``patchbay/lantern/all/cmd/<name>``.


class Rgb(Struct, frozen=True, forbid_unknown_fields=True):
    """A colour as Home Assistant says it."""

    r: Annotated[int, Meta(ge=0, le=255)]
    g: Annotated[int, Meta(ge=0, le=255)]
    b: Annotated[int, Meta(ge=0, le=255)]


NO_EFFECT: Final = ("brightness", "color_temp", "effect", "flash", "transition", "white")
"""What Home Assistant may say beside ``state`` and ``color``, by its JSON schema of a light."""


class Set(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``cmd/set`` -> ``{"command", "value", "rev", "lanterns"}``: tell all lanterns something.

    Either ``command`` and ``value``, or ``state`` and ``color`` as Home Assistant's JSON light form
    has them: the colour first, then ON or OFF. The rest of that form is taken and does nothing: a
    lantern has no such thing, and would not be lit at all. It moves something: never late.
    """

    command: Annotated[str, Meta(max_length=MAX_TEXT)] | None = None
    value: Annotated[str, Meta(max_length=MAX_TEXT)] | WholeNumber | None = None
    state: Literal["ON", "OFF"] | None = None
    color: Rgb | None = None
    by: Annotated[str, Meta(min_length=1, max_length=64)] = "bus"
    """Who says so, for people."""
    brightness: Any = None
    color_temp: Any = None
    effect: Any = None
    flash: Any = None
    transition: Any = None
    white: Any = None


class Outcome(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/outcome`` -> ``{"outcome", ...}``: what became of a `Set`.

    ``id`` and ``source`` as in its envelope; without a source, of any. ``accepted``: it is stored,
    and the fields of its answer follow. ``not_accepted``: it is not stored and no longer can be, or
    it is older than the last 16 that were accepted.
    """

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    source: Annotated[str, Meta(max_length=256)] = ""


class Ask(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/state`` -> the state and ``lanterns``, how many are connected."""


class History(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/history`` -> ``{"history": [...], "total"}``: the last commands, newest first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
