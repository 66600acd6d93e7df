"""Clients of the socket API, and a root, that send or take too much: others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from typing import TYPE_CHECKING

import pytest

from patchbay.testing import PATIENCE_S, until
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.socket_api import MAX_REQUEST, Decoder

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")
ONE = bytes.fromhex("53475053060100 0502f001be9200")
ASK = b"[GET]GPS\x00\x05"


def unread_bytes(house: House) -> int:
    """What waits for all clients together, in our own memory."""
    return sum(peer.waiting_bytes for peer in house.server._peers)


@contextlib.asynccontextmanager
async def deaf(house: House, count: int, first: bytes):  # type: ignore[no-untyped-def]
    """Clients that send this, and never read."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", house.port))
        await loop.sock_sendall(client, first)
        clients.append(client)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def test_clients_that_ask_and_never_read_share_a_bound_and_an_honest_one_is_answered(
    house: House,
) -> None:
    house.replace(listener_buffer_bytes=100_000, buffers_bytes=200_000)
    await house.start()
    await house.report(5, GPS)
    for node in range(100, 140):
        await house.root.report(node, Value(b"BIG", bytes(255)))
    await until(lambda: len(house.api.cache.nodes) == 41)
    worst = 0
    async with deaf(house, 60, b"[GET]BIG\x00\x00[E]" * 10) as clients:
        for _ in range(30):
            for client in clients:
                with contextlib.suppress(BlockingIOError, OSError):
                    client.send(b"[GET]BIG\x00\x00[E]" * 50)
            await asyncio.sleep(0)
            assert await house.call(ASK) == ONE
            worst = max(worst, unread_bytes(house))
        assert 20_000 < worst <= 200_000 + 100_000
        assert house.api.crowded > 0
        assert await house.call(b"SEND-\x00\x05hi") == b"S"


async def test_listeners_that_never_read_share_a_bound_and_one_that_reads_hears_on(
    house: House,
) -> None:
    house.replace(listener_buffer_bytes=60_000, buffers_bytes=150_000)
    await house.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"[syn]\x00")
    assert await reader.readexactly(6) == b"[ack]\x00"
    heard = sent = worst = 0
    async with deaf(house, 20, b"[syn]\x00"):
        await until(lambda: len(house.api.listeners) == 21)
        while house.api.crowded == 0:
            for _ in range(20):
                await house.root.say(5, b"x" * 250)
                sent += 256
            while heard < sent:
                heard += len(await asyncio.wait_for(reader.read(65_536), PATIENCE_S))
            worst = max(worst, unread_bytes(house))
            assert sent < 5_000_000
        assert worst <= 150_000 + 60_000
        assert await house.call(b"NINFO") == b"S"
    writer.close()


async def test_a_client_that_asks_ahead_and_then_reads_gets_every_answer_in_order(
    house: House,
) -> None:
    await house.start()
    for node in range(100, 140):
        await house.root.report(node, Value(b"BIG", bytes(255)))
    await house.report(5, GPS)
    await until(lambda: len(house.api.cache.nodes) == 41)
    big = await house.call(b"[GET]BIG\x00\x00")
    async with deaf(house, 1, b"") as (client,):
        reader, writer = await asyncio.open_connection(sock=client.dup())
        for _ in range(200):
            writer.write(b"[GET]BIG\x00\x00[E]" + ASK + b"[E]")
        wanted = (big + b"[E]" + ONE + b"[E]") * 200
        assert await asyncio.wait_for(reader.readexactly(len(wanted)), PATIENCE_S) == wanted
        writer.write(b"SEND-\x00\x05hi[E]" + ASK + b"[E]")
        wanted = b"S[E]" + ONE + b"[E]"
        assert await asyncio.wait_for(reader.readexactly(len(wanted)), PATIENCE_S) == wanted
        writer.close()


async def test_a_long_request_is_whole_although_others_have_their_turn_between_its_parts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay.net.feed.TURN_S", 0.0)  # one part to one turn
    await house.start()
    blocking = asyncio.create_task(busy())
    async with deaf(house, 3, b"W-LOG" + b"x" * 20_000):
        assert await house.call(b'W-RBT[{"id": "' + b"x" * 6_000 + b'"}]') == b"S"
    blocking.cancel()


async def busy() -> None:
    """Take longer, at each turn of the loop, than a pause that ends a request."""
    while True:
        time.sleep(0.03)  # noqa: ASYNC251
        await asyncio.sleep(0)


async def test_a_client_that_asks_for_nonsense_again_and_again_is_closed(house: House) -> None:
    await house.start()
    answer = await house.call(b"XYZZY[E]" * 100)
    assert 0 < answer.count(b"[E]") <= 10
    assert house.server.invalid == 1


async def test_connections_that_say_nothing_or_a_byte_a_second_keep_nobody_out(
    house: House,
) -> None:
    await house.start()
    await house.report(5, GPS)
    async with deaf(house, 150, b"") as silent, deaf(house, 150, b"[") as chatting:
        for client in chatting:
            with contextlib.suppress(OSError):
                client.send(b"G")
        for _ in range(20):
            assert await house.call(ASK) == ONE
        assert await house.call(b"SEND-\x00\x05hi") == b"S"
        await house.report(5, GPS[::-1])
        await until(lambda: house.api.cache.latest(5, b"GPS") == GPS[::-1])
        assert house.server.connections <= 100
        assert len(silent) == 150


@pytest.mark.long
async def test_36000_garbage_connections_delay_no_answer(house: House) -> None:
    await garbage(house, 36_000)


async def test_garbage_connections_delay_no_answer(house: House) -> None:
    await garbage(house, 400)


async def garbage(house: House, count: int) -> None:
    await house.start()
    await house.report(5, GPS)
    chance = random.Random(7)
    ended = asyncio.Event()

    async def flood() -> None:
        for _ in range(count // 50):
            opened = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(50)]
            for _, writer in opened:
                writer.write(chance.randbytes(200))
            for _, writer in opened:
                writer.transport.abort()
        ended.set()

    flooding = asyncio.create_task(flood())
    asked = 0
    while not ended.is_set():
        assert await house.call(ASK) == ONE
        asked += 1
    await flooding
    assert asked > 0
    await house.report(5, GPS)
    assert house.server.crashes == 0
    await until(lambda: house.server.connections == 0)


def test_a_request_that_comes_byte_by_byte_costs_no_more_the_longer_it_is() -> None:
    def cost(size: int) -> float:
        """Processor time of the last quarter of so many bytes, each alone; the least of some."""
        found = []
        for _ in range(3):
            decoder = Decoder()
            for _ in range(size * 3 // 4):
                decoder.feed(b"x")
            began = time.process_time()
            for _ in range(size // 4):
                decoder.feed(b"x")
            found.append(time.process_time() - began)
        return min(found)

    small, large = cost(8_192), cost(MAX_REQUEST)
    assert large / small < 8 * 3  # eight times as many bytes; were it quadratic, 64


async def test_garbage_at_full_speed_fills_neither_the_log_nor_the_dead_letters(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await house.start()
    capsys.readouterr()
    bad = b"\xff\x00\x05[D]\x01GP\xfe" * 400
    loop = asyncio.get_running_loop()
    began = loop.time()
    letters = house.uart._bus.dead_letters
    for _ in range(15):
        await house.root.send(bad)
    await until(lambda: house.uart.bad_content == 6000)
    seconds = loop.time() - began
    assert house.uart._bus.dead_letters - letters <= 20 + 11 * seconds
    assert len(capsys.readouterr().out.splitlines()) <= 20 + 11 * seconds
    await house.report(5, GPS)
    assert await house.call(b"SEND-\x00\x05hi") == b"S"


async def test_a_root_that_sends_random_bytes_at_full_speed_holds_up_nobody(house: House) -> None:
    await house.start()
    await house.report(5, GPS)
    chance = random.Random(11)

    async def flood() -> None:
        for _ in range(50):
            await house.root.send(chance.randbytes(10_000))

    flooding = asyncio.create_task(flood())
    asked = 0
    while not flooding.done():
        assert await house.call(ASK) == ONE
        asked += 1
    await house.root.send(b"\xfe")  # ends what the last of it has begun
    await until(lambda: house.outbox.waiting == 0)
    assert asked > 5
    await house.report(5, GPS[::-1])
    await until(lambda: house.api.cache.latest(5, b"GPS") == GPS[::-1])
