"""Cuts a stream of bytes into JSON objects. All wires of the colour jobs are such streams.

    {"ClientName": "A", "data": {...}}{"ClientName": "B", ...}   {"Clie

There is no delimiter (source: the seed's programs, which send ``json.dumps(...)`` and nothing
else): an object ends where its closing brace is. What stands between objects and can mean nothing
else is skipped: white space, a byte order mark, and NUL and RS, with which some programs end or
begin a text. Bytes are looked at once, whatever the packets: what was seen of an unfinished object
is a stack of open brackets and whether we are in a string. No byte of a UTF-8 character beyond
ASCII looks like a bracket or a quote, so a Hangul character may be split anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from patchbay.validation import explain

MAX_OBJECT: Final = 65_536
"""Bytes of one object. The largest job that is taken has some 4 KB; a connection can make us hold
this much, 64 MB for 1,000 of them."""

MAX_DEPTH: Final = 16
"""Brackets open at once. A job has two; what is deeper is no job, and parsing it costs stack."""

MAX_ORIGINAL: Final = 1_024
"""Bytes of what was refused that an error keeps: enough to see what it was."""

_BOM: Final = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"(?:[ \t\r\n\v\f\0\x1e]|\xef\xbb\xbf)*")
_IN_OBJECT = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')
_CLOSES = {0x5B: 0x5D, 0x7B: 0x7D}


T = TypeVar("T")


class AllocatorError(Exception):
    """The root of every error that this distribution raises on purpose."""


class WireError(AllocatorError):
    """The peer sent what is no JSON object. Close the connection: there is no finding back.

    ``reason`` is short and stable. ``original`` is the start of what was refused. ``before`` is
    what came before it in the same ``feed``, and counts.
    """

    def __init__(self, reason: str, original: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.original = original[:MAX_ORIGINAL]
        self.before: list[Any] = []


class Splitter:
    """Bytes in, the bytes of whole objects out. Holds at most `MAX_OBJECT` between two calls."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._seen = 0
        self._open: list[int] = []
        self._in_string = False
        self._broken: WireError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that are complete with these bytes, in order; often none.

        Raises `WireError` at the first thing that is no object, with the objects before it in
        ``before``; from then on every call raises. An object is complete when its brackets are
        closed; whether it is sound JSON is for `parse` to say.
        """
        if self._broken is not None:
            raise WireError(self._broken.reason, self._broken.original)
        self._held += data
        objects: list[bytes] = []
        try:
            while (end := self._end()) >= 0:
                objects.append(bytes(self._held[:end]))
                del self._held[:end]
                self._seen = 0
        except WireError as error:
            error.original = bytes(self._held[:MAX_ORIGINAL])
            error.before = list(objects)
            self._broken = error
            self._held = bytearray()
            raise
        return objects

    def finish(self) -> None:
        """The stream is at its end. Raises `WireError` if an object is unfinished."""
        if self._held and self._broken is None:
            raise WireError("the connection ended within an object", bytes(self._held))

    def _end(self) -> int:
        """Where the object that is begun ends, or -1: not yet. Bytes before ``_seen`` are known."""
        held = self._held
        if not self._open:
            space = _SPACE.match(held)
            if space is not None:
                del held[: space.end()]
            if _BOM.startswith(held):
                return -1  # nothing, or the beginning of a mark
            if held[0] != 0x7B:
                raise WireError("not a JSON object")
            self._open.append(0x7D)
            self._seen = 1
        while True:
            found = (_IN_STRING if self._in_string else _IN_OBJECT).search(held, self._seen)
            if found is None:
                self._seen = len(held)
                break
            position = found.start()
            if self._in_string and held[position] == 0x5C:
                if position + 1 == len(held):  # what is escaped has not come yet
                    self._seen = position
                    break
                self._seen = position + 2
                continue
            self._seen = position + 1
            self._bracket_or_quote(held[position])
            if not self._open:
                if self._seen > MAX_OBJECT:
                    break
                return self._seen
        if len(held) > MAX_OBJECT:
            raise WireError("an object over 64 KiB")
        return -1

    def _bracket_or_quote(self, byte: int) -> None:
        if byte == 0x22:
            self._in_string = not self._in_string
        elif byte in _CLOSES:
            if len(self._open) == MAX_DEPTH:
                raise WireError("an object deeper than 16")
            self._open.append(_CLOSES[byte])
        elif self._open.pop() != byte:
            raise WireError("brackets that do not match")


def read_all(splitter: Splitter, data: bytes, read: Callable[[bytes], T]) -> list[T]:
    """What ``read`` makes of each object that is complete with these bytes.

    Raises `WireError`, as the splitter or ``read`` do, with what came before it in ``before``.
    """
    try:
        texts, broken = splitter.feed(data), None
    except WireError as error:
        texts, broken = error.before, error
    frames: list[T] = []
    try:
        frames.extend(map(read, texts))  # what was read before one that cannot be counts
    except WireError as error:
        broken = error
    if broken is not None:
        broken.before = frames
        raise broken
    return frames


def parse(text: bytes) -> dict[str, Any]:
    """The object of these bytes. Raises `WireError` if it is not sound JSON in UTF-8."""
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not sound JSON: {explain(error)}", text) from None
    return found
