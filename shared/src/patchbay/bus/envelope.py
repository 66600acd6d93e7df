"""A command as it stands in its message: bare, or in a CloudEvent."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from patchbay.bus.message import Message
from patchbay.errors import Rejected
from patchbay.messages import MAX_LEVEL, decode

_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class Envelope(NamedTuple):
    """A command taken out of its message.

    ``identity`` tells requests apart. ``again``: it may be a repeat. ``confirm``: whoever sent it
    can be asked. ``id`` and ``source`` are empty if it came without an envelope.
    """

    identity: str
    again: bool
    body: Any
    confirm: bool = False
    id: str = ""
    source: str = ""


def unwrap(message: Message) -> Envelope:
    """Take the command out of its message. Raises Rejected.

    A CloudEvent brings its own id. A bare object, as a person publishes it, gets one on arrival.
    """
    try:
        body = decode(_anything, message.payload or b"{}")
    except msgspec.DecodeError as error:
        raise Rejected("bad_request", f"not JSON: {error}") from error
    if not (isinstance(body, dict) and "specversion" in body and body.get("id")):
        return Envelope(arrival_id(message), message.dup, body)
    id, source = str(body["id"]), str(body.get("source", ""))
    if len(id) > MAX_LEVEL or len(source) > MAX_LEVEL:
        raise Rejected("bad_request", f"id and source must have at most {MAX_LEVEL} characters")
    # Two senders may use one id, and so may one for two commands.
    identity = f"{source} {message.topic} {id}"
    return Envelope(identity, True, body.get("data") or {}, body.get("confirm") is True, id, source)


def arrival_id(message: Message) -> str:
    """An id that is the same when the broker delivers this message again.

    A redelivery has the packet identifier of the first delivery, and the DUP flag that tells it
    from a new message with the same content (MQTT 5, 3.3.1.1).
    """
    parts = (message.topic, str(message.mid), message.response_topic)
    digest = hashlib.sha256("\n".join(parts).encode() + message.correlation + message.payload)
    return digest.hexdigest()[:32]
