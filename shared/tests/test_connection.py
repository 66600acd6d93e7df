"""One connection to the broker, where it ends in the middle of what is said."""

from __future__ import annotations

import asyncio
import contextlib

from patchbay.errors import Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, Part


async def test_a_message_that_finds_the_connection_broken_is_settled_too(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    bus = make_bus("teller")
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    mosquitto.kill()  # nobody has noticed yet: the first who does may be who writes
    said = 0
    settled: list[int | None] = []
    with contextlib.suppress(Unavailable):
        while said < 1000:
            bus.post("patchbay/x/y/event/z", b"{}", on_ack=settled.append)
            said += 1
            await asyncio.sleep(0)
    assert 0 < said < 1000
    assert settled == [None] * said
