"""Fleets of lanterns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from patchbay.services import discover
from patchbay.settings import Config
from patchbay.testing import until
from patchbay_lantern.messages import Order
from patchbay_lantern.simulator import Fleet, run

if TYPE_CHECKING:
    from conftest import MakeHouse
    from tests.lantern_house import House


async def test_a_fleet_obeys_says_when_all_have_and_comes_back(house: House) -> None:
    obeyed: list[Order] = []
    server = house.tlv.server
    assert server is not None
    fleet = Fleet("127.0.0.1", house.port, 300, all_obeyed=lambda order, *_: obeyed.append(order))
    async with fleet:
        await until(lambda: server.connections == 300)
        await house.tell("COLOR", "ff0000")
        await until(lambda: obeyed == [Order("COLOR", "ff0000")])
        await house.stop("tlv")
        await until(lambda: fleet.connected == 0)
        await house.start("tlv")
        await until(lambda: fleet.connected == 300)
        await house.tell("ON")
        await until(lambda: obeyed[-1] == Order("ON"))
        assert all(one.light.on and one.light.color == "ff0000" for one in fleet.lanterns)
    server = house.tlv.server
    assert server is not None
    await until(lambda: server.connections == 0)


async def test_lanterns_that_are_commands_apart_are_counted_by_command() -> None:
    obeyed: list[Order] = []
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    red, off = bytes.fromhex("200003ff0000"), bytes.fromhex("130000")
    async with Fleet(
        "127.0.0.1", port, 2, all_obeyed=lambda order, *_: obeyed.append(order)
    ) as two:
        await until(lambda: len(writers) == 2)
        for number, writer in enumerate(writers, 1):
            assert obeyed == []
            writer.write(red + off)
            await until(lambda count=number: sum(one.obeyed for one in two.lanterns) == 2 * count)
        assert obeyed == [Order("COLOR", "ff0000"), Order("OFF")]
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_the_demo_has_three_lanterns(make_house: MakeHouse) -> None:
    house = make_house()
    await house.start()
    environ = {"PATCHBAY_LANTERN__PORT": str(house.port)}
    stop = asyncio.Event()
    demo = asyncio.create_task(run(Config.read(None, environ, discover()), stop))
    await until(lambda: house.domain.census.lanterns == 3)
    stop.set()
    await demo
    await until(lambda: house.domain.census.lanterns == 0)
