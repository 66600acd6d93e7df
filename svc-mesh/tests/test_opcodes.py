"""Today's firmware and dashboard: opcodes of one byte, and the whole list each time."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect

from patchbay.testing import PATIENCE_S, until
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.wire.content import Data, Members, Passed, Value
from patchbay_mesh.wire.opcodes import Opcodes
from patchbay_mesh.wire.uart import Decoder, Frame, WireError, encode

if TYPE_CHECKING:
    from conftest import House

UUID = bytes(range(16))
PLACE = struct.pack("<dd", 38.5415, -121.775)
GPS = bytes.fromhex("02f001be9200")


def parse(content: str) -> Any:
    """What a frame with this content means, by the bytes on the line."""
    (frame,) = Decoder(0xFF, 1).feed(encode_content(bytes.fromhex(content)))
    return Opcodes(MeshSettings().data_ids).parse(frame)


def encode_content(content: bytes) -> bytes:
    node = int.from_bytes(content[:2], "big")
    return encode(Frame(node, content[2:3], content[3:]), 0xFF)


def test_frames_of_one_byte_opcodes_mean_what_the_firmware_says() -> None:
    assert parse("0000 01 02 0005" + UUID.hex() + "0006" + UUID.hex()) == Members(
        ((5, UUID), (6, UUID))
    )
    assert parse("0005 02" + UUID.hex()) == Members(((5, UUID),))
    assert parse("0000 03") == Passed(Frame(0, b"\x03"), restarted=True)
    assert parse("0000 04 01 0005 0006") == Passed(Frame(0, b"\x04", bytes.fromhex("0100050006")))
    assert parse("0005 05" + PLACE.hex()) == Data(5, (Value(b"GPS", PLACE),))
    assert parse("0005 44 02 00 07 01" + GPS.hex()) == Data(
        5, (Value(b"SEQ", b"\x07"), Value(b"GPS", GPS))
    )
    assert parse("0005 41") == Passed(Frame(5, b"A"))


@pytest.mark.parametrize(
    "content",
    ["0005 44", "0005 44 01", "0005 44 01 09 00", "0005 44 01 01 02f0", "0005 44 00 00", "0005 05",
     "0005 02 00", "0000 01", "0000 01 01 0005"],
)  # fmt: skip
def test_what_does_not_fit_its_opcode_is_refused(content: str) -> None:
    with pytest.raises(WireError):
        parse(content)


def test_ids_of_data_are_checked_where_they_are_set() -> None:
    for wrong in (["256:GPS:6"], ["1:GPS:256"], ["1:GPS:6", "01:CNT:1"]):
        with pytest.raises(ValueError, match="data_ids"):
            MeshSettings(data_ids=wrong)


class Board:
    """What one dashboard of v2 has been sent."""

    def __init__(self) -> None:
        self.lists: list[dict[str, Any]] = []

    @property
    def nodes(self) -> dict[int, dict[str, Any]]:
        return {one["address"]: one for one in self.lists[-1]["nodes"]} if self.lists else {}

    def status(self, node: int) -> str:
        return str(self.nodes.get(node, {}).get("status"))


@asynccontextmanager
async def dashboard(house: House) -> AsyncIterator[Board]:
    async with connect(f"ws://127.0.0.1:{house.monitor_port}/", proxy=None) as connection:
        board = Board()

        async def read() -> None:
            async for message in connection:
                board.lists.append(json.loads(message))

        reading = asyncio.create_task(read())
        yield board
        reading.cancel()


async def todays(house: House) -> None:
    house.replace(types="opcodes", escape_xor=0xFF, monitor_format="v2", monitor_interval_s=0.02)
    await house.start()
    await house.start_monitor()


async def say(house: House, content: str) -> None:
    await house.root.send(encode_content(bytes.fromhex(content)))


async def test_frames_of_todays_firmware_reach_todays_dashboard_as_the_whole_list(
    house: House,
) -> None:
    await todays(house)
    async with dashboard(house) as board:
        await until(lambda: board.lists)
        assert board.lists == [{"nodes": [], "direct_forwarding_paths": []}]
        await say(house, "0000 01 02 0005" + UUID.hex() + "0006" + UUID[::-1].hex())
        await until(lambda: board.status(5) == board.status(6) == "Active")
        await say(house, "0005 44 02 00 07 01" + GPS.hex())
        await say(house, "0006 05" + PLACE.hex())
        await until(lambda: board.nodes[5]["data"] and board.nodes[6]["gps"])
        assert board.lists[-1] == {
            "nodes": [
                {
                    "address": 5,
                    "status": "Active",
                    "uuid": UUID.hex(),
                    "gps": {"lat": 37.566, "lon": 126.978},
                    "data": {"00": ["07"], "01": [GPS.hex()]},
                },
                {
                    "address": 6,
                    "status": "Active",
                    "uuid": UUID[::-1].hex(),
                    "gps": {"lat": 38.5415, "lon": -121.775},
                    "data": {"01": [PLACE.hex()]},
                },
            ],
            "direct_forwarding_paths": [],
        }
        assert await house.call(b"[GET]GPS\x00\x05") == b"SGPS\x06\x01\x00\x05" + GPS


async def test_a_root_that_restarts_makes_nodes_idle_and_those_that_stay_away_disconnect(
    house: House,
) -> None:
    await todays(house)
    house.monitor.list._idle_s = 0.5  # type: ignore[union-attr]
    async with dashboard(house) as board:
        await say(house, "0000 01 02 0005" + UUID.hex() + "0006" + UUID.hex())
        await until(lambda: board.status(5) == board.status(6) == "Active")
        await say(house, "0000 03")
        await until(lambda: board.status(6) == "Disconnect")
        seen = [
            one["status"] for said in board.lists for one in said["nodes"] if one["address"] == 6
        ]
        assert seen.index("Active") < seen.index("Idle") < seen.index("Disconnect")
        assert house.named("left")[0]["reason"] == "root_restarted"
        await say(house, "0005 41")
        await until(lambda: board.status(5) == "Active")
        assert (await house.ask("node-6", "forget"))["known"]
        await until(lambda: list(board.nodes) == [5])


async def test_who_listens_gets_the_opcodes_as_they_came(house: House) -> None:
    await todays(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"[syn]\x01")
    assert await asyncio.wait_for(reader.readexactly(6), PATIENCE_S) == b"[ack]\x00"
    for content in ("0000 03", "0000 04 01 0005 0006", "0005 52 aabb"):
        await say(house, content)
        raw = bytes.fromhex(content)
        wanted = len(raw).to_bytes(2, "big") + raw
        assert await asyncio.wait_for(reader.readexactly(len(wanted)), PATIENCE_S) == wanted
    writer.close()


async def test_a_short_frame_restarts_nothing_where_types_have_three_letters(house: House) -> None:
    await house.start()
    await house.report(5)
    await house.root.send(encode(Frame(0, b"\x03")))
    await house.documents("messages", 1)
    await house.report(5)
    assert house.named("left") == []
