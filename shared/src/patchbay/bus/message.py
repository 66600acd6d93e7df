"""A message as it came from the broker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Message:
    """What arrived on a topic, and the way to acknowledge it.

    ``late``: it was queued at the broker while we were away (it came before the nonce that we send
    ourselves after each connect). ``dup``: the broker sends it again. ``ack()`` tells the broker
    that the message is done with; after the connection that brought it has ended, the broker sends
    the message again and ``ack()`` of the old one does nothing.
    """

    topic: str
    payload: bytes
    retain: bool = False
    dup: bool = False
    late: bool = False
    mid: int = 0
    received_at: float = 0.0
    """When it came, on the loop's clock, in seconds."""
    connection: object = field(default=None, repr=False)
    """What brought it: only there can it be acknowledged."""
    response_topic: str = ""
    correlation: bytes = b""
    content_type: str = ""
    process: str = ""
    """The process that published it, where that matters: of statuses."""
    failure: Exception | None = field(default=None, repr=False)
    """Why the callback could not take it."""
    acknowledge: Callable[[], None] | None = field(default=None, repr=False)

    def ack(self) -> None:
        """Tell the broker that this message is done with. Harmless when said twice."""
        if self.acknowledge is not None:
            acknowledge, self.acknowledge = self.acknowledge, None
            acknowledge()

    @property
    def digest(self) -> str:
        """An id that is the same when the broker delivers this message again.

        A redelivery has the packet identifier of the first delivery (MQTT 5, 4.3.2).
        """
        digest = hashlib.sha256(f"{self.topic}\n{self.mid}\n".encode() + self.payload)
        return digest.hexdigest()[:32]
