"""Request and reply, the asking side: MQTT 5's response topic and correlation data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from patchbay.bus.connection import FAILURE
from patchbay.bus.message import Message
from patchbay.errors import Rejected, Unavailable
from patchbay.messages import new_id

if TYPE_CHECKING:
    from patchbay.bus.client import Bus

NO_SUBSCRIBER = 0x10
"""PUBACK reason code: nobody has subscribed, the message is gone."""


class Requests:
    """The requests of one client; all their answers come on its own reply topic."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._topic = bus.topics.reply(bus.client_id)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._subscription = bus.listen(self._topic, self._replied)

    async def request(
        self, topic: str, payload: bytes, timeout_s: float, expiry_s: int | None
    ) -> bytes:
        """Send a request and return the answer's payload.

        ``expiry_s``: the broker throws it away after so long. Raises Unavailable at once if nobody
        has subscribed to the topic, Rejected if we may not publish there, TimeoutError after
        ``timeout_s`` seconds.
        """
        async with asyncio.timeout(timeout_s):
            await self._bus.wait_connected()
            if self._subscription.adding is not None:
                # Shielded: who is cancelled or has no more time must not take it from the others.
                await asyncio.shield(self._subscription.adding)
            correlation = new_id().encode()
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[correlation] = future
            try:
                code = await self._bus.publish(
                    topic,
                    payload,
                    expiry_s=expiry_s,
                    response_topic=self._topic,
                    correlation=correlation,
                )
                if code >= FAILURE:
                    raise Rejected("not_allowed", f"the broker does not let us publish {topic}")
                if code == NO_SUBSCRIBER:
                    raise Unavailable(f"nobody has subscribed to {topic}")
                return await future
            finally:
                del self._waiting[correlation]

    def _replied(self, message: Message) -> None:
        message.ack()
        future = self._waiting.get(message.correlation)
        if future is not None and not future.done():
            future.set_result(message.payload)
