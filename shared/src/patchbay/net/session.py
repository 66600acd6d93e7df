"""What an edge does with one connection: the two or three methods that a server calls."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Session(Protocol):
    """What an edge does with one connection. Both are called in the loop and must not block."""

    def received(self, data: bytes) -> None:
        """Bytes came. An exception closes this connection, and no other."""

    def lost(self) -> None:
        """The connection is gone, whoever ended it. Called once; nothing is received after it."""


@runtime_checkable
class HearsTheEnd(Protocol):
    """A `Session` that wants to know when its peer has said all."""

    def ended(self) -> None:
        """The peer has half-closed: nothing more will be received, and it still reads."""
