"""The HTTP API: each case its status and its answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from patchbay.testing import Part, eventually, until
from patchbay_lantern.wire.http import MAX_BODY

if TYPE_CHECKING:
    from conftest import MakeHouse

from tests.lantern_client import RED, Client


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
