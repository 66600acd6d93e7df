"""Pins in a file, for machines that have none. Like real ones they keep their levels when we die.

One line a change, appended: seconds on the monotonic clock, pin, level.

    81734.204113 7 1
    81736.018220 7 0

The last line of a pin is its level. Whoever wants to know for how long it was on reads the file.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

KEPT_CHANGES: Final = 20_000
"""Lines after which the file begins anew, some 400 KB: a demo may run for months."""


class Change(NamedTuple):
    """A level that was set. ``at`` is seconds on the monotonic clock."""

    at: float
    pin: int
    level: bool


class SimulatedGpio:
    """A `Gpio` whose pins are a file."""

    name = "simulated"

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._descriptor = -1
        self._levels: dict[int, bool] = {}
        self._lines = 0

    def setup(self, pins: Iterable[int], level: bool) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lines = len(changes(self._file))
        self._open()
        if self._torn():
            os.write(self._descriptor, b"\n")
        for pin in pins:
            self.output(pin, level)

    def output(self, pin: int, level: bool) -> None:
        self._levels[pin] = level
        if self._lines >= KEPT_CHANGES:
            self._begin_anew()
        os.write(self._descriptor, self._line(pin, level))
        self._lines += 1

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _torn(self) -> bool:
        """Is the last line cut short?"""
        with self._file.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            return file.read() not in (b"", b"\n")

    def _begin_anew(self) -> None:
        """Only the levels that are: replaced whole, so that a reader always finds all pins."""
        new = self._file.with_suffix(".new")
        new.write_bytes(b"".join(self._line(pin, level) for pin, level in self._levels.items()))
        new.replace(self._file)
        os.close(self._descriptor)
        self._open()
        self._lines = len(self._levels)

    def _line(self, pin: int, level: bool) -> bytes:
        return f"{self._clock():.6f} {pin} {int(level)}\n".encode()


def changes(file: Path) -> list[Change]:
    """All changes in a file of simulated pins; none if there is no file. A line that a power
    cut has torn or filled with rubbish is left out."""
    try:
        lines = file.read_text(errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            at, pin, level = line.split()
            found.append(Change(float(at), int(pin), level == "1"))
    return found
