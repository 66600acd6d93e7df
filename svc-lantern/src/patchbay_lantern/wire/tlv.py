"""The lanterns' wire: they connect, we say commands, they say nothing.

    +--------+-----------------+--------------------+
    |  type  |     length      |  value             |
    | 1 byte | 2 bytes, big e. |  ``length`` bytes  |
    +--------+-----------------+--------------------+

    12 00 00                 type 0x12, no value
    20 00 03 ff 00 00        type 0x20, three bytes of value

Source: the seed, "struct.unpack('>ch3s', b'\\x20\\x00\\x03\\xff\\x00\\x00')", and "собирает целые
команды (type length + value)". Every sequence of bytes is a sequence of frames, so nothing that
comes is an error; which types mean something is not the wire's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchbay_lantern.wire.errors import WireError

HEADER: Final = 3

MAX_VALUE: Final = 65_535
"""What two bytes of length can say."""

MAX_FRAME: Final = HEADER + MAX_VALUE
"""Bytes of one frame, and so the most that a `Decoder` holds."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One command on the wire."""

    type: int
    value: bytes = b""


class Decoder:
    """The lantern's side: bytes in, whole frames out; any split of the bytes."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes, in order; often none. Never raises."""
        held = self._held
        held += data
        frames: list[Frame] = []
        start = 0
        while len(held) - start >= HEADER:
            end = start + HEADER + int.from_bytes(held[start + 1 : start + HEADER], "big")
            if len(held) < end:
                break
            frames.append(Frame(held[start], bytes(held[start + HEADER : end])))
            start = end
        del held[:start]
        return frames


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, for one send. Raises `WireError` for what the header cannot say."""
    if not 0 <= frame.type <= 0xFF:
        raise WireError("bad_type", f"a type is one byte: {frame.type}")
    if len(frame.value) > MAX_VALUE:
        raise WireError("too_long", f"a value has at most {MAX_VALUE} bytes")
    return bytes([frame.type]) + len(frame.value).to_bytes(2, "big") + frame.value
