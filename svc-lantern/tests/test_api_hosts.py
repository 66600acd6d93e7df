"""By which names the API is asked: those that no other site can have (DNS rebinding)."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import MakeHouse

from tests.lantern_client import RED, Client, answered


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
