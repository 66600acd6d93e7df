"""How events are encoded: JSON, or MessagePack for binary data at high rates.

    Form            content type of one     content type of a batch
    JSON_FORM       none: JSON is what a payload is without one
    MSGPACK_FORM    application/cloudevents+msgpack, application/cloudevents-batch+msgpack

Both are the same envelope (`patchbay.messages.Event`). Bytes are bytes in MessagePack and base64 in
JSON. Who reads tells them by the content type, and an event's data by its first byte: that of a
JSON object begins no MessagePack map.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw

from patchbay import messages
from patchbay.messages import (
    EVENT_MSGPACK,
    Event,
    Faulty,
    batch,
    decode,
    encode,
    fault_of,
    faulty,
)

T = TypeVar("T")

BATCH_MSGPACK: Final = "application/cloudevents-batch+msgpack"

_FIXARRAY_MAX = 15
_ARRAY16_MAX = 0xFFFF


def msgpack_batch(bodies: Sequence[bytes]) -> bytes:
    """Events that are already encoded, as one MessagePack array."""
    count = len(bodies)
    if count <= _FIXARRAY_MAX:
        head = bytes([0x90 | count])
    elif count <= _ARRAY16_MAX:
        head = struct.pack(">BH", 0xDC, count)
    else:
        head = struct.pack(">BI", 0xDD, count)
    return head + b"".join(bodies)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to encode events and what they carry."""

    encode: Callable[[Any], bytes]
    batch: Callable[[Sequence[bytes]], bytes]
    event_type: str
    """The content type of one event; empty for JSON, which needs none."""
    batch_type: str
    null: bytes
    """No data."""


JSON_FORM: Final = Form(encode, batch, "", "", b"null")
MSGPACK_FORM: Final = Form(
    msgspec.msgpack.Encoder().encode, msgpack_batch, EVENT_MSGPACK, BATCH_MSGPACK, b"\xc0"
)

_msgpack_event = msgspec.msgpack.Decoder(Event)
_msgpack_events = msgspec.msgpack.Decoder(list[Event])


class _Place(msgspec.Struct):
    """Where an event that cannot be decoded belongs, undecoded."""

    source: Raw = Raw()
    epoch: Raw = Raw()
    sequence: Raw = Raw()
    subject: Raw = Raw()


_PLACE: Final = {"source": str, "epoch": str, "sequence": int, "subject": str}


def decode_events(payload: bytes, content_type: str = "", topic: str = "") -> list[Event]:
    """The events of a payload: one CloudEvent, or a batch of them (an array).

    In the place of each that is invalid stands a `Faulty`; the others are not held up by it.

    Raises `msgspec.DecodeError` or `msgspec.ValidationError` (its subclass) for anything else.
    """
    kind: Any = msgspec.msgpack if "msgpack" in content_type else msgspec.json
    try:
        events = messages.decode_events(payload) if kind is msgspec.json else _from_msgpack(payload)
    except msgspec.DecodeError:
        events = _one_by_one(payload, kind, topic)
    if any(map(fault_of, events)):
        events = [_checked(event, topic) for event in events]
    return events


def _from_msgpack(payload: bytes) -> list[Event]:
    if not payload:
        raise msgspec.DecodeError("an empty payload")
    if _is_array(payload, msgspec.msgpack):
        return decode(_msgpack_events, payload)
    return [decode(_msgpack_event, payload)]


def _is_array(payload: bytes, kind: Any) -> bool:
    first = payload[:1]
    if kind is msgspec.json:
        return first == b"["
    return b"\x90" <= first <= b"\x9f" or first in (b"\xdc", b"\xdd")


def _one_by_one(payload: bytes, kind: Any, topic: str) -> list[Event]:
    """The events of a payload of which one at least cannot be decoded. Raises
    `msgspec.DecodeError` if there is no event in it at all."""
    parts: list[Raw] = [Raw(payload)]
    if _is_array(payload, kind):
        parts = decode(kind.Decoder(list[Raw]), payload)
    events = [_decoded(bytes(part), kind, topic) for part in parts]
    faults = [one.fault for one in events if isinstance(one, Faulty) and not one.sequence]
    if faults and len(faults) == len(events):
        raise msgspec.DecodeError(faults[0])
    return events


def _decoded(part: bytes, kind: Any, topic: str) -> Event:
    try:
        event: Event = decode(kind.Decoder(Event), part)
    except msgspec.DecodeError as error:
        return faulty(str(error), part, topic=topic, **_place(part, kind))
    return event


def _place(part: bytes, kind: Any) -> dict[str, Any]:
    """What can be read of the place of an event that cannot be decoded."""
    place: dict[str, Any] = {}
    with contextlib.suppress(msgspec.DecodeError):
        said = decode(kind.Decoder(_Place), part)
        for name, type in _PLACE.items():
            with contextlib.suppress(msgspec.DecodeError):
                place[name] = decode(kind.Decoder(type), getattr(said, name))
    return place


def _checked(event: Event, topic: str) -> Event:
    fault = "" if isinstance(event, Faulty) else fault_of(event)
    if not fault:
        return event
    return faulty(
        fault,
        in_json(event),
        source=event.source,
        epoch=event.epoch,
        sequence=event.sequence,
        subject=event.subject,
        topic=topic,
    )


class DataReader(Generic[T]):
    """Reads the data of events whichever their form, as one type."""

    def __init__(self, kind: type[T]) -> None:
        self._json = msgspec.json.Decoder(kind)
        self._msgpack = msgspec.msgpack.Decoder(kind)

    def read(self, event: Event) -> T:
        """What the event carries. Raises `msgspec.DecodeError`."""
        data = bytes(event.data)
        return decode(self._json if is_json(data) else self._msgpack, data)


def is_json(data: bytes) -> bool:
    """Is this an object or null in JSON, and not in MessagePack?"""
    return data[:1] == b"{" or data == b"null"


def carries_nothing(event: Event) -> bool:
    """Does the event stand for one that was too large for the broker, or carry nothing itself?"""
    return bytes(event.data) in (JSON_FORM.null, MSGPACK_FORM.null)


def in_json(event: Event) -> bytes:
    """The event in JSON, whatever its data are: for a dead letter. Never raises.

    Data that JSON cannot express (text that is not UTF-8, an extension type) are base64.
    """
    data = bytes(event.data)
    if not is_json(data):
        try:
            data = encode(msgspec.msgpack.decode(data))
        except Exception:  # whatever they are, somebody must see them
            data = encode(data)
    return encode(msgspec.structs.replace(event, data=Raw(data)))
