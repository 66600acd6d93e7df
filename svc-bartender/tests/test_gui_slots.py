"""A stop gets in whoever holds the port; pages of other sites and other names do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from patchbay.testing import PATIENCE_S, eventually, until
from patchbay_bartender.edge.gui import ALL_TAKEN
from tests.bartender_bar import House, with_settings

HOSTILE_S = 0.05
"""How often a hostile connection sends a byte: slower than a second's worth in a scaled test."""


@contextlib.asynccontextmanager
async def held(house: House, count: int) -> AsyncIterator[list[ClientConnection]]:
    """So many WebSockets that say nothing; those that are refused are not among them."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            with contextlib.suppress(InvalidStatus, ConnectionClosed, OSError):
                found.append(
                    await stack.enter_async_context(
                        connect(f"ws://127.0.0.1:{house.port}", proxy=None, close_timeout=0.1)
                    )
                )
        yield found


async def say(gui: ClientConnection, type: str, **data: object) -> None:
    await gui.send(json.dumps({"type": type, "data": data}))


async def error_of(gui: ClientConnection) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message = json.loads(await gui.recv())
            if message["type"] == "error":
                return str(message["data"]["msg"])


async def status_of(gui: ClientConnection) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message = json.loads(await gui.recv())
            if message["type"] == "status":
                return int(message["data"]["remaining_time"])


def gui(house: House, **options: object) -> connect:
    return connect(f"ws://127.0.0.1:{house.port}", proxy=None, **options)  # type: ignore[arg-type]


@with_settings(max_connections=10, reserved_s=0.2)
async def test_a_stop_gets_in_when_silent_connections_hold_all_slots(house: House) -> None:
    async with gui(house) as idle, gui(house) as orders:
        await say(orders, "blend", cup_size=0.5, ratios={"0": 1.0})
        await until(lambda: house.pins.on == [0])
        async with held(house, 20):
            assert house.gui.server is not None
            assert house.gui.server.connections <= 12

            async def stopped() -> None:
                while house.pins.on:
                    with contextlib.suppress(InvalidStatus, ConnectionClosed, OSError):
                        async with gui(house) as rescuer:
                            await say(rescuer, "stop")
                            await asyncio.sleep(0.1)

            async with asyncio.timeout(PATIENCE_S):
                await stopped()
            while await status_of(idle):
                """An idle GUI hears the countdown to its end."""


@with_settings(max_connections=3, reserved_s=0.2)
async def test_when_all_slots_are_taken_by_guis_a_newcomer_may_only_stop(house: House) -> None:
    async with gui(house) as one, gui(house) as two, gui(house) as three:
        for each in (one, two, three):
            await say(each, "get_blend_status")
            assert await status_of(each) == 0
        async with gui(house) as newcomer:
            await say(newcomer, "blend", cup_size=0.5, ratios={"0": 1.0})
            assert await error_of(newcomer) == ALL_TAKEN
            assert house.pins.on == []
            await say(one, "blend", cup_size=0.5, ratios={"0": 1.0})
            await until(lambda: house.pins.on == [0])
            await say(newcomer, "stop")
            await until(lambda: house.pins.on == [])
            await three.close()

            async def served() -> bool:
                await say(newcomer, "get_blend_status")
                message = json.loads(await newcomer.recv())
                return bool(message["type"] == "status")

            await eventually(served)


@with_settings(max_connections=3)
async def test_a_gui_that_speaks_takes_the_place_of_a_silent_connection(house: House) -> None:
    async with held(house, 3) as silent, gui(house) as newcomer:
        await say(newcomer, "echo", msg="here")
        async with asyncio.timeout(PATIENCE_S):
            assert json.loads(await newcomer.recv())["type"] == "echo"
            await silent[2].wait_closed()


@pytest.mark.long
@pytest.mark.parametrize("chats", [False, True])
async def test_a_stop_gets_in_through_a_thousand_connections_that_never_finish(
    house: House, chats: bool
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def chat() -> None:
        while True:
            for writer in writers:
                with contextlib.suppress(OSError):
                    writer.write(b"G")
            await asyncio.sleep(HOSTILE_S)

    try:
        for _ in range(1000):
            with contextlib.suppress(OSError):
                writers.append((await asyncio.open_connection("127.0.0.1", house.port))[1])
        chatting = asyncio.create_task(chat()) if chats else None
        async with gui(house) as orders:
            await say(orders, "blend", cup_size=0.5, ratios={"0": 1.0})
            await until(lambda: house.pins.on == [0])
            async with gui(house) as rescuer:
                await say(rescuer, "stop")
                await until(lambda: not house.pins.on)
        if chatting is not None:
            chatting.cancel()
    finally:
        for writer in writers:
            writer.close()


async def test_pages_of_other_sites_may_not_connect(house: House) -> None:
    async with gui(house, origin=Origin("http://localhost:4200")) as ours:
        await say(ours, "echo")
        await asyncio.wait_for(ours.recv(), PATIENCE_S)
    for origin in ("https://evil.example", "http://localhost:4201", "null"):
        with pytest.raises(InvalidStatus) as refused:
            await gui(house, origin=Origin(origin))
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 421), ("192.0.2.7", 101), ("bar", 101)]
)
async def test_a_name_of_somebody_else_is_not_ours(house: House, host: str, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {host}:8765\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
    writer.close()
    assert int(line.split()[1]) == status


async def test_a_megabyte_of_invalid_messages_ends_its_connection_and_holds_nobody_up(
    house: House,
) -> None:
    async with gui(house) as honest:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: bar\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        frame = b"\x81\x82\x00\x00\x00\x00{}"  # a masked text frame
        writer.write(frame * (1_000_000 // len(frame)))
        await say(honest, "blend", cup_size=0.01, ratios={"0": 1.0})
        await until(lambda: house.heard.of("bar-pumps/event/finished"))
        with contextlib.suppress(OSError):
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
    assert house.heard.data("bar-pumps/event/finished")[0]["result"] == "done"
    assert house.failures == []
