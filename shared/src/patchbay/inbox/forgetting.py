"""Requests to forget a unit that is gone: ``patchbay/forget/<service>``.

What the broker retains of it (status, info) is cleared by whoever requests it. Its watermark is
the domain's: see `patchbay.inbox.watermarks`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from patchbay.bus import Bus, Message
from patchbay.bus.answers import topic_complaint
from patchbay.errors import Rejected, TooLarge
from patchbay.messages import ForgetUnit, answer, decode, refusal

Forget = Callable[[str], Awaitable[bool]]
"""Forgets this unit; was anything stored of it? Raises Unavailable, Rejected."""

_request = msgspec.json.Decoder(ForgetUnit)


def serve_forget(bus: Bus, service: str, pattern: str, forget: Forget) -> None:
    """Serve the requests that arrive on ``pattern``. Each is answered, if it says where."""

    async def handle(message: Message) -> None:
        if message.retain:
            return
        try:
            request = decode(_request, message.payload)
            if request.unit == bus.client_id:
                raise Rejected("unit_online", f"{request.unit} answers you")
            payload = answer({"removed": await forget(request.unit)})
        except msgspec.DecodeError as error:
            payload = refusal(Rejected("bad_request", f"forget: {error}"))
        except Rejected as error:
            payload = refusal(error)
        topic = message.response_topic
        if not bus.topics.is_reply(topic) or topic_complaint(topic):
            return
        try:
            await bus.answers.publish(topic, payload, message.correlation)
        except (Rejected, TooLarge) as error:
            bus.dead_letter(service, str(error), message.payload, topic=message.topic)

    bus.subscribe(pattern, handle)
