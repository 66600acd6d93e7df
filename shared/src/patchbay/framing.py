"""Splits a stream of bytes into frames, in two common ways, each with a limit.

    Delimited        frames end with a delimiter, such as a newline
    LengthPrefixed   a number of bytes says how long the frame is that follows

Each keeps what is not complete, any split of the stream gives the same frames, and the work is
linear in the bytes. A frame over its limit raises `FrameTooLong`: what follows cannot be told from
it, so close the connection. Bytes before it may have completed frames, which are in ``before``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal


class WireError(Exception):
    """The peer sent what ends its connection. ``original``: the bytes at fault; ``before``: the
    frames that were complete by then."""

    def __init__(self, reason: str, original: bytes = b"", before: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.original = original
        self.before = before


class FrameTooLong(WireError):
    """A frame exceeds the limit. ``original``: its first bytes."""

    def __init__(self, limit: int, original: bytes, before: list[bytes]) -> None:
        super().__init__(f"a frame must have at most {limit} bytes", original, before)


class Delimited:
    """Frames that end with ``delimiter``; at most ``limit`` bytes without it."""

    def __init__(self, limit: int, delimiter: bytes = b"\n") -> None:
        if limit < 1 or not delimiter:
            raise ValueError("limit must be at least 1, and delimiter not empty")
        self._limit = limit
        self._delimiter = delimiter
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete with these bytes, without delimiters.

        Raises FrameTooLong.
        """
        delimiter, rest = self._delimiter, self._rest
        frames: list[bytes] = []
        # A delimiter may have begun in the bytes before.
        searched = max(0, len(rest) - len(delimiter) + 1)
        rest += data
        start = 0
        while (end := rest.find(delimiter, max(start, searched))) >= 0:
            if end - start > self._limit:
                raise self._too_long(start, frames)
            frames.append(bytes(rest[start:end]))
            start = end + len(delimiter)
        if len(rest) - start >= self._limit + len(delimiter):
            raise self._too_long(start, frames)
        del rest[:start]
        return frames

    def _too_long(self, start: int, frames: list[bytes]) -> FrameTooLong:
        return FrameTooLong(self._limit, bytes(self._rest[start : start + self._limit]), frames)


class LengthPrefixed:
    """Frames after a number of ``size`` bytes that says how long they are; at most ``limit`` bytes.

    ``inclusive``: the number counts its own bytes, too.
    """

    def __init__(
        self,
        limit: int,
        size: int = 2,
        order: Literal["big", "little"] = "big",
        *,
        inclusive: bool = False,
    ) -> None:
        if limit < 0 or size < 1:
            raise ValueError("limit must be at least 0, and size at least 1")
        self._limit = limit
        self._size = size
        self._order = order
        self._own = size if inclusive else 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete with these bytes, without prefixes. Raises FrameTooLong,
        also for a number that does not even count itself where it should."""
        size, rest = self._size, self._rest
        rest += data
        frames: list[bytes] = []
        start = 0
        while len(rest) - start >= size:
            length = int.from_bytes(rest[start : start + size], self._order) - self._own
            if not 0 <= length <= self._limit:
                raise FrameTooLong(self._limit, bytes(rest[start : start + self._limit]), frames)
            end = start + size + length
            if len(rest) < end:
                break
            frames.append(bytes(rest[start + size : end]))
            start = end
        del rest[:start]
        return frames
