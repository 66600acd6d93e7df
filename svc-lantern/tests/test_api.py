"""The HTTP API: each case its status and its answer."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from patchbay.testing import PATIENCE_S, Part, eventually, until
from patchbay_lantern.wire.http import MAX_BODY

if TYPE_CHECKING:
    from conftest import MakeHouse
    from tests.lantern_house import House

RED = {"method": "message", "params": {"command": "COLOR", "value": "ff0000"}}


class Client:
    """Asks the API of a house."""

    def __init__(self, house: House, session: aiohttp.ClientSession) -> None:
        self.house = house
        self.session = session

    async def ask(
        self, method: str = "POST", path: str = "/", **options: Any
    ) -> tuple[int, dict[str, Any], Any]:
        url = f"http://127.0.0.1:{self.house.api_port}{path}"
        async with (
            asyncio.timeout(PATIENCE_S),
            self.session.request(method, url, **options) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else {}, response.headers

    async def post(self, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer, _ = await self.ask(data=data, **options)
        return status, answer

    async def refused(self, body: Any) -> tuple[int, str]:
        status, answer = await self.post(body)
        assert set(answer) == {"error"}
        assert set(answer["error"]) == {"code", "message"}
        assert answer["error"]["message"]
        return status, answer["error"]["code"]


@pytest.fixture
async def client(house: House) -> Any:
    async with aiohttp.ClientSession() as session:
        yield Client(house, session)


async def test_a_call_is_answered_after_it_is_persisted_with_how_many_obey(
    client: Client,
) -> None:
    lantern = await client.house.lantern()
    await until(lambda: client.house.domain.census.lanterns == 1)
    assert await client.post(RED) == (
        200,
        {"result": "ok", "command": "COLOR", "value": "ff0000", "lanterns": 1},
    )
    assert (await client.house.kept.load()).state.rev == 1
    await lantern.hears(b"\x20\x00\x03\xff\x00\x00")
    await lantern.close()


@pytest.mark.parametrize("value", ["00ff00", "#00FF00"])
async def test_a_color_may_have_a_hash_and_upper_case(client: Client, value: str) -> None:
    body = {"method": "message", "params": {"command": "COLOR", "value": value}}
    assert (await client.post(body))[1]["value"] == "00ff00"


@pytest.mark.parametrize("params", [{}, {"value": None}, {"value": ""}])
async def test_on_and_off_take_no_value(client: Client, params: dict[str, Any]) -> None:
    for command in ("ON", "OFF"):
        body = {"method": "message", "params": {"command": command, **params}}
        status, answer = await client.post(body)
        assert (status, answer["command"], answer["value"]) == (200, command, None)


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""]
)
async def test_the_body_is_json_whatever_the_header_says(client: Client, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    status, _ = await client.post(RED, headers=headers, skip_auto_headers=["Content-Type"])
    assert status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"command=ON", "bad_json"),
        (b"\xff", "bad_json"),
        ([], "bad_request"),
        ({"method": "message"}, "bad_request"),
        ({"method": "message", "params": {}}, "bad_request"),
        ({"method": "massage", "params": {"command": "ON"}}, "unknown_method"),
        ({"method": "message", "params": {"command": "BLINK"}}, "unknown_command"),
        ({"method": "message", "params": {"command": 1}}, "unknown_command"),
        ({"method": "message", "params": {"command": "COLOR"}}, "bad_value"),
        ({"method": "message", "params": {"command": "COLOR", "value": "red"}}, "bad_value"),
        ({"method": "message", "params": {"command": "COLOR", "value": 1}}, "bad_value"),
        ({"method": "message", "params": {"command": "ON", "value": "x"}}, "bad_value"),
    ],
    ids=repr,
)
async def test_what_is_no_call_is_refused_with_400_and_its_code(
    client: Client, body: Any, code: str
) -> None:
    assert await client.refused(body) == (400, code)
    assert (await client.post(RED))[0] == 200


async def test_other_methods_paths_and_sizes_have_their_status(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        status, answer, headers = await client.ask(method)
        assert (status, answer["error"]["code"]) == (405, "method_not_allowed")
        assert headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    status, answer, _ = await client.ask(path="/lamp", data=b"{}")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    padded = json.dumps(RED).encode().ljust(MAX_BODY)
    assert (await client.post(padded))[0] == 200
    assert await client.refused(padded + b" ") == (413, "too_large")
    assert await client.refused(b"x" * 3_000_000) == (413, "too_large")


def raw(*headers: bytes) -> bytes:
    """The head of a POST."""
    return b"\r\n".join([b"POST / HTTP/1.1", *headers, b"", b""])


async def answered(port: int, data: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        answer = json.loads(await reader.readline())
    writer.close()
    assert b"Content-Type: application/json" in head
    return int(head.split()[1]), answer


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


def asked_as(host: str, version: str = "1.1") -> bytes:
    """A call by this name of ours; from nobody's page, or from the page of that very host."""
    body = json.dumps(RED).encode()
    lines = [f"POST / HTTP/{version}", f"Content-Length: {len(body)}"]
    lines += [f"Host: {host}"] if host else []
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9000", "EVIL.Example.", "127.0.0.1.evil.example", "other.local"],
)
async def test_a_page_whose_name_was_made_to_lead_here_commands_nothing(
    client: Client, host: str
) -> None:
    name = host.partition(":")[0]
    origin = f"Origin: http://{name}:{client.house.page_port}\r\nHost:"
    for data in (asked_as(host), asked_as(host).replace(b"Host:", origin.encode())):
        status, answer = await answered(client.house.api_port, data)
        assert (status, answer["error"]["code"]) == (421, "unknown_host")
    for method, path in (("GET", "/"), ("OPTIONS", "/"), ("PUT", "/"), ("GET", "/lamp")):
        headers = {"Host": host, "Origin": f"http://{name}:{client.house.page_port}"}
        status, answer, headers = await client.ask(method, path, headers=headers)
        assert (status, answer["error"]["code"]) == (421, "unknown_host")
        assert "Access-Control-Allow-Origin" not in headers
    assert (await client.post(RED))[0] == 200
    assert len(client.house.commanded()) <= 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "192.0.2.7:80", "[::1]:9000", "[FE80::1]", "LOCALHOST:9000", "lantern-api:9000"],
)
async def test_it_answers_to_addresses_and_to_names_without_a_dot(
    client: Client, host: str
) -> None:
    assert (await answered(client.house.api_port, asked_as(host)))[0] == 200


async def test_it_answers_to_the_names_of_this_machine(client: Client) -> None:
    machine = socket.gethostname()
    for host in (machine, machine.upper(), f"{machine.partition('.')[0]}.local:9000"):
        assert (await answered(client.house.api_port, asked_as(host)))[0] == 200


async def test_who_says_no_name_is_no_browser_and_is_answered(client: Client) -> None:
    assert (await answered(client.house.api_port, asked_as("", "1.0")))[0] == 200


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({"hosts": ["lights.example"]}, "Lights.Example:9000", 200),
        ({"hosts": ["lights.example"]}, "api.lights.example", 421),
        ({"origins": ["https://lights.example:8443"]}, "lights.example", 200),
        ({"api_url": "https://api.example"}, "api.example", 200),
        ({"hosts": ["*"]}, "evil.example", 200),
    ],
)
async def test_names_that_the_settings_say_are_ours(
    make_house: MakeHouse, settings: dict[str, Any], host: str, status: int
) -> None:
    house = make_house(**settings)
    await house.start("api", "domain")
    assert (await answered(house.api_port, asked_as(host)))[0] == status


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


async def test_one_connection_too_many_is_503_and_there_is_room_again(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_api_connections=2)
    await house.start("api", "domain")
    silent = [await asyncio.open_connection("127.0.0.1", house.api_port) for _ in range(2)]
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)

        async def is_refused() -> bool:
            return await client.refused(RED) == (503, "unavailable")

        await eventually(is_refused)
        silent[0][1].close()

        async def works() -> bool:
            return (await client.post(RED))[0] == 200

        await eventually(works)
    silent[1][1].close()


async def test_who_says_nothing_or_half_of_it_is_closed_in_time(make_house: MakeHouse) -> None:
    house = make_house(request_s=0.2)
    await house.start("api", "domain")
    for said, answered in (
        (b"", b""),
        (b"POST / HT", b""),
        (raw(b"Host: x", b"Content-Length: 50") + b"abc", b"too_slow"),
        (raw(b"Host: x", b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n", b"too_slow"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.api_port)
        writer.write(said)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ") if answered else answer == b""
        assert answered in answer
        writer.close()


async def test_a_get_shows_the_present_state(client: Client) -> None:
    await until(lambda: client.house.state != {})
    status, answer, headers = await client.ask("GET")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert answer == {"on": None, "color": None, "since": None, "by": None, "lanterns": 0}
    await client.post(RED)
    await client.post({"method": "message", "params": {"command": "ON"}})

    async def shows_it() -> bool:
        return (await client.ask("GET"))[1]["on"] is True

    await eventually(shows_it)
    _, answer, _ = await client.ask("GET")
    assert (answer["on"], answer["color"], answer["by"]) == (True, "ff0000", "api 127.0.0.1")


async def test_our_own_page_may_call_and_others_may_not(client: Client) -> None:
    page = f"http://127.0.0.1:{client.house.page_port}"
    status, _, headers = await client.ask("OPTIONS", headers={"Origin": page})
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == page
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "Content-Type"
    data = json.dumps(RED).encode()
    status, _, headers = await client.ask(data=data, headers={"Origin": page})
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, page)
    status, _, headers = await client.ask(data=b"{", headers={"Origin": page})
    assert (status, headers["Access-Control-Allow-Origin"]) == (400, page)
    for other in ("http://evil.example", "http://127.0.0.1:1", "null", "http://[", "file://"):
        status, answer, headers = await client.ask(data=data, headers={"Origin": other})
        assert (status, answer["error"]["code"]) == (403, "forbidden_origin")
        assert "Access-Control-Allow-Origin" not in headers
        _, _, headers = await client.ask("OPTIONS", headers={"Origin": other})
        assert "Access-Control-Allow-Origin" not in headers


async def test_pages_that_are_named_may_call(make_house: MakeHouse) -> None:
    house = make_house(origins=["https://lights.example"])
    await house.start()
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        headers = {"Origin": "https://lights.example"}
        assert (await client.post(RED, headers=headers))[0] == 200


@pytest.mark.parametrize(
    ("page_port", "origin", "status"),
    [
        (80, "http://127.0.0.1", 200),
        (443, "https://127.0.0.1", 200),
        (80, "https://127.0.0.1", 403),
        (8888, "http://127.0.0.1", 403),
    ],
)
async def test_our_page_at_the_port_of_its_scheme_may_call(
    make_house: MakeHouse, page_port: int, origin: str, status: int
) -> None:
    house = make_house()
    house.page_port = page_port  # nothing listens there: the API only compares
    await house.start("api", "domain")
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        assert (await client.post(RED, headers={"Origin": origin}))[0] == status


async def test_without_the_domain_a_call_is_503_and_never_acts_later(
    make_house: MakeHouse,
) -> None:
    house = make_house(answer_s=2.0)
    await house.start()
    lantern = await house.lantern()
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        assert (await client.post(RED))[0] == 200
        await lantern.hears(b"\x20\x00\x03\xff\x00\x00")
        await house.stop("domain")
        body = {"method": "message", "params": {"command": "OFF"}}
        for _ in range(2):
            assert await client.refused(body) == (503, "unavailable")
        await house.start("domain")
        assert (await client.post({"method": "message", "params": {"command": "ON"}}))[0] == 200
    await lantern.hears(b"\x12\x00\x00")
    assert house.commanded() == [("COLOR", "ff0000"), ("ON", None)]
    await lantern.close()


async def test_without_the_broker_calls_are_503_and_work_again_with_it(
    make_house: MakeHouse, mosquitto: Part
) -> None:
    house = make_house(answer_s=2.0)
    await house.start()
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        assert (await client.post(RED))[0] == 200
        await asyncio.to_thread(mosquitto.kill)
        assert await client.refused(RED) == (503, "unavailable")
        status, answer, _ = await client.ask("GET")
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        await asyncio.to_thread(mosquitto.start)

        async def works() -> bool:
            return (await client.post(RED))[0] == 200

        await eventually(works)
