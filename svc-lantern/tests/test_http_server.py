"""What is hardly HTTP, or none, at the API: its answer is JSON all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from patchbay.bus import Message
from patchbay.testing import PATIENCE_S, eventually, until

if TYPE_CHECKING:
    from conftest import MakeHouse

from tests.lantern_client import RED, Client, answered, raw


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x20\x00\x03\xff\x00\x00\r\n\r\n", "Invalid method"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "HTTPS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (bytes(range(256)) * 400 + b"\r\n\r\n", ""),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "8190 bytes"),
        (raw(b"Host: x", b"X: " + b"x" * 9000), "8190 bytes"),
        (raw(b"Host: x", *(b"X%d: y" % number for number in range(300))), "Too many headers"),
        (raw(b"Host: x", b"no header"), "header"),
        (raw(b"Host: x", b"Content-Length: many") + b"{}", "Content-Length"),
        (raw(b"Host: x", b"Content-Length: -2") + b"{}", "Content-Length"),
        (raw(b"Host: x", b"Content-Length: 2", b"Content-Length: 3") + b"{}", "Content-Length"),
        (raw(b"Host: x", b"Transfer-Encoding: chunked") + b"zz\r\n{}\r\n", "chunk size"),
        (raw(b"Host: x", b"Transfer-Encoding: gzip") + b"{}", "Transfer-Encoding"),
        (raw(b"Content-Length: 2") + b"{}", "'Host'"),
        (raw(b"Host: x", b"Host: y", b"Content-Length: 2") + b"{}", "'Host'"),
    ],
    ids=lambda one: one if isinstance(one, str) else repr(one[:30]),
)
async def test_what_is_no_http_is_refused_in_json_and_costs_nobody_else_anything(
    client: Client, data: bytes, says: str
) -> None:
    status, answer = await answered(client.house.api_port, data)
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert says in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 100
    assert client.house.api.refused == 1
    assert (await client.post(RED))[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        raw(b"Host: localhost", b"Content-Length: 2") + b"{}",
        raw(b"Host: localhost", b"Content-Length: 70000"),
        raw(b"Host: localhost", b"Expect: a miracle", b"Content-Length: 0"),
        b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
    ],
    ids=lambda data: repr(data[:30]),
)
async def test_no_answer_names_the_server_or_its_version(client: Client, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.house.api_port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
    writer.close()
    assert head.startswith((b"http/1.1 ", b"http/1.0 "))
    assert not any(word in head for word in (b"server:", b"aiohttp", b"python"))


async def test_a_chunk_that_is_none_and_comes_later_ends_the_body_when_its_time_is_over(
    make_house: MakeHouse,
) -> None:
    house = make_house(request_s=0.2)
    await house.start("api", "domain")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.api_port)
    writer.write(raw(b"Host: x", b"Transfer-Encoding: chunked", b"Expect: 100-continue"))
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"\r\n\r\n")  # by now the body is waited for
        writer.write(b"2\r\n{}\r\nzz\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
        assert json.loads(await reader.readline())["error"]["code"] == "too_slow"
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("path", ["/", "/lamp"])
async def test_an_expectation_that_nobody_can_meet_is_refused_in_json(
    client: Client, path: str
) -> None:
    head = raw(b"Host: x", b"Expect: a miracle", b"Content-Length: 0")
    status, answer = await answered(client.house.api_port, head.replace(b"/", path.encode(), 1))
    assert (status, answer["error"]["code"]) == (417, "bad_request")


@pytest.mark.parametrize(
    ("head", "body", "status", "code"),
    [
        ((b"Host: x", b"Origin: \xff", b"Content-Length: 0"), b"", 403, "forbidden_origin"),
        (
            (b"Host: \xff", b"Origin: http://\xff:PAGE", b"Content-Length: 0"),
            b"",
            403,
            "forbidden_origin",
        ),
        (
            (b"Host: x", b"Content-Encoding: gzip", b"Content-Length: 5"),
            b"abcde",
            400,
            "bad_request",
        ),
    ],
    ids=["origin", "host", "gzip"],
)
async def test_what_is_hardly_http_is_refused_in_json(
    client: Client, head: tuple[bytes, ...], body: bytes, status: int, code: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.house.api_port)
    page_port = str(client.house.page_port).encode()
    writer.write(raw(*head, b"Expect: 100-continue").replace(b"PAGE", page_port))
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        said = await reader.readuntil(b"\r\n\r\n")
        answer = json.loads(await reader.readline())
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert answer["error"]["code"] == code
    writer.close()


async def test_who_leaves_before_the_body_is_whole_is_no_mistake_of_ours(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.house.api_port)
    writer.write(raw(b"Host: x", b"Content-Length: 50") + b"abc")
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    writer.close()
    assert (await client.post(RED))[0] == 200
    assert "request failed" not in capsys.readouterr().out


async def test_calls_are_answered_while_all_connections_are_taken_by_who_sends_no_whole_request(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_api_connections=2)
    await house.start("api", "domain")
    open_ones = []
    for said in (b"", b"POST / HT", raw(b"Host: x", b"Content-Length: 50") + b"abc"):
        for _ in range(3):
            open_ones.append(await asyncio.open_connection("127.0.0.1", house.api_port))
            open_ones[-1][1].write(said)
        async with aiohttp.ClientSession() as session:
            assert (await Client(house, session).post(RED))[0] == 200
    for reader, _ in open_ones[:3]:
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
    for _, writer in open_ones:
        writer.close()


async def test_one_call_too_many_is_503_and_there_is_room_again(make_house: MakeHouse) -> None:
    house = make_house(max_api_connections=2, answer_s=PATIENCE_S)
    asked: list[Message] = []
    house.watcher.listen(house.watcher.topics.command("lantern", "all", "set"), asked.append)
    await house.start("api")  # without a domain a call waits for its answer
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        calls = [asyncio.create_task(client.post(RED)) for _ in range(2)]
        await until(lambda: len(asked) == 2)
        status, answer = await client.post(RED)
        assert (status, answer["error"]["message"]) == (503, "too many connections")
        calls[0].cancel()

        async def is_admitted() -> bool:
            return (await client.ask("GET"))[0] != 503

        await house.start("domain")
        await eventually(is_admitted)
        calls[1].cancel()


async def test_who_says_nothing_or_half_of_it_is_closed_in_time(make_house: MakeHouse) -> None:
    house = make_house(request_s=0.2)
    await house.start("api", "domain")
    for said, wanted in (
        (b"", b""),
        (b"POST / HT", b""),
        (raw(b"Host: x", b"Content-Length: 50") + b"abc", b"too_slow"),
        (raw(b"Host: x", b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n", b"too_slow"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.api_port)
        writer.write(said)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ") if wanted else answer == b""
        assert wanted in answer
        writer.close()


def pipelining(port: int) -> socket.socket:
    """A connection that sends requests as long as somebody takes them, and reads no answer."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.connect(("127.0.0.1", port))
    deaf.setblocking(False)
    return deaf


async def push(deaf: socket.socket) -> None:
    """Send requests until nothing more is taken."""
    request = b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    stuck = 0
    while stuck < 20:
        try:
            deaf.send(request)
            stuck = 0
        except BlockingIOError:
            stuck += 1
        await asyncio.sleep(0.01)


async def test_a_call_is_answered_while_others_pipeline_and_never_read(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_api_connections=2, request_s=60.0)
    await house.start("api", "domain")
    deaf = [pipelining(house.api_port) for _ in range(2)]
    try:
        for one in deaf:
            await push(one)
        async with aiohttp.ClientSession() as session:
            assert (await Client(house, session).post(RED))[0] == 200
    finally:
        for one in deaf:
            one.close()


async def test_who_does_not_read_the_answers_is_closed_in_time(make_house: MakeHouse) -> None:
    house = make_house(request_s=0.5)
    await house.start("api", "domain")
    with pipelining(house.api_port) as deaf:

        async def is_closed() -> bool:
            try:
                await push(deaf)
            except OSError:
                return True
            return False

        await eventually(is_closed)
