"""Which connections the reports of one ID come on: one board that reconnects, or two boards?

A board that has connected anew never goes back to the connection before. Two boards that were given
one ID do, in turn, and if each report has a connection of its own, their numbers go back and forth
between two series. A single packet that was late looks the same once; so it takes a few.

Pure: connections are numbers, and the clock is passed in.
"""

from __future__ import annotations

from typing import Final

RETURNS: Final = 3
"""So many times a report has to come on the connection, or in the series, before the last one."""

FORGET_S: Final = 3600.0
"""Boards report at least a few times an hour: after an hour without a return there is only one."""


class Peers:
    """The last two connections of one ID."""

    __slots__ = ("_address", "_before", "_before_address", "_returned_at", "_returns", "last")

    def __init__(self) -> None:
        self.last = 0
        """The connection of the last report; 0: none yet."""
        self._address = ""
        self._before = 0
        self._before_address = ""
        self._returns = 0
        self._returned_at = 0.0

    def moved(self, connection: int, address: str, now: float, *, returned: bool) -> None:
        """A report comes on another connection than `last`. ``returned``: it goes on with the
        series of numbers before this one. ``now``: seconds, on any clock that only rises."""
        if returned or connection == self._before:
            if now - self._returned_at > FORGET_S:
                self._returns = 0
            self._returns += 1
            self._returned_at = now
        self._before, self._before_address = self.last, self._address
        self.last, self._address = connection, address

    def two(self, now: float) -> list[str]:
        """Where the two boards connect from; empty for one board."""
        if self._returns < RETURNS or now - self._returned_at > FORGET_S:
            return []
        return [self._before_address, self._address]
