"""The values of ACon_V1.0: what the text behind a key means. Each raises `WireError`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

SEND_WRAP: Final = 2**32
"""A SEND that is negative is this much more."""

MAX_CELL: Final = 4_096
"""The highest cell number taken: 64 times what the matrix can number, and far from overflow."""

_NUMBER = re.compile(r"[0-9]{1,9}")
_GROUPS = re.compile(r"[01,]*")


class LockerError(Exception):
    """The root of every error that this distribution raises on purpose."""


class WireError(LockerError):
    """The peer sent what is not ACon. Close the connection: there is no finding back.

    ``reason`` is short and stable. ``original`` is the start of the refused message.
    ``before`` are the good messages that came before it in the same `feed`: they count.
    """

    def __init__(self, reason: str, original: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.original = original
        self.before: list[Any] = []


def send(text: str) -> int:
    """A report's number: digits, or a negative number that wrapped (checked already)."""
    count = int(text)
    return count if count >= 0 else count + SEND_WRAP


# A board says the same of itself in nearly every report, so what its values mean is remembered:
# so many values, each at most MAX_LINE long and so 40 KB at worst, 20 MB for one function.


@lru_cache(maxsize=512)
def number(text: str) -> int:
    """Up to nine digits."""
    if not _NUMBER.fullmatch(text):
        raise WireError("a number that does not parse")
    return int(text)


@lru_cache(maxsize=64)
def numbers(text: str) -> tuple[int, ...]:
    """A list of numbers; a comma after the last one does not count."""
    return tuple([number(item) for item in text.removesuffix(",").split(",")]) if text else ()


@lru_cache(maxsize=512)
def cells(text: str) -> tuple[int, ...]:
    """A list of cells: each once, without 0."""
    listed = [number(item) for item in text.removesuffix(",").split(",")] if text else []
    cells = tuple(dict.fromkeys(filter(None, listed)))
    if cells and max(cells) > MAX_CELL:
        raise WireError("a cell over 4096")
    return cells


@lru_cache(maxsize=64)
def side(text: str | None) -> int:
    """COLS or ROWS; 0 if it is not said."""
    if not text:
        return 0
    side = number(text)
    if not 1 <= side <= 8:
        raise WireError("COLS or ROWS not from 1 to 8")
    return side


@lru_cache(maxsize=512)
def groups(text: str) -> tuple[str, ...]:
    """ACT_CON: groups of the digits 0 and 1."""
    if not _GROUPS.fullmatch(text):
        raise WireError("an ACT_CON of other than 0 and 1")
    return tuple(text.split(",")) if text else ()
