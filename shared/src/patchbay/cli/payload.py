"""A payload as a person can read it: one line, whatever it was."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec

from patchbay.cli.printable import printable

SHOWN_BYTES = 64
"""How much of a payload that is neither text nor MessagePack is shown, as hex."""


def readable(payload: bytes, content_type: str = "") -> str:
    """Text as it is, MessagePack as JSON with its bytes as hex, anything else as hex."""
    if "msgpack" in content_type:
        return _msgpack(payload) or _hex(payload)
    try:
        return printable(payload.decode())
    except UnicodeDecodeError:
        return _msgpack(payload) or _hex(payload)


def _msgpack(payload: bytes) -> str:
    """MessagePack as JSON; nothing if it is none, or says no more than a number would."""
    try:
        value = msgpack.unpackb(payload, timestamp=3, strict_map_key=False)
    except (TypeError, ValueError, msgpack.UnpackException):  # a list as a key is a TypeError
        return ""
    if not isinstance(value, dict | list):
        return ""
    return printable(msgspec.json.encode(_bytes_as_hex(value), enc_hook=_encode).decode())


def _bytes_as_hex(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {_bytes_as_hex(key): _bytes_as_hex(one) for key, one in value.items()}
        case list() | tuple():
            return [_bytes_as_hex(one) for one in value]
    return value


def _encode(value: Any) -> Any:
    return repr(value)


def _hex(payload: bytes) -> str:
    shown = payload[:SHOWN_BYTES].hex(" ")
    rest = len(payload) - SHOWN_BYTES
    return f"{shown} ... {rest} more bytes" if rest > 0 else shown
