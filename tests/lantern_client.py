"""Who asks the HTTP API of a house, as a program does and by the byte."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from patchbay.testing import PATIENCE_S

if TYPE_CHECKING:
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
