"""Many lanterns at once."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from patchbay.log import get_logger
from patchbay.sockets import allow_connections
from patchbay.testing import until
from tests.running import CLI

if TYPE_CHECKING:
    from conftest import MakeHouse

LANTERNS = 5000
COMMANDS = 5


async def test_five_thousand_lanterns_obey_and_a_deaf_one_holds_nobody_up(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    assert allow_connections(LANTERNS + 500, get_logger("test")) == LANTERNS + 500
    house = make_house()
    await house.start()
    server = house.tlv.server
    assert server is not None
    out = tmp_path / "fleet"
    command = [*CLI, "lantern", "simulate", str(LANTERNS), f"127.0.0.1:{house.port}"]
    fleet = fleet_of(command, out)
    try:
        await until(lambda: server.connections == LANTERNS)
        await until(lambda: house.domain.census.lanterns == LANTERNS)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", house.port))
            await until(lambda: server.connections == LANTERNS + 1)
            for number in range(COMMANDS):
                await command_them(house.api_port, number)
            last = f'"{COMMANDS - 1:06x}"'
            await until(lambda: last in out.read_text())
            assert server.dropped == 0
            later = await house.lantern()
            await later.hears(b"\x20\x00\x03" + (COMMANDS - 1).to_bytes(3, "big"))
            await later.close()
    finally:
        fleet.terminate()
        assert await asyncio.to_thread(fleet.wait, 30) == 0
    await until(lambda: server.connections == 0)


def fleet_of(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


async def command_them(port: int, number: int) -> None:
    params = {"command": "COLOR", "value": f"{number:06x}"}
    body = json.dumps({"method": "message", "params": params})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/", data=body) as response,
    ):
        assert response.status == 200
