"""The page's edge, by a WebSocket client and plain requests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from patchbay.testing import PATIENCE_S, Part, until
from patchbay_lantern.wire.page import Command, Decoder, Frame, Lanterns

if TYPE_CHECKING:
    from conftest import MakeHouse
    from tests.lantern_house import House

RED, ON = Command("COLOR", "ff0000"), Command("ON")


class Browser:
    """What a browser's WebSocket hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._number: Lanterns | None = None

    async def next(self) -> Frame:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            (frame,) = Decoder().feed(str(await self.connection.recv(decode=True)))
        return frame

    async def hears(self, *frames: Frame) -> None:
        """The next messages must be these; that the number is said again does not count."""
        for frame in frames:
            while (heard := await self.next()) == self._number:
                pass
            assert heard == frame
            if isinstance(heard, Lanterns):
                self._number = heard

    async def hears_in_time(self, frame: Frame) -> None:
        """This comes sooner or later."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.next() != frame:
                pass
        if isinstance(frame, Lanterns):
            self._number = frame


@asynccontextmanager
async def browser(house: House, path: str = "/ws") -> AsyncIterator[Browser]:
    async with connect(f"ws://127.0.0.1:{house.page_port}{path}") as connection:
        yield Browser(connection)


async def settled(house: House) -> None:
    await until(lambda: house.page._told is not None)


async def test_all_browsers_hear_each_command_and_a_new_one_the_present_state(
    house: House,
) -> None:
    await settled(house)
    async with browser(house) as one, browser(house, "/") as other:
        for each in (one, other):
            await each.hears(Lanterns(0))
        await house.tell("COLOR", "ff0000")
        await house.tell("ON")
        for each in (one, other):
            await each.hears(RED, ON)
        async with browser(house) as new:
            await new.hears(RED, ON, Lanterns(0))


async def test_the_number_of_lanterns_follows(house: House) -> None:
    await settled(house)
    async with browser(house) as one:
        await one.hears(Lanterns(0))
        lantern = await house.lantern()
        await one.hears(Lanterns(1))
        await lantern.close()
        await one.hears(Lanterns(0))


async def test_the_number_is_told_again_though_nothing_happens(house: House) -> None:
    await settled(house)
    async with browser(house) as one:
        assert [await one.next(), await one.next()] == [Lanterns(0), Lanterns(0)]


async def test_browsers_hear_that_the_bus_is_away_and_what_they_missed(
    house: House, mosquitto: Part
) -> None:
    await settled(house)
    async with browser(house) as one:
        await one.hears(Lanterns(0))
        await asyncio.to_thread(mosquitto.kill)
        await one.hears(Lanterns(None))
        await asyncio.to_thread(mosquitto.start)
        await one.hears_in_time(Lanterns(0))
        await until(lambda: house.domain.bus.online)
        await house.tell("COLOR", "ff0000")
        await one.hears_in_time(RED)


async def test_what_browsers_say_is_ignored(house: House) -> None:
    await settled(house)
    async with browser(house) as one:
        await one.hears(Lanterns(0))
        for message in ("", "{", "null", '{"command": "OFF"}', "[" * 4000, b"\x00\xff"):
            await one.connection.send(message)
        await house.tell("ON")
        await one.hears(ON)
        assert house.commanded() == [("ON", None)]


async def test_too_long_a_message_and_text_that_is_none_close_with_their_codes(
    house: House,
) -> None:
    await settled(house)
    async with browser(house) as quiet:
        await quiet.hears(Lanterns(0))
        for code, message in ((1009, b"x" * 5000), (1007, b"\xff")):
            async with browser(house) as loud:
                await loud.connection.send(message, text=True)
                async with asyncio.timeout(PATIENCE_S):
                    await loud.connection.wait_closed()
                assert loud.connection.close_code == code
        await house.tell("ON")
        await quiet.hears(ON)


async def test_one_browser_too_many_is_refused(house: House) -> None:
    async with browser(house), browser(house), browser(house), browser(house):
        with pytest.raises(InvalidStatus) as caught:
            async with browser(house):
                pass
        assert caught.value.response.status_code == 503


async def test_the_page_is_whole_and_asks_nobody_else(house: House) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{house.page_port}") as session:
        texts = {}
        for path, kind in (
            ("/", "text/html; charset=utf-8"),
            ("/page.css", "text/css; charset=utf-8"),
            ("/page.js", "text/javascript; charset=utf-8"),
            ("/icon.svg", "image/svg+xml"),
        ):
            async with session.get(path) as response:
                assert (response.status, response.headers["Content-Type"]) == (200, kind)
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                texts[path] = await response.text()
        async with session.get("/other") as response:
            assert response.status == 404
    whole = "".join(texts.values()).replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in whole
    assert "https://" not in whole
    config = texts["/"].partition('id="config" type="application/json">')[2].partition("<")[0]
    assert json.loads(config) == {
        "api": None,
        "apiPort": house.api_port,
        "silenceMs": 15_000,
        "commands": [
            {"name": "ON", "label": "On", "form": "", "sets": "power"},
            {"name": "OFF", "label": "Off", "form": "", "sets": "power"},
            {"name": "COLOR", "label": "Colour", "form": "color", "sets": "color"},
        ],
    }


async def test_a_name_that_was_made_to_lead_here_is_shown_no_page_and_hears_nothing(
    make_house: MakeHouse,
) -> None:
    house = make_house(hosts=["lights.example"])
    await house.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{house.page_port}") as session:
        for host, status in (
            ("evil.example", 421),
            (f"EVIL.example:{house.page_port}", 421),
            ("Lights.Example", 200),
            (f"{socket.gethostname()}:{house.page_port}", 200),
            (f"[::1]:{house.page_port}", 200),
            ("lantern-page", 200),
        ):
            for path in ("/", "/page.js"):
                async with session.get(path, headers={"Host": host}) as response:
                    assert response.status == status
            if status == 421:
                with pytest.raises(InvalidStatus) as caught:
                    await connect(
                        f"ws://127.0.0.1:{house.page_port}/ws",
                        additional_headers={"Host": host, "Origin": f"http://{host}"},
                    )
                assert caught.value.response.status_code == 421


async def test_the_api_of_the_page_can_be_named(make_house: MakeHouse) -> None:
    house = make_house(api_url="https://lights.example")
    await house.start()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{house.page_port}/") as response,
    ):
        assert '"api":"https://lights.example"' in await response.text()
