"""A new command is one entry of the table: then it works everywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
from websockets.asyncio.client import connect

from patchbay.testing import Part, pub, until
from patchbay_lantern.commands import KINDS, Byte, Kind, Registry

if TYPE_CHECKING:
    from conftest import MakeHouse

BRIGHTNESS = Kind("BRIGHTNESS", 0x21, Byte(), sets="brightness", label="Brightness")


async def test_one_entry_works_on_wire_api_page_and_bus(
    make_house: MakeHouse, mosquitto: Part
) -> None:
    house = make_house(Registry([*KINDS, BRIGHTNESS]))
    await house.start()
    await until(lambda: house.page._told is not None)
    lantern = await house.lantern()
    async with (
        aiohttp.ClientSession() as session,
        connect(f"ws://127.0.0.1:{house.page_port}/ws") as browser,
    ):
        # API
        params = {"command": "BRIGHTNESS", "value": 128}
        body = json.dumps({"method": "message", "params": params})
        async with session.post(f"http://127.0.0.1:{house.api_port}/", data=body) as response:
            answer = await response.json()
            assert (response.status, answer["value"]) == (200, "128")
        # wire
        await lantern.hears(b"\x21\x00\x01\x80")
        # page
        message = ""
        while "BRIGHTNESS" not in message:
            message = str(await browser.recv(decode=True))
        assert json.loads(message) == {"command": "BRIGHTNESS", "value": "128"}
        async with session.get(f"http://127.0.0.1:{house.page_port}/") as response:
            text = await response.text()
            assert '{"name":"BRIGHTNESS","label":"Brightness","form":"range"' in text
        # bus
        pub(mosquitto, "patchbay/lantern/all/cmd/set", '{"command": "BRIGHTNESS", "value": 7}')
        await lantern.hears(b"\x21\x00\x01\x07")
        await house.tell("ON")
        await lantern.hears(b"\x12\x00\x00")
    # and who comes later gets it with the present state
    later = await house.lantern()
    await later.hears(b"\x12\x00\x00\x21\x00\x01\x07")
    for one in (lantern, later):
        await one.close()
