"""The WebSocket server, by the library's own client and by raw sockets, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from patchbay.errors import Unavailable
from patchbay.hosts import Hosts
from patchbay.log import get_logger
from patchbay.testing import PATIENCE_S, eventually, until
from patchbay.websocket import Client, Limits, Page, WebSocketServer
from tests.echo_house import on_both_loops

LOG = get_logger("test")
PAGE = Page("text/html; charset=utf-8", b"<!doctype html><title>here</title>", {"X-Ours": "yes"})

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Echo:
    """Answers what it hears, and keeps it."""

    def __init__(self, client: Client, all_of_them: list[Echo]) -> None:
        self.client = client
        self.heard: list[str | bytes] = []
        self.gone = 0
        self.crashes_at_its_end = False
        all_of_them.append(self)

    def received(self, message: str | bytes) -> None:
        self.heard.append(message)
        if message == "crash":
            raise RuntimeError("a mistake in a session")
        self.crashes_at_its_end |= message == "crash at the end"
        if message == "bye":
            self.client.close(4000, "as you wish")
            self.client.close(4001, "said twice")
        self.client.send(message)

    def lost(self) -> None:
        self.gone += 1
        if self.crashes_at_its_end:
            raise RuntimeError("a mistake at the end of a session")


class House:
    """A server of echoes, and who connected."""

    def __init__(self, **given: Any) -> None:
        self.sessions: list[Echo] = []
        options = {"host": "127.0.0.1", "port": 0, "limits": Limits(), "log": LOG, **given}
        self.server = WebSocketServer(lambda client: Echo(client, self.sessions), **options)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/gui?name=bar"

    def client(self, **given: Any) -> connect:
        return connect(self.url, proxy=None, **given)


@contextlib.asynccontextmanager
async def house(**given: Any) -> AsyncIterator[House]:
    made = House(**given)
    async with made.server:
        yield made


async def said(client: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(client.recv(), PATIENCE_S)


async def closed(client: ClientConnection) -> int:
    """The code that the connection was closed with."""
    await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
    return client.close_code or 0


async def get(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer


@on_both_loops
async def test_text_comes_back_as_text_and_bytes_as_bytes() -> None:
    async with house() as here, here.client() as client:
        await client.send("text: ä")
        assert await said(client) == "text: ä"
        await client.send(b"\xff\x00")
        assert await said(client) == b"\xff\x00"
        assert here.server.connections == 1


@on_both_loops
async def test_a_session_knows_who_is_there() -> None:
    async with house() as here, here.client(origin=Origin("http://bar")) as client:
        await client.ping()
        await until(lambda: len(here.sessions) == 1)
        known = here.sessions[0].client
        assert known.path == "/gui?name=bar"
        assert known.origin == "http://bar"
        assert known.address.startswith("127.0.0.1:")


@on_both_loops
async def test_lost_is_said_once_whoever_ends_it() -> None:
    async with house() as here:
        async with here.client() as client:
            await client.send("bye")
            assert await closed(client) == 4000
        async with here.client() as client:
            await client.close()
        await until(lambda: [one.gone for one in here.sessions] == [1, 1])
        assert here.server.connections == 0


@on_both_loops
async def test_nothing_is_sent_after_a_close() -> None:
    async with house() as here, here.client() as client:
        await client.send("bye")
        with pytest.raises(ConnectionClosed):
            await said(client)
        assert here.sessions[0].client.closing


@on_both_loops
async def test_a_session_that_raises_ends_its_own_connection_only() -> None:
    async with house() as here, here.client() as one, here.client() as other:
        await one.send("crash")
        assert await closed(one) == 1011
        assert here.server.crashes == 1
        await other.send("still here")
        assert await said(other) == "still here"


@on_both_loops
async def test_a_session_that_raises_at_its_end_is_counted() -> None:
    async with house() as here, here.client() as other:
        async with here.client() as one:
            await one.send("crash at the end")
            assert await said(one) == "crash at the end"
        await until(lambda: here.server.crashes == 1)
        await other.send("still here")
        assert await said(other) == "still here"


@on_both_loops
async def test_a_message_over_the_limit_closes_with_1009() -> None:
    async with house(limits=Limits(max_message_bytes=100)) as here, here.client() as client:
        await client.send("x" * 100)
        assert await said(client) == "x" * 100
        await client.send("x" * 101)
        assert await closed(client) == 1009
        assert here.sessions[0].heard == ["x" * 100]


@on_both_loops
async def test_text_that_is_not_utf8_closes_with_1007() -> None:
    async with house() as here, here.client() as client:
        await client.send(b"\xff", text=True)
        assert await closed(client) == 1007
        assert here.sessions[0].heard == []


@on_both_loops
async def test_one_connection_too_many_is_answered_503() -> None:
    async with house(limits=Limits(max_connections=1)) as here, here.client() as client:
        await client.ping()
        with pytest.raises(InvalidStatus) as refused:
            await here.client()
        assert refused.value.response.status_code == 503
        assert here.server.refused == 1
    assert len(here.sessions) == 1


@on_both_loops
async def test_only_pages_of_named_origins_may_connect() -> None:
    async with house(origins=["http://bar"]) as here:
        async with here.client(origin=Origin("http://bar")) as client:
            await client.send("in")
            assert await said(client) == "in"
        with pytest.raises(InvalidStatus) as refused:
            await here.client(origin=Origin("http://elsewhere"))
        assert refused.value.response.status_code == 403


@on_both_loops
async def test_a_name_that_is_not_ours_is_answered_421_page_and_socket_alike() -> None:
    hosts = Hosts(["lights.example"], machine="pi1")
    async with house(pages={"/": PAGE}, hosts=hosts) as here:
        port = here.server.port
        for host in ("evil.example", f"EVIL.example:{port}", "127.0.0.1.evil.example"):
            for head in (b"GET / HTTP/1.1\r\n", HANDSHAKE.partition(b"Host: here\r\n")[0]):
                answer = await get(port, head + b"Host: %b\r\n\r\n" % host.encode())
                assert answer.startswith(b"HTTP/1.1 421 ")
                assert b"setting hosts" in answer
            with pytest.raises(InvalidStatus) as refused:
                await here.client(additional_headers={"Host": host})
            assert refused.value.response.status_code == 421
        twice = await get(port, b"GET / HTTP/1.1\r\nHost: pi1\r\nHost: evil.example\r\n\r\n")
        assert twice.startswith(b"HTTP/1.1 421 ")
        for host in ("127.0.0.1", f"[::1]:{port}", "LOCALHOST:1", "pi1.local", "Lights.Example"):
            answer = await get(port, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert (await get(port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert here.sessions == []


@on_both_loops
async def test_a_broadcast_reaches_everybody_or_those_that_are_named() -> None:
    async with house() as here, here.client() as one, here.client() as other:
        await asyncio.gather(one.ping(), other.ping())
        await until(lambda: len(here.sessions) == 2)
        here.server.broadcast("all")
        assert [await said(one), await said(other)] == ["all", "all"]
        here.server.broadcast("first", [here.sessions[0].client])
        here.server.broadcast("last")
        heard = {(await said(one)), (await said(other))}
        assert heard == {"first", "last"}


@on_both_loops
async def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up() -> None:
    async with house(limits=Limits(write_buffer_bytes=65_536)) as here:
        deaf = socket.create_connection(("127.0.0.1", here.server.port))
        deaf.setblocking(False)
        deaf.send(HANDSHAKE)
        await until(lambda: here.server.connections == 1)
        async with here.client(max_queue=None) as client:
            await until(lambda: here.server.connections == 2)
            sent = 0
            while not here.server.dropped:
                here.server.broadcast("x" * 10_000)
                sent += 1
                await asyncio.sleep(0)
                assert await said(client) == "x" * 10_000
            assert sent * 10_000 > 65_536
            await until(lambda: here.sessions[0].gone == 1)
            assert here.sessions[1].gone == 0
        deaf.close()


@on_both_loops
async def test_a_plain_get_is_answered_with_the_page() -> None:
    async with house(pages={"/": PAGE}) as here:
        answer = await get(here.server.port, b"GET /?a=1 HTTP/1.1\r\nHost: here\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/html; charset=utf-8" in head
        assert b"X-Ours: yes" in head
        assert body == PAGE.body
        missing = await get(here.server.port, b"GET /no HTTP/1.1\r\nHost: here\r\n\r\n")
        assert missing.startswith(b"HTTP/1.1 404 ")
        async with here.client() as client:  # and the same port is still a WebSocket
            await client.send("both")
            assert await said(client) == "both"


@on_both_loops
async def test_without_pages_a_plain_get_is_told_what_this_is() -> None:
    async with house() as here:
        answer = await get(here.server.port, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"Upgrade: websocket" in answer


@on_both_loops
async def test_noise_and_silence_cost_nobody_anything() -> None:
    async with house(limits=Limits(open_timeout_s=0.2)) as here:
        silent = [socket.create_connection(("127.0.0.1", here.server.port)) for _ in range(20)]
        noise = await get(here.server.port, bytes(range(256)) * 400 + b"\r\n\r\n")
        assert noise == b"" or noise.startswith(b"HTTP/1.1 400 ")
        async with here.client() as client:
            await client.send("well")
            assert await said(client) == "well"
        for one in silent:
            one.settimeout(PATIENCE_S)
            assert await asyncio.to_thread(one.recv, 1) == b""  # closed at the open timeout
            one.close()


def is_open(one: socket.socket) -> bool:
    """Has the server not ended this connection, on which it says nothing?"""
    one.setblocking(False)
    try:
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@on_both_loops
async def test_of_those_who_say_nothing_only_so_many_stay_and_they_keep_nobody_out() -> None:
    async with house(limits=Limits(max_opening=8, open_timeout_s=3600)) as here:
        async with here.client() as before:
            await before.send("in")
            assert await said(before) == "in"
            silent = []
            for number in range(50):
                one = socket.create_connection(("127.0.0.1", here.server.port))
                if number % 2:
                    one.send(b"GET / HTTP/1.1\r\nHost: he")  # not silent, but never done
                silent.append(one)
            await until(lambda: sum(is_open(one) for one in silent) == 8)
            assert here.server.hurried == 42
            async with here.client() as after:
                await after.send("well")
                assert await said(after) == "well"
            await before.send("still here")
            assert await said(before) == "still here"
        assert [is_open(one) for one in silent] == [False] * 43 + [True] * 7
        for one in silent:
            one.close()
        await until(lambda: not here.server._opening)


@on_both_loops
async def test_of_many_that_come_at_once_no_more_get_in_than_there_may() -> None:
    async with house(limits=Limits(max_connections=3)) as here:
        tries = [here.client() for _ in range(20)]
        came = await asyncio.gather(*tries, return_exceptions=True)
        clients = [one for one in came if isinstance(one, ClientConnection)]
        refused = [one for one in came if isinstance(one, InvalidStatus)]
        assert (len(clients), len(refused), here.server.refused) == (3, 17, 17)
        await clients[0].close()

        async def works() -> bool:
            with contextlib.suppress(InvalidStatus):
                clients[0] = await here.client()
                return True
            return False

        await eventually(works)
        for one in clients:
            await one.close()


@on_both_loops
async def test_who_has_gone_before_the_answer_takes_no_place() -> None:
    async with house(limits=Limits(max_connections=1)) as here:
        for _ in range(20):
            one = socket.create_connection(("127.0.0.1", here.server.port))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.send(HANDSHAKE)
            one.close()  # with a reset, while the server reads

        async def works() -> bool:
            with contextlib.suppress(InvalidStatus, OSError):
                async with here.client():
                    return True
            return False

        await eventually(works)


@on_both_loops
async def test_stop_says_1001_and_does_not_wait_for_those_who_do_not_answer() -> None:
    here = House()
    await here.server.start()
    async with here.client() as client:
        deaf = socket.create_connection(("127.0.0.1", here.server.port))
        await client.ping()
        await asyncio.wait_for(here.server.stop(), PATIENCE_S)
        assert await closed(client) == 1001
        deaf.close()
    assert here.server.connections == 0
    assert here.sessions[0].gone == 1


@on_both_loops
async def test_a_port_in_use_is_one_clear_line() -> None:
    async with house() as here:
        port = here.server.port
        with pytest.raises(Unavailable, match=rf"cannot listen on 127.0.0.1:{port}: the port is"):
            await House(port=port).server.start()


def _masked(message: bytes) -> bytes:
    """A text message of a client in its frame."""
    return bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message


@on_both_loops
async def test_a_flood_of_tiny_messages_keeps_no_other_client_waiting_and_is_heard_in_order() -> (
    None
):
    flood = 20_000
    async with house() as here, here.client() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.server.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        reading = asyncio.create_task(reader.read())
        writer.write(b"".join(_masked(b"%d" % number) for number in range(flood)))
        flooding = here.sessions[1]
        await until(lambda: flooding.heard)
        await client.send("stop")
        assert await said(client) == "stop"
        assert len(flooding.heard) < flood, "the flood was over before"
        await until(lambda: len(flooding.heard) == flood)
        assert flooding.heard == [str(number) for number in range(flood)]
        writer.close()
        await reading


@on_both_loops
async def test_a_client_is_closed_after_as_many_invalid_messages_as_the_limit_says() -> None:
    async with house(limits=Limits(max_invalid=3)) as here, here.client() as client:
        await until(lambda: here.sessions)
        told = here.sessions[0].client
        assert [told.invalid() for _ in range(4)] == [False, False, True, True]
        assert await closed(client) == 1008
        assert here.server.invalid == 1
