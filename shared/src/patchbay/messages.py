"""The envelope and the small messages that every service shares.

Events are CloudEvents 1.0 in structured JSON; durable ones carry the extensions ``sequence`` and
``epoch``. The envelope stands in the payload, not in MQTT user properties: measured, properties
cost a Python receiver twice the CPU. A payload without an envelope, as a person publishes it, is
understood by whoever reads it (see `patchbay.bus`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from patchbay.clock import CLOCK, RELEASE
from patchbay.errors import Rejected
from patchbay.validation import explain_payload

T = TypeVar("T")

JSON: Final = "application/json"
EVENT_JSON: Final = "application/cloudevents+json"
EVENT_MSGPACK: Final = "application/cloudevents+msgpack"

MAX_INT: Final = 2**53
"""The largest number that is taken from a peer: every JSON reader and BSON hold it exactly, and
what is added to it later still fits into 64 bits."""

MAX_LEVEL: Final = 256
"""Characters of a source or an epoch. Instance ids have some thirty, epochs 32."""

MAX_ID: Final = 512
"""Characters of an event's id, which becomes part of a document's key. Ours have at most 200."""

MAX_SUBJECT: Final = 1_024
"""Characters of a subject: the device's own id. A client's name has up to 256, a board's id 128."""

MAX_TYPE: Final = 256
MAX_TIME: Final = 64

MAX_RANGES: Final = 2_048
"""Ranges of one acknowledgement: a round has some 1,000 events, so at most half as many."""

UnixTime = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds. No clock is three thousand years ahead, and any later time overflows a `datetime`."""

Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
"""A number that a peer counts with: a sequence, a revision, so many."""

LetterText = Annotated[str, Meta(max_length=65_535)]
"""A text in a dead letter: as long as a topic may be."""

_UNSAFE = "\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufdd0-\\ufdef\\ufffe\\uffff"
_TEXT = re.compile(f"[^{_UNSAFE}]*")
_LEVEL = re.compile(f"(?![$])[^+#/{_UNSAFE}]+")
"""One MQTT topic level and one document key (MQTT 5, 1.5.4 and 4.7.1; MongoDB keys with ``$``)."""


class Event(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="specversion", tag="1.0"
):
    """A CloudEvent. ``data`` stays undecoded until somebody knows its type.

    ``source`` is the instance id of the unit that made it, ``type`` ``patchbay.<service>.<name>``,
    ``subject`` the device's original id, ``time`` the capture at the edge (RFC 3339, UTC).
    ``sequence`` rises by one for each durable event of (``source``, ``epoch``). ``confirm``, in a
    command: whoever sent it answers a `Question`.
    """

    id: str
    source: str
    type: str
    subject: str = ""
    time: str
    sequence: int = 0
    epoch: str = ""
    confirm: bool = False
    data: Raw = Raw(b"null")


class Faulty(Event, frozen=True, kw_only=True):
    """In the place of an event that is invalid: it can only become a dead letter.

    ``fault`` is why, ``original`` its bytes, ``topic`` where it came. With a ``sequence`` it counts
    as handled, so that its source goes on with the next one; without one nobody waits for it.
    """

    fault: str
    original: bytes
    topic: str


class Ack(Struct, frozen=True):
    """How far a domain service has persisted one edge's events.

    Everything of ``epoch`` up to and including ``upto`` is in the store. ``nak`` asks the edge to
    start again at ``upto + 1``; with ``over`` nothing more of that epoch is accepted, and the edge
    has to begin a new one for what it has left.
    """

    epoch: str
    upto: Count
    nak: bool = False
    time: UnixTime = 0.0
    """The domain service's Unix time in seconds when it sent this; 0: not said."""
    over: bool = False


class AckRanges(Struct, frozen=True):
    """Which of one edge's events a domain service that takes them in any order has persisted.

    Both ends of each range of ``ranges`` are meant too.
    """

    epoch: str
    ranges: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_RANGES)]
    time: UnixTime = 0.0
    """As in `Ack`."""


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could not be handled, with the reason and the original's first bytes as hex.

    Each is stored, and anybody can publish one: so its texts have bounds, far above what we write.
    """

    id: Annotated[str, Meta(max_length=MAX_ID)]
    reason: LetterText
    time: Annotated[str, Meta(max_length=MAX_TIME)]
    source: Annotated[str, Meta(max_length=MAX_LEVEL)]
    topic: LetterText = ""
    peer: LetterText = ""
    size: Count
    hex: LetterText
    text: LetterText = ""


class Failure(Struct, frozen=True):
    """Why a request was refused: a stable code and a sentence."""

    code: str
    message: str


class Question(Struct, frozen=True):
    """On a reply topic: may the request with this correlation data be carried out now?

    The response topic says where a `Confirm` goes.
    """

    nonce: Annotated[str, Meta(max_length=MAX_LEVEL)]


class Confirm(Struct, frozen=True):
    """On ``confirm/<instance>``: the answer to the `Question` with this nonce."""

    nonce: str
    confirmed: bool


class Cancel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cmd/cancel`` -> ``{"outcome", "seen"}``: a request must not act any more.

    ``id`` and ``source`` as in its envelope; without a source, of any. ``outcome`` is
    ``cancelled``: it will not act, or ``too_late``: it has acted, or may do so. ``seen``: it was
    received, and is remembered. Else it is refused when it comes.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_LEVEL)]
    source: Annotated[str, Meta(max_length=MAX_LEVEL)] = ""


class ForgetUnit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On ``forget/<service>`` -> ``{"removed"}``: the unit with this instance id is gone for good.

    ``removed``: was anything stored of it?
    """

    unit: Annotated[str, Meta(min_length=1, max_length=MAX_LEVEL)]


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
    state: str = "ok"
    """``ok``, ``waiting`` or ``stuck``; see `patchbay.progress`."""
    cause: str = ""
    """What it waits for (store, broker, domain, disk), or the work that does not get on."""
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


def _in_json(value: object) -> Any:
    """What JSON has no type for: documents that others have written hold anything."""
    return int(value) if isinstance(value, int) else str(value)


_encode = msgspec.json.Encoder(enc_hook=_in_json)

now = CLOCK.now
"""The time now, in UTC, to the millisecond. No step of the machine's clock moves it."""


def encode(value: Any) -> bytes:
    """Any message as JSON, UTF-8."""
    return _encode.encode(value)


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    """What somebody else sent. Raises `msgspec.DecodeError` or its subclass `ValidationError`,
    whose text is in words (`patchbay.validation`).

    msgspec itself lets other errors out for text that is no UTF-8 and for a nesting too deep.
    """
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        packed = isinstance(decoder, msgspec.msgpack.Decoder)
        codec: Any = msgspec.msgpack if packed else msgspec.json
        words = explain_payload(error, decoder.type, payload, codec)
        invalid = isinstance(error, msgspec.ValidationError)
        raise (msgspec.ValidationError if invalid else msgspec.DecodeError)(words) from None


def decode_events(payload: bytes) -> list[Event]:
    """The events of a payload in JSON: one CloudEvent, or a CloudEvents batch (an array).

    `patchbay.forms` knows the other form.

    Raises `msgspec.DecodeError` or `msgspec.ValidationError` (its subclass) for anything else.
    """
    if payload[:1] == b"[":
        return decode(_events, payload)
    return [decode(_event, payload)]


def is_level(text: str) -> bool:
    """Can this name stand in a topic and as a document's key?"""
    return len(text) <= MAX_LEVEL and _LEVEL.fullmatch(text) is not None


def fault_of(event: Event) -> str:
    """What is wrong with an event's envelope; empty if nothing is.

    A durable event's source names a topic, where it is acknowledged, and a document.
    """
    if not 0 < len(event.id) <= MAX_ID or not _is_text(event.id):
        return f"id must be 1 to {MAX_ID} characters, none of them a control character"
    if len(event.type) > MAX_TYPE or not _is_text(event.type):
        return f"type must be at most {MAX_TYPE} characters, none of them a control character"
    if len(event.subject) > MAX_SUBJECT:
        return f"subject must be at most {MAX_SUBJECT} characters"
    if len(event.time) > MAX_TIME:
        return f"time must be at most {MAX_TIME} characters"
    if event.sequence:
        return _fault_of_place(event.source, event.epoch, event.sequence)
    if len(event.source) > MAX_LEVEL or not _is_text(event.source):
        return f"source must be at most {MAX_LEVEL} characters, none of them a control character"
    return ""


def _is_text(text: str) -> bool:
    return text.isprintable() or _TEXT.fullmatch(text) is not None


def _fault_of_place(source: str, epoch: str, sequence: int) -> str:
    """What is wrong with the place of a durable event in its source; empty if nothing is."""
    if not 0 < sequence <= MAX_INT:
        return f"sequence must be 0 to {MAX_INT}"
    if len(source) > MAX_LEVEL or len(epoch) > MAX_LEVEL:
        return f"source and epoch must be at most {MAX_LEVEL} characters"
    return _fault_of_levels(source, epoch)


@lru_cache(maxsize=256)
def _fault_of_levels(source: str, epoch: str) -> str:
    """Cached, since all events of a source say the same."""
    if not is_level(source):
        return f"source must be a topic level of 1 to {MAX_LEVEL} characters"
    if not is_level(epoch):
        return f"epoch must be 1 to {MAX_LEVEL} characters that a topic level can have"
    return ""


def faulty(
    fault: str,
    original: bytes,
    *,
    source: str = "",
    epoch: str = "",
    sequence: int = 0,
    subject: str = "",
    topic: str = "",
) -> Faulty:
    """What takes the place of an invalid event, with its place in its source if that is valid."""
    if _fault_of_place(source, epoch, sequence):
        source, epoch, sequence = "", "", 0
    return Faulty(
        id=new_id(),
        source=source,
        type="invalid",
        subject=subject[:MAX_SUBJECT],
        time=rfc3339(now()),
        sequence=sequence,
        epoch=epoch,
        fault=f"invalid event: {fault}",
        original=original,
        topic=topic,
    )


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


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with milliseconds: ``2026-01-02T03:04:05.678Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The moment that an RFC 3339 text names. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def capture_time(text: str, now: datetime) -> datetime:
    """When an event was captured (RFC 3339), as it is stored: never later than ``now``, and not
    before this program existed (an edge that has no clock yet). Raises ValueError."""
    at = parse_time(text)
    return at if RELEASE <= at <= now else now


def batch(bodies: Sequence[bytes]) -> bytes:
    """Events that are already encoded, as one CloudEvents batch."""
    return b"[" + b",".join(bodies) + b"]"
