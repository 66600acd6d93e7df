"""Messages with QoS 0 that were received and are not handled yet: how much memory they may take.

Our Receive Maximum bounds those with QoS 1; of these the broker sends as many as anybody publishes.
"""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 2_097_152
"""More are dropped, as QoS 0 allows. A domain may take 44 MiB in a container; 30 are its own."""

MESSAGE_BYTES: Final = 1024
"""What a message takes besides its payload."""


class Unconfirmed:
    """Those of one connection."""

    def __init__(self) -> None:
        self.bytes = 0
        self.dropped = 0
        """Messages that there was no room for."""

    def add(self, payload_bytes: int) -> Held | None:
        """A message was received; None if there is no room for it. Whoever handles it calls the
        result, or drops it."""
        size = payload_bytes + MESSAGE_BYTES
        if self.bytes + size > MAX_BYTES:
            self.dropped += 1
            return None
        return Held(self, size)


class Held:
    """Counts one message for as long as somebody has it."""

    __slots__ = ("_all", "_bytes")

    def __init__(self, all_: Unconfirmed, size: int) -> None:
        self._all = all_
        self._bytes = size
        all_.bytes += size

    def __call__(self) -> None:
        """It is handled. The broker waits for no confirmation."""

    def __del__(self) -> None:
        self._all.bytes -= self._bytes
