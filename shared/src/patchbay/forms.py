"""How events are encoded: JSON, or MessagePack for binary data at high rates.

    Form            content type of one     content type of a batch
    JSON_FORM       none: JSON is what a payload is without one
    MSGPACK_FORM    application/cloudevents+msgpack, application/cloudevents-batch+msgpack

Both are the same envelope (`patchbay.messages.Event`). Bytes are bytes in MessagePack and base64 in
JSON. Who reads tells them by the content type, and an event's data by its first byte: that of a
JSON object begins no MessagePack map.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from patchbay import messages
from patchbay.messages import EVENT_MSGPACK, Event, batch, decode, encode

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


def decode_events(payload: bytes, content_type: str = "") -> list[Event]:
    """The events of a payload: one CloudEvent, or a batch of them (an array).

    Raises `msgspec.DecodeError` or `msgspec.ValidationError` (its subclass) for anything else.
    """
    if "msgpack" not in content_type:
        return messages.decode_events(payload)
    if not payload:
        raise msgspec.DecodeError("an empty payload")
    first = payload[0]
    if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
        return decode(_msgpack_events, payload)
    return [decode(_msgpack_event, payload)]


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
    """The event in JSON, whatever form its data has: for a dead letter."""
    data = bytes(event.data)
    if is_json(data):
        return encode(event)
    try:
        value = msgspec.msgpack.decode(data)
    except msgspec.DecodeError:
        value = data
    return encode(msgspec.structs.replace(event, data=msgspec.Raw(encode(value))))
