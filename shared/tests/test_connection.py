"""One connection to the broker, where it ends in the middle of what is said."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from patchbay.bus.connection import TURN_S, Connection
from patchbay.bus.message import Message
from patchbay.bus.unconfirmed import MAX_BYTES
from patchbay.errors import Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, Part, broker_settings, until


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


async def test_messages_without_confirmation_take_a_bounded_room_until_they_are_handled(
    make_bus: MakeBus,
) -> None:
    """More are dropped; one that is to be confirmed is not."""
    held: list[Message] = []
    taker, teller = make_bus("taker"), make_bus("teller")
    taker.listen("patchbay/x/#", held.append)
    for bus in (taker, teller):
        bus.start()
        await bus.wait_connected(PATIENCE_S)
    for last in (b"first", b"second"):
        for _ in range(100):
            teller.post("patchbay/x/y/event/z", bytes(100_000), qos=0)
        teller.post("patchbay/x/y/event/z", last)
        await until(lambda last=last: held and held[-1].payload == last)  # type: ignore[misc]
        assert 5 < len(held) <= MAX_BYTES // 100_000 + 1
        for message in held:
            message.ack()
        held.clear()


async def test_one_turn_of_the_loop_handles_some_of_a_flood(make_bus: MakeBus) -> None:
    """However much was received at once, others have their turn."""
    taker, teller = make_bus("taker"), make_bus("teller")
    loop = asyncio.get_running_loop()
    handled = [0]
    going = True

    def turn() -> None:
        if going:
            handled.append(0)
            loop.call_soon(turn)

    def slow(message: Message) -> None:
        message.ack()
        handled[-1] += 1
        time.sleep(TURN_S / 2)

    taker.listen("patchbay/x/#", slow)
    for bus in (taker, teller):
        bus.start()
        await bus.wait_connected(PATIENCE_S)
    for _ in range(200):
        teller.post("patchbay/x/y/event/z", bytes(100))
    turn()
    await until(lambda: sum(handled) == 200)
    going = False
    assert max(handled) <= 4


CONNACK_PROPERTIES = {
    "retained messages": b"\x25\x00",
    "QoS 1": b"\x24\x00",
    "wildcard subscriptions": b"\x28\x00",
}


async def _broker(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, denied: bytes
) -> None:
    """A broker that takes any CONNECT, denies a feature, and grants any subscription."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(2)
            body = await reader.readexactly(head[1])
            if head[0] >> 4 == 1:
                writer.write(bytes([0x20, 3 + len(denied), 0, 0, len(denied)]) + denied)
            elif head[0] >> 4 == 8:
                writer.write(bytes([0x90, 4]) + body[:2] + b"\x00\x01")


@pytest.mark.parametrize("missing", CONNACK_PROPERTIES)
async def test_a_broker_without_what_we_need_is_refused_by_name(missing: str) -> None:
    denied = CONNACK_PROPERTIES[missing]
    server = await asyncio.start_server(lambda r, w: _broker(r, w, denied), "127.0.0.1", 0)
    async with server:
        connection = Connection(
            broker_settings(server.sockets[0].getsockname()[1]), "u", print, print
        )
        with pytest.raises(Unavailable, match=missing):
            await connection.open(port=server.sockets[0].getsockname()[1], durable=False, will=None)


async def test_a_shared_subscription_is_refused_where_the_broker_has_none() -> None:
    server = await asyncio.start_server(lambda r, w: _broker(r, w, b"\x2a\x00"), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(broker_settings(port), "u", print, print)
        await connection.open(port=port, durable=False, will=None)
        await connection.subscribe(["x/+"])
        with pytest.raises(Unavailable, match="share_group"):
            await connection.subscribe(["$share/g/x"])
        connection.close()
