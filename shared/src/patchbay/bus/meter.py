"""What somebody who measures a bus client is told."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Called in the loop for each message; must be quick and must not raise."""

    def sent(self, topic: str) -> None:
        """A message goes out."""

    def received(self, topic: str) -> None:
        """A message has come in."""

    def handled(self, topic: str, seconds: float) -> None:
        """A message is acknowledged, so long after it came: what it says is safe."""


class Backlog(Protocol):
    """What waits to be sent, as an outbox knows it."""

    @property
    def waiting(self) -> int:
        """How many events."""

    def oldest(self) -> str | None:
        """The time of the oldest (RFC 3339); None if nothing waits."""

    @property
    def epoch(self) -> str:
        """The epoch of the events that are sent now."""

    def losses(self) -> dict[str, int]:
        """Numbers for the unit's info of what damage has cost; empty while there was none."""
