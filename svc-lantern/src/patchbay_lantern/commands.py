"""What lanterns can be told: the one table that wire, API, page, bus and lantern all use.

    ON           0x12    nothing      the lantern is lit
    OFF          0x13    nothing      it is dark
    COLOR        0x20    RR GG BB     it has this colour, whether it is lit or not

Source: the seed and the assignment behind it (the type codes; "Реализация фонаря позволяет легко
добавлять любые новые команды"). A new command is one entry of `KINDS`:

    Kind("BRIGHTNESS", 0x21, Byte(), sets="brightness", label="Brightness")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from patchbay.errors import Rejected
from patchbay_lantern.messages import Order

POWER: Final = "power"
"""What ON and OFF set. It comes last in the state. A lantern that connects gets ON first, since
there are lanterns that ignore a colour while they are off, and OFF last, since there are others
that a colour turns on."""

COLOR: Final = "color"

_SIX_DIGITS = re.compile(r"#?[0-9a-fA-F]{6}")


class Value(Protocol):
    """What kind of value a command takes."""

    @property
    def form(self) -> str:
        """How a page asks for it: the type of an HTML input, or empty for none."""

    def normal(self, given: object) -> str | None:
        """The normal form of a value as somebody gave it. Raises ValueError with the reason."""

    def pack(self, value: str | None) -> bytes:
        """The bytes of a value in normal form."""

    def unpack(self, data: bytes) -> str | None:
        """The value of these bytes. Bytes beyond it are a later version's, and are ignored. Raises
        ValueError if there are too few."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No value: absent, null or empty."""

    form: str = ""

    def normal(self, given: object) -> str | None:
        if given is not None and given != "":
            raise ValueError("it takes no value")
        return None

    def pack(self, value: str | None) -> bytes:
        return b""

    def unpack(self, data: bytes) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Color:
    """Six hexadecimal digits, RRGGBB, also with ``#`` before them and in upper case."""

    form: str = "color"

    def normal(self, given: object) -> str | None:
        if not isinstance(given, str) or not _SIX_DIGITS.fullmatch(given):
            raise ValueError("it takes six hexadecimal digits, such as ff0000")
        return given.removeprefix("#").lower()

    def pack(self, value: str | None) -> bytes:
        return bytes.fromhex(value or "")

    def unpack(self, data: bytes) -> str | None:
        if len(data) < 3:
            raise ValueError("a colour has three bytes")
        return data[:3].hex()


@dataclass(frozen=True, slots=True)
class Byte:
    """A number from 0 to 255."""

    form: str = "range"

    def normal(self, given: object) -> str | None:
        text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > 255:
            raise ValueError("it takes a number from 0 to 255")
        return str(int(text))

    def pack(self, value: str | None) -> bytes:
        return bytes([int(value or "0")])

    def unpack(self, data: bytes) -> str | None:
        if not data:
            raise ValueError("a number has one byte")
        return str(data[0])


@dataclass(frozen=True, slots=True)
class Kind:
    """One command: its name, its type on the wire, what value it takes.

    ``sets``: what of a lantern it sets. The last command of each of these is how the lantern
    shines. ``label``: what a page calls it.
    """

    name: str
    type: int
    value: Value
    sets: str
    label: str


@dataclass(frozen=True, slots=True)
class Light:
    """How a lantern shines: the last order of each thing that orders set."""

    orders: Mapping[str, Order] = field(default_factory=dict)

    @property
    def on(self) -> bool | None:
        """Is it lit? None: nobody has said so yet."""
        order = self.orders.get(POWER)
        return None if order is None else order.command == "ON"

    @property
    def color(self) -> str | None:
        """Its colour, RRGGBB. None: nobody has said so yet."""
        order = self.orders.get(COLOR)
        return None if order is None else order.value


class Registry:
    """The commands that there are."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._by_type = {kind.type: kind for kind in self._kinds.values()}

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def order(self, command: object, value: object) -> Order:
        """What somebody wants, in normal form. Raises Rejected: unknown_command, bad_value."""
        kind = self._kinds.get(command) if isinstance(command, str) else None
        if kind is None:
            raise Rejected("unknown_command", f"the commands are {', '.join(self._kinds)}")
        try:
            return Order(kind.name, kind.value.normal(value))
        except ValueError as error:
            raise Rejected("bad_value", f"{kind.name}: {error}") from error

    def pack(self, order: Order) -> tuple[int, bytes]:
        """An order as type and value of the wire. Raises KeyError for a command not known."""
        kind = self._kinds[order.command]
        return kind.type, kind.value.pack(order.value)

    def unpack(self, type: int, data: bytes) -> Order | None:
        """The order of a type and value of the wire.

        None for a type not known and for a value too short to mean something: a lantern ignores
        both in silence.
        """
        kind = self._by_type.get(type)
        if kind is None:
            return None
        try:
            return Order(kind.name, kind.value.unpack(data))
        except ValueError:
            return None

    def obey(self, light: Light, order: Order) -> Light:
        """How a lantern shines after this order. Raises KeyError for a command not known."""
        return Light({**light.orders, self._kinds[order.command].sets: order})

    def present(self, light: Light) -> list[Order]:
        """The commands that make this state: ON or OFF comes last.

        A command that has been taken out of the table since is left out.
        """
        known = [kind.sets for kind in self._kinds.values() if kind.sets != POWER]
        orders = (light.orders.get(what) for what in [*dict.fromkeys(known), POWER])
        return [one for one in orders if one is not None and one.command in self._kinds]

    def for_a_lantern(self, light: Light) -> list[Order]:
        """`present`, in the order in which a lantern that knows nothing is told: ON first, or OFF
        last."""
        power = light.orders.get(POWER)
        orders = self.present(light)
        if power in orders and light.on:
            orders.remove(power)
            orders.insert(0, power)
        return orders


KINDS: Final = (
    Kind("ON", 0x12, Nothing(), sets=POWER, label="On"),
    Kind("OFF", 0x13, Nothing(), sets=POWER, label="Off"),
    Kind("COLOR", 0x20, Color(), sets=COLOR, label="Colour"),
)

COMMANDS: Final = Registry(KINDS)
