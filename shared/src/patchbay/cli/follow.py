"""The loop of ``patchbay watch``."""

from __future__ import annotations

import asyncio
from datetime import datetime

from patchbay.bus import Bus, Message
from patchbay.cli.payload import readable
from patchbay.cli.printable import printable


async def follow(bus: Bus, pattern: str, count: int) -> None:
    """Print what arrives on ``pattern``; return after ``count`` messages, never if that is 0."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen = 0

    def show(message: Message) -> None:
        nonlocal seen
        message.ack()
        if done.done():
            return
        try:
            print(line(message), flush=True)
        except OSError as error:  # Nobody reads us any more.
            done.set_exception(error)
            return
        seen += 1
        if seen == count:
            done.set_result(None)

    bus.listen(pattern, show)
    async with bus:
        await done


def line(message: Message) -> str:
    """``12:34:56.789 patchbay/locker/b1/state {...}``, in local time."""
    now = datetime.now().astimezone()
    payload = readable(message.payload, message.content_type) or "(empty)"
    return f"{now:%H:%M:%S}.{now.microsecond // 1000:03d} {printable(message.topic)} {payload}"
