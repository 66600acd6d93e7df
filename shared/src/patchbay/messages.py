"""The envelope and the small messages that every service shares.

Events are CloudEvents 1.0 in structured JSON; durable ones carry the extensions ``sequence`` and
``epoch``. The envelope stands in the payload, not in MQTT user properties: measured, properties
cost a Python receiver twice the CPU. A payload without an envelope, as a person publishes it, is
understood by whoever reads it (see `patchbay.bus`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from patchbay.errors import Rejected

T = TypeVar("T")

JSON: Final = "application/json"
EVENT_JSON: Final = "application/cloudevents+json"
EVENT_MSGPACK: Final = "application/cloudevents+msgpack"


MAX_SEQUENCE: Final = 2**53
"""Sequence numbers stay exact in any JSON reader below this; no edge ever counts so far."""

MAX_EPOCH: Final = 64
"""Characters of an epoch's name: ours have 32."""

ACK_RANGES: Final = 1000
"""Ranges in one acknowledgement: a domain acknowledges a round of so many events at most."""

Number = Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]
EpochName = Annotated[str, Meta(max_length=MAX_EPOCH)]


class Event(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="specversion", tag="1.0"
):
    """A CloudEvent. ``data`` stays undecoded until somebody knows its type.

    ``source`` is the instance id of the unit that made it, ``type`` ``patchbay.<service>.<name>``,
    ``subject`` the device's original id, ``time`` the capture at the edge (RFC 3339, UTC).
    ``sequence`` rises by one for each durable event of (``source``, ``epoch``).
    """

    id: str
    source: str
    type: str
    subject: str = ""
    time: str
    sequence: int = 0
    epoch: str = ""
    data: Raw = Raw(b"null")


class Ack(Struct, frozen=True):
    """How far a domain service has persisted one edge's events.

    Everything of ``epoch`` up to and including ``upto`` is in the store. ``nak`` asks the edge to
    start again at ``upto + 1``; with ``over`` nothing more of that epoch is accepted, and the edge
    has to begin a new one for what it has left.
    """

    epoch: EpochName
    upto: Number
    nak: bool = False
    over: bool = False


class AckRanges(Struct, frozen=True):
    """Which of one edge's events a domain service that takes them in any order has persisted.

    Both ends of each range of ``ranges`` are meant too.
    """

    epoch: EpochName
    ranges: Annotated[list[tuple[Number, Number]], Meta(max_length=ACK_RANGES)]


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could not be handled, with the reason and the original's first bytes as hex."""

    id: str
    reason: str
    time: str
    source: str
    topic: str = ""
    peer: str = ""
    size: int
    hex: str
    text: str = ""


class Failure(Struct, frozen=True):
    """Why a request was refused: a stable code and a sentence."""

    code: str
    message: str


class UnitInfo(Struct, frozen=True, kw_only=True):
    """What a unit says of itself on ``patchbay/status/<instance>/info``."""

    unit: str
    version: str
    pid: int
    since: str
    backlog: int = 0
    connections: int = 0
    reconnects: int = 0
    dead_letters: int = 0
    epoch: str = ""
    """The epoch of the durable events that it sends now; empty for a unit that sends none."""
    detail: dict[str, Any] = {}


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as ranges, first and last: ``{3, 4, 5, 9}`` is ``[(3, 5), (9, 9)]``."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


_event = msgspec.json.Decoder(Event)
_events = msgspec.json.Decoder(list[Event])
_encode = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Any message as JSON, UTF-8."""
    return _encode.encode(value)


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    """What somebody else sent. Raises `msgspec.DecodeError` or its subclass `ValidationError`.

    msgspec itself lets other errors out for text that is no UTF-8 and for a nesting too deep.
    """
    try:
        return decoder.decode(payload)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def decode_events(payload: bytes) -> list[Event]:
    """The events of a payload in JSON: one CloudEvent, or a CloudEvents batch (an array).

    `patchbay.forms` knows the other form.

    Raises `msgspec.DecodeError` or `msgspec.ValidationError` (its subclass) for anything else.
    """
    if payload[:1] == b"[":
        return decode(_events, payload)
    return [decode(_event, payload)]


def event_type(service: str, name: str) -> str:
    """The CloudEvents type of a service's event."""
    return f"patchbay.{service}.{name}"


def new_event(
    *,
    id: str,
    source: str,
    type: str,
    data: Any,
    subject: str = "",
    time: str = "",
    sequence: int = 0,
    epoch: str = "",
) -> bytes:
    """A CloudEvent, encoded. ``time`` is RFC 3339; without one it is now."""
    return encode(
        Event(
            id=id,
            source=source,
            type=type,
            subject=subject,
            time=time or rfc3339(now()),
            sequence=sequence,
            epoch=epoch,
            data=Raw(encode(data)),
        )
    )


def answer(fields: dict[str, Any] | None = None) -> bytes:
    """A positive answer: ``{"ok": true, ...}``."""
    return encode({"ok": True, **(fields or {})})


def refusal(error: Rejected) -> bytes:
    """A negative answer: ``{"ok": false, "error": {"code": ..., "message": ...}}``."""
    return encode({"ok": False, "error": {"code": error.code, "message": error.message}})


def new_id() -> str:
    """A fresh, unique message id."""
    return uuid.uuid4().hex


def now() -> datetime:
    """The time now, in UTC, to the millisecond: what RFC 3339 texts and BSON keep of it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with milliseconds: ``2026-01-02T03:04:05.678Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The moment that an RFC 3339 text names. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def batch(bodies: Sequence[bytes]) -> bytes:
    """Events that are already encoded, as one CloudEvents batch."""
    return b"[" + b",".join(bodies) + b"]"
