"""Somebody honest at each device port: what is said there is answered in the port's own protocol.

A connection alone proves nothing: the engine's proxy accepts it, whether or not anybody is behind.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest
from websockets.asyncio.client import connect

from patchbay.messages import encode
from patchbay.testing import eventually, until
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import GetBlendStatus, Status
from patchbay_lantern.simulator import Fleet
from patchbay_lantern.wire import page
from patchbay_locker.simulator import Board
from patchbay_mesh.client import MeshClient, Refused
from patchbay_mesh.wire import monitor
from tests.containers.composed import System

Visit = Callable[[System, int], Awaitable[None]]
"""Say something at this port and see that the answer is right; it raises if there is none."""

HOST: Final = "127.0.0.1"
ANSWER_TIMEOUT_S: Final = 20.0
NO_NODE: Final = 65_000
"""No mesh has so many."""


def order(port: int, command: str, value: str) -> None:
    """Tell all lanterns something, as the seed does with curl. Raises if it was not done."""
    body = {"method": "message", "params": {"command": command, "value": value}}
    request = urllib.request.Request(f"http://{HOST}:{port}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
        assert json.load(answer)["result"] == "ok"


async def deliver_a_code(system: System, code: str) -> None:
    """Have the operator rent a cell of a board that is new, until the board has the code."""
    board = Board("first", system.ports["locker"])
    assert (await board.report()).codes == ()
    async with system.bus("operator", "operators") as bus:
        await bus.wait_connected(ANSWER_TIMEOUT_S)
        topic = bus.topics.command("locker", "first", "assign")
        body = encode({"cell": 7, "minutes": 60, "code": code})
        answer = await bus.request(topic, body, timeout_s=ANSWER_TIMEOUT_S)
    assert b'"ok":true' in answer

    async def has_the_code() -> bool:
        await board.report()
        return [one.code for one in board.codes.values()] == [code]

    await eventually(has_the_code)
    board.disconnect()


async def _board(_system: System, port: int) -> None:
    board = Board("patient", port)
    await board.report(deadline_s=ANSWER_TIMEOUT_S)
    board.disconnect()


async def _chromebook(system: System, port: int) -> None:
    """It is answered nothing: its job has to be in the store, once more than before."""
    wanted = {"ClientName": "patient"}
    before = len(await asyncio.to_thread(system.documents, "jobs", wanted))
    await send(HOST, port, Job("patient", "Ada", "696969"))

    async def it_is_kept() -> bool:
        return len(await asyncio.to_thread(system.documents, "jobs", wanted)) == before + 1

    await eventually(it_is_kept, ANSWER_TIMEOUT_S)


async def _gui(_system: System, port: int) -> None:
    async with Gui(port) as gui:
        await gui.say(GetBlendStatus())
        assert await gui.hear(Status) == Status(0)


async def _lantern(system: System, port: int) -> None:
    """The first thing that a lantern hears is the present state, if ever one was said."""
    await _caller(system, system.ports["lantern-api"])
    async with Fleet(HOST, port, 1) as fleet:
        await until(lambda: fleet.lanterns[0].light.color == "12ab34", ANSWER_TIMEOUT_S)


async def _caller(_system: System, port: int) -> None:
    await asyncio.to_thread(order, port, "COLOR", "12ab34")


async def _browser(_system: System, port: int) -> None:
    """The page itself, and what its WebSocket says at last: how many lanterns there are."""
    address = f"http://{HOST}:{port}/"
    with await asyncio.to_thread(urllib.request.urlopen, address, None, ANSWER_TIMEOUT_S) as got:
        assert b"<html" in await asyncio.to_thread(got.read)
    async with asyncio.timeout(ANSWER_TIMEOUT_S), connect(f"ws://{HOST}:{port}") as socket:
        async for message in socket:
            assert isinstance(message, str)
            if any(isinstance(one, page.Lanterns) for one in page.Decoder().feed(message)):
                return
    raise ConnectionError("the page's WebSocket has closed and told no number")


async def _program(_system: System, port: int) -> None:
    """A node that there is not: the mesh's own answer, which it gives without its root."""
    mesh = MeshClient(HOST, port, ANSWER_TIMEOUT_S)
    with pytest.raises(Refused, match=r"^Node Not Found$"):
        await asyncio.to_thread(mesh.get, "GPS", NO_NODE)


async def _dashboard(_system: System, port: int) -> None:
    """A snapshot begins with what is connected."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S), connect(f"ws://{HOST}:{port}") as socket:
        async for message in socket:
            shown = monitor.Decoder().feed(message)
            if any(isinstance(one, monitor.ConnectionStatus) and one.socket for one in shown):
                return
    raise ConnectionError("the monitor has closed and shown nothing")


VISITS: Final[Mapping[str, Visit]] = {
    "allocator": _chromebook,
    "bartender": _gui,
    "lantern": _lantern,
    "lantern-api": _caller,
    "lantern-page": _browser,
    "locker": _board,
    "mesh": _program,
    "mesh-monitor": _dashboard,
}
"""By address name, as in `patchbay.services.Service.ports`: every one has to be here."""
