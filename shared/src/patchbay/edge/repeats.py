"""Which frame is a repeat, for devices that number what they send.

A device that got no answer sends the same frame again, perhaps to another process of the same edge.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from patchbay.edge.memory import Memory
from patchbay.messages import encode
from patchbay.outbox import Outbox

REMEMBERED: Final = 16
"""Frames of a device whose numbers wrap that are remembered: more than it sends unanswered."""


class Number(NamedTuple):
    """The number that a device gave a frame, and how its numbers go on.

    ``wraps`` 0: they rise for as long as the device exists, so one that is not higher than the last
    is a repeat. Else ``wraps`` is the first number that does not occur: after it comes 0, and a
    repeat is a frame with the number and the content of one of the last `REMEMBERED`.
    """

    value: int
    wraps: int = 0


class Repeats:
    """The last numbers of each device. At most ``devices`` devices are remembered: of one more, the
    device that has been silent for longest is forgotten, and its next repeat counts twice."""

    def __init__(self, outbox: Outbox, devices: int) -> None:
        decoder = msgspec.json.Decoder(list[tuple[int, int]])
        self._last: Memory[list[tuple[int, int]]] = Memory(
            outbox, "repeats/", encode, decoder.decode
        )
        self._devices = devices

    def __len__(self) -> int:
        return len(self._last)

    def is_repeat(self, device: str, number: Number, content: bytes) -> bool:
        """Was this frame recorded before?"""
        last = self._last.get(device, [])
        if number.wraps:
            return (number.value, crc32(content)) in last
        return bool(last) and number.value <= last[-1][0]

    def remember(self, device: str, number: Number, content: bytes, *, first: bool) -> None:
        """Remember a frame with this turn's commit. ``first``: it is the first of the device on its
        connection. If its number went back then, the device has started anew, and none of its old
        frames is to be taken for a repeat of a new one."""
        last = self._last.get(device, [])
        if not number.wraps:
            last = []
        elif first and last:
            ahead = (number.value - last[-1][0]) % number.wraps
            if not 0 < ahead <= number.wraps // 2:
                last = []
        if device not in self._last and len(self._last) >= self._devices:
            self.forget(next(iter(self._last)))
        self._last[device] = [*last, (number.value, crc32(content))][-REMEMBERED:]

    def forget(self, device: str) -> None:
        """Forget a device."""
        self._last.pop(device, None)
