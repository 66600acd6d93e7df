"""Answers, on topics that requesters have named.

A broker may disconnect whoever publishes on a topic, or with a size, that it does not take. An
answer goes where somebody else has said, so it must not cost us our connection repeatedly:
the request would be redelivered after each reconnect, and be answered again.

    the topic is invalid by the strictest broker's rules      it is refused, nothing is published
    the connection ended while an answer was in flight        its topic is a suspect
    it ended again while this suspect was in flight alone     nothing is published there any more
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from patchbay.bus.connection import PACKET_REFUSED, Connection
from patchbay.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from patchbay.bus.client import Bus

TOPIC_LEVELS: Final = 8
TOPIC_BYTES: Final = 256
"""What AWS IoT Core takes, the strictest broker that we know of."""

CORRELATION_BYTES: Final = 1024
"""Ours have 32, those of mosquitto_rr fewer. MQTT 5 would allow 65,535."""

SUSPECTS: Final = 256
"""Topics that are remembered; the oldest makes room."""

IMMEDIATE_S: Final = 1.0
"""A broker that gives no reason closes the connection within milliseconds of what it refuses."""

STRIKES: Final = 2
"""Connections that one topic may cost us: the first may have ended for another reason."""


def topic_complaint(topic: str) -> str:
    """Why no broker has to take a message on this topic; empty if each would."""
    if not topic or len(topic.encode("utf-8", "surrogatepass")) > TOPIC_BYTES:
        return f"a topic must have 1 to {TOPIC_BYTES} bytes"
    if topic.count("/") >= TOPIC_LEVELS:
        return f"a topic must have at most {TOPIC_LEVELS} levels"
    if topic.startswith("$"):
        return "a topic must not begin with $"
    if not all(map(_is_allowed, topic)):
        return "a topic must not have wildcards, control characters or other non-characters"
    return ""


def _is_allowed(char: str) -> bool:
    """MQTT 5, 1.5.4 and 4.7.1: what must not, or should not, stand in a topic name."""
    code = ord(char)
    is_control = code < 0x20 or 0x7F <= code < 0xA0
    is_surrogate = 0xD800 <= code < 0xE000
    is_noncharacter = 0xFDD0 <= code < 0xFDF0 or code & 0xFFFE == 0xFFFE
    return not (char in "+#" or is_control or is_surrogate or is_noncharacter)


class Answers:
    """Publishes the answers of one client."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._strikes: dict[str, int] = {}
        self._alone = asyncio.Lock()

    async def publish(self, topic: str, payload: bytes, correlation: bytes) -> None:
        """Publish an answer and wait for the PUBACK.

        Raises Rejected for a topic or correlation that no answer can have, or that has cost us our
        connection twice; Unavailable if the connection ends, TooLarge as `Bus.publish`.
        """
        complaint = topic_complaint(topic)
        if complaint:
            raise Rejected("bad_request", f"response topic: {complaint}")
        if len(correlation) > CORRELATION_BYTES:
            raise Rejected(
                "bad_request", f"correlation data must have at most {CORRELATION_BYTES} B"
            )
        if topic not in self._strikes:
            await self._publish(topic, payload, correlation)
            return
        async with self._alone:
            if self._strikes.get(topic, 0) >= STRIKES:
                raise Rejected("bad_request", "the broker disconnects us for this response topic")
            await self._publish(topic, payload, correlation)

    async def _publish(self, topic: str, payload: bytes, correlation: bytes) -> None:
        connection = self._bus.connection
        started = asyncio.get_running_loop().time()
        try:
            await self._bus.publish(topic, payload, correlation=correlation)
        except Unavailable:
            lived_s = asyncio.get_running_loop().time() - started
            if connection is not None and _refused(connection, lived_s):
                self._strike(topic)
            raise
        self._strikes.pop(topic, None)

    def _strike(self, topic: str) -> None:
        strikes = self._strikes.pop(topic, 0) + 1
        while len(self._strikes) >= SUSPECTS:
            del self._strikes[next(iter(self._strikes))]
        self._strikes[topic] = strikes
        self._bus.log.warning("disconnected while an answer was sent", topic=topic, times=strikes)


def _refused(connection: Connection, lived_s: float) -> bool:
    """Did this connection end as if the broker had refused what was sent for so long?"""
    if not connection.established or not connection.ended.done():
        return False
    if connection.reason is not None:
        return connection.reason in PACKET_REFUSED
    return connection.closed_by_peer and lived_s < IMMEDIATE_S
