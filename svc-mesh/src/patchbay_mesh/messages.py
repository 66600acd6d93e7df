"""The typed messages that the mesh service puts on the bus.

Edge to domain, durable and in MessagePack: `Data`, `Message`, `Network`. Domain to everybody:
`State` and the events. To the root: `Send`, `Raw`. API to monitor: `Log`, `Robots`. To the domain:
the commands. A type has three bytes; here it is a text of the characters with these numbers
(Latin-1), so any three bytes can be said and ``GPS`` is ``"GPS"``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from patchbay.errors import Rejected as Rejected

SERVICE: Final = "mesh"
ROOT: Final = "root"
"""The device that is the root of the mesh."""
NODES: Final = "nodes"
"""The device that stands for all nodes."""
ROBOTS: Final = "robots"
MONITOR: Final = "monitor"

DATA: Final = "data"
MESSAGE: Final = "message"
NETWORK: Final = "network"
JOINED: Final = "joined"
LEFT: Final = "left"
LOG: Final = "log"

RESTARTED: Final = "RST"
"""The type of the message by which a root says that it has restarted."""

NODE_PREFIX: Final = "node-"
MAX_ADDRESS: Final = 0xFFFF

Address = Annotated[int, Meta(ge=0, le=MAX_ADDRESS)]
TypeName = Annotated[str, Meta(min_length=3, max_length=3)]
TypeOfBytes = Annotated[str, Meta(min_length=3, max_length=3, pattern=r"^[\x00-\xff]*$")]
"""A type that three bytes say: what the edge sends, and nothing else, is taken into a cache."""

MAX_VALUE: Final = 255
"""Bytes of a value, and values of a report: each is counted in one byte on each wire."""

MAX_TIME: Final = 64
"""Characters of a time: RFC 3339 has some 30."""

MAX_HEX: Final = 262_144
"""Characters of a text of bytes: the largest packet that the broker takes. Those that are too long
for their command are refused by name."""

MAX_INTEGER: Final = 2**53
"""What JSON carries everywhere, and every store takes."""

Hex = Annotated[str, Meta(max_length=MAX_HEX)]
Time = Annotated[str, Meta(max_length=MAX_TIME)]
Number = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


def node_device(node: int) -> str:
    """The device id of a node: ``node-5``."""
    return f"{NODE_PREFIX}{node}"


def node_address(device: str) -> int | None:
    """The address of the node that is this device; None for another."""
    prefix, _, digits = device.partition("-")
    if prefix != "node" or not digits.isdecimal() or not digits.isascii() or len(digits) > 5:
        return None
    node = int(digits)
    return node if node <= MAX_ADDRESS and str(node) == digits else None


def type_name(raw: bytes) -> str:
    """The text that stands for a type's bytes."""
    return raw.decode("latin-1")


def type_bytes(name: str) -> bytes:
    """The bytes that a text stands for. Raises UnicodeEncodeError for what none can."""
    return name.encode("latin-1")


def from_hex(text: str) -> bytes:
    """The bytes that a text of hex digits stands for. Raises Rejected (bad_hex)."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Rejected("bad_hex", f"{text[:40]!r} is no hex") from error


# From the UART edge


class Value(Struct, frozen=True):
    """One value of a node: its bytes, as they came."""

    type: TypeOfBytes
    data: Annotated[bytes, Meta(max_length=MAX_VALUE)]


class Data(Struct, frozen=True):
    """``event/data`` (durable): a node has reported these values."""

    node: Address
    values: Annotated[list[Value], Meta(max_length=MAX_VALUE)]


class Message(Struct, frozen=True, omit_defaults=True):
    """``event/message`` (durable): a frame that is not for us, as it came.

    ``type`` is shorter than three letters if the frame was that short, or if the firmware has
    opcodes of one byte.
    """

    node: Address
    type: Annotated[str, Meta(max_length=3, pattern=r"^[\x00-\xff]*$")]
    payload: Annotated[bytes, Meta(max_length=MAX_HEX)]
    restarted: bool = False
    """The root has restarted: said by an opcode of one byte."""

    @property
    def means_restart(self) -> bool:
        """Does it say that the root has restarted?"""
        return self.restarted or self.type == RESTARTED


class Member(Struct, frozen=True):
    """A node of the mesh, and its uuid as hex."""

    node: Address
    uuid: Annotated[str, Meta(max_length=64)]


class Network(Struct, frozen=True):
    """``event/network`` (durable): the root says that these nodes are in the mesh."""

    nodes: Annotated[list[Member], Meta(max_length=MAX_VALUE)]


# From the domain


class Latest(Struct, frozen=True):
    """The latest value of a type: its bytes as hex, and when it was captured."""

    hex: Annotated[str, Meta(max_length=2 * MAX_VALUE)]
    time: Time


class Position(Struct, frozen=True):
    """Where a node is, in degrees."""

    latitude: float
    longitude: float


class State(Struct, frozen=True, kw_only=True):
    """``state`` (retained): what is known of a node. ``status`` is active or away."""

    node: Address
    uuid: Annotated[str, Meta(max_length=64)] | None
    status: Annotated[str, Meta(max_length=16)]
    last_contact: Time
    readings: Number
    """Values taken in since the node was first seen."""
    messages: Number
    values: dict[TypeOfBytes, Latest]
    gps: Position | None = None
    read: dict[str, Any] = {}
    """What the values of other types say that have something to read them with, by its field."""


class Joined(Struct, frozen=True):
    """``event/joined``: the node is heard for the first time, or again."""

    node: int


class Left(Struct, frozen=True):
    """``event/left``: the node is away. ``reason`` is silent or root_restarted."""

    node: int
    reason: str
    last_contact: str


# From the API, for the monitor


class Log(Struct, frozen=True):
    """``event/log``: a client wants this to be seen in the monitor."""

    text: Hex


class Robots(Struct, frozen=True):
    """``state`` of the device robots (retained): what a client has said of them last."""

    robots: list[Any]


# To the root


class Send(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/send`` of the device root: a command; for SEND- with node and message, for BCAST with
    a message (``hex`` or ``text``). It moves something: never late."""

    command: Annotated[str, Meta(max_length=MAX_VALUE)]
    node: Address | None = None
    hex: Hex | None = None
    text: Hex | None = None


class Raw(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/raw`` of the device root: these bytes and an end of line, whatever they are. It moves
    something: never late."""

    hex: Hex


# To the domain


class Update(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/update`` of a node: put a value in the place of the latest one of its type."""

    type: TypeName
    hex: Hex


class Show(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/show`` of a node: what is known of it."""


class Forget(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/forget`` of a node: remove its document, clear its retained topics. A node that reports
    again is new.

    With ``remove`` what it has reported goes, too, newest first, for some seconds at a time: while
    the answer has a ``to``, send the command again with it.
    """

    documents: Literal["keep", "remove"] = "keep"
    to: Time | None = None
    """RFC 3339. Remove only what was captured before this."""


class History(Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from"}):
    """``cmd/history`` of the device nodes: the values of a node of one type, newest first.

    ``from`` and ``to`` are RFC 3339; both ends are meant too.
    """

    node: Address
    type: TypeName
    since: Time | None = None
    to: Time | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    """At most 1,000: so many of 255 bytes stay below one MQTT packet of 256 KiB as long as they
    are not all that long."""


class List(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/list`` of the device nodes: what is known of them, by address."""

    active: bool = False
    """Only those that are active."""
    limit: Annotated[int, Meta(ge=1, le=200)] = 100
    skip: Number = 0
