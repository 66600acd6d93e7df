"""The UART edge between a pseudo-terminal and the bus, with the domain behind it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from patchbay.cli.payload import readable
from patchbay.forms import BATCH_MSGPACK, EVENT_MSGPACK
from patchbay.messages import now, parse_time
from patchbay.testing import until
from patchbay_mesh.wire.content import Value, data_frame
from patchbay_mesh.wire.uart import Command, Frame, encode

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")
LINE = bytes.fromhex("ff00055b445d024750530602f001be92005241570 3fa05fa04fa00fe".replace(" ", ""))


def unpacked(house: House, name: str) -> list[dict[str, Any]]:
    """The events of this name as another MessagePack reads them."""
    found = []
    for message in house.events:
        if message.content_type == EVENT_MSGPACK and message.topic.endswith(f"/event/{name}"):
            found.append(msgpack.unpackb(message.payload))
        if message.content_type == BATCH_MSGPACK:
            batch = msgpack.unpackb(message.payload)
            found += [one for one in batch if one["type"].endswith(f".{name}")]
    return found


async def test_what_a_node_reports_is_messagepack_on_the_bus_and_is_in_the_store(
    house: House,
) -> None:
    await house.start()
    before = now()
    await house.root.send(LINE)
    readings = await house.documents("readings", 2)
    assert [(one["node"], one["type"], bytes(one["data"])) for one in readings] == [
        (5, "GPS", GPS),
        (5, "RAW", b"\xff\xfe\xfa"),
    ]
    await until(lambda: unpacked(house, "data"))
    (event,) = unpacked(house, "data")
    assert event["specversion"] == "1.0"
    assert event["type"] == "patchbay.mesh.data"
    assert event["source"] == "mesh-uart-test"
    assert event["subject"] == "node-5"
    assert event["sequence"] == 1
    assert event["id"] == f"{event['epoch']}/000000000001"
    assert event["data"] == {
        "node": 5,
        "values": [{"type": "GPS", "data": GPS}, {"type": "RAW", "data": b"\xff\xfe\xfa"}],
    }
    captured = parse_time(event["time"])
    assert before <= captured <= now()
    assert {one["at"] for one in readings} == {captured}
    (message,) = [one for one in house.events if one.topic.endswith("/event/data")]
    assert message.topic == "patchbay/mesh/node-5/event/data"


async def test_watch_shows_it_readable(house: House) -> None:
    await house.start()
    await house.root.send(LINE)
    await until(lambda: house.events)
    shown = json.loads(readable(house.events[0].payload, house.events[0].content_type))
    assert shown["data"]["values"] == [
        {"type": "GPS", "data": "02f001be9200"},
        {"type": "RAW", "data": "fffefa"},
    ]


async def test_many_at_once_travel_as_messagepack_batches(house: House) -> None:
    await house.start()
    lines = [encode(data_frame(5, [Value(b"CNT", number.to_bytes(2))])) for number in range(200)]
    await house.root.send(b"".join(lines))
    readings = await house.documents("readings", 200)
    assert [int.from_bytes(one["data"]) for one in readings] == list(range(200))
    await until(lambda: len(unpacked(house, "data")) == 200)
    batches = [one for one in house.events if one.content_type == BATCH_MSGPACK]
    assert batches
    assert {one.topic for one in batches} == {"patchbay/mesh/mesh-uart-test/event/batch"}
    assert [one["sequence"] for one in unpacked(house, "data")] == list(range(1, 201))


async def test_messages_of_any_type_are_passed_on_and_kept(house: House) -> None:
    await house.start()
    frames = [
        Frame(5, b"[M]", b"\x02hi"),
        Frame(5, b"<Q>", b"where"),
        Frame(9, b"\xff\x00", b""),
    ]
    for frame in frames:
        await house.root.send(encode(frame))
    kept = await house.documents("messages", 3)
    assert [(one["node"], one["type"], bytes(one["payload"])) for one in kept] == [
        (5, "[M]", b"\x02hi"),
        (5, "<Q>", b"where"),
        (9, "\xff\x00", b""),
    ]
    await until(lambda: len(unpacked(house, "message")) == 3)
    assert unpacked(house, "message")[0]["data"] == {
        "node": 5,
        "type": "[M]",
        "payload": b"\x02hi",
    }


async def test_what_does_not_fit_its_type_is_set_aside_and_the_line_goes_on(house: House) -> None:
    await house.start()
    letters: list[dict[str, Any]] = []
    house.watcher.listen("patchbay/dead/mesh", lambda one: letters.append(json.loads(one.payload)))
    await house.root.send(encode(Frame(5, b"[D]", b"\x02GPS\x06")) + LINE)
    await house.documents("readings", 2)
    await until(lambda: letters)
    assert letters[0]["hex"] == "00055b445d0247505306"
    assert "[D] ends within a value" in letters[0]["reason"]
    assert house.uart.bad_content == 1
    assert len(await house.documents("dead", 1)) == 1


async def test_boot_logs_are_counted(house: House) -> None:
    await house.start()
    before = house.uart.skipped
    await house.root.send(b"I (642) mesh: up\r\n" + LINE)
    await until(lambda: house.uart.frames == 1)
    assert house.uart.skipped - before == 18


async def test_of_a_frame_that_began_before_the_port_was_opened_nothing_counts_but_its_bytes(
    house: House,
) -> None:
    await house.watch()
    house.root.plug()
    await house.start_domain()
    for cut in (1, 9, len(LINE) - 1):
        frames = data_frame(5, [Value(b"CNT", b"\x01")]), data_frame(5, [Value(b"GPS", GPS)])
        await house.root.send(encode(frames[0]) + LINE[:cut])
        await house.start_uart()
        await until(lambda: house.uart.ready)
        await house.root.send(LINE[cut:] + encode(frames[1]))
        await until(lambda: house.uart.frames)
        assert (house.uart.frames, house.uart.dropped) == (1, 0)
        assert house.uart.skipped == len(LINE) - cut
        await until(lambda: house.outbox.waiting == 0)
        await house.stop("uart")
    readings = await house.documents("readings", 3)
    assert [(one["type"], one["data"]) for one in readings] == [("GPS", GPS)] * 3


async def test_a_frame_that_is_cut_off_by_an_unplug_is_counted(house: House) -> None:
    await house.start()
    before = house.uart.skipped
    await house.root.send(b"#" + LINE[:9])
    await until(lambda: house.uart.skipped == before + 1)
    house.root.unplug()
    await until(lambda: house.uart.dropped == 1)
    house.root.plug()
    await until(lambda: house.uart.ready)
    await house.root.send(LINE)
    await until(lambda: house.uart.frames == 1)
    assert house.uart.dropped == 1


async def test_commands_reach_the_root_byte_for_byte(house: House) -> None:
    await house.start()
    assert (await house.ask("root", "send", command="SEND-", node=5, text="hi"))["bytes"] == 11
    await house.ask("root", "send", command="SEND-", node=6, hex="0a0b")
    await house.ask("root", "send", command="BCAST", text="all")
    await house.ask("root", "send", command="NINFO")
    await house.ask("root", "raw", hex=b"XYZZY!".hex())
    await until(lambda: len(house.root.commands) == 5)
    assert house.root.commands == [
        Command(b"SEND-", 5, b"hi"),
        Command(b"SEND-", 6, b"\x0a\x0b"),
        Command(b"BCAST", 0, b"all"),
        Command(b"NINFO"),
        Command(b"XYZZY!"),
    ]


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("send", {"command": "NOPE-"}, "bad_command"),
        ("send", {"command": "SEND-", "text": "hi"}, "bad_command"),
        ("send", {"command": "SEND-", "node": 5, "text": "x" * 256}, "bad_command"),
        ("send", {"command": "SEND-", "node": 5, "text": "a", "hex": "61"}, "bad_command"),
        ("send", {"command": "NINFO", "node": 5}, "bad_command"),
        ("send", {"command": "SEND-", "node": 5, "hex": "0"}, "bad_hex"),
        ("send", {"command": "SEND-", "node": 70_000, "text": "x"}, "bad_request"),
        ("raw", {"hex": "xyz"}, "bad_hex"),
        ("raw", {}, "bad_request"),
        ("nonsense", {}, "unknown_command"),
    ],
)
async def test_nonsense_for_the_root_is_refused_with_a_code(
    house: House, name: str, body: dict[str, Any], code: str
) -> None:
    await house.start()
    assert await house.refusal("root", name, **body) == code
    assert house.root.commands == []


async def test_a_command_that_waited_for_the_one_before_it_too_long_is_not_sent(
    house: House,
) -> None:
    house.replace(write_timeout_s=0.6, command_timeout_s=0.3)
    await house.start()
    house.root._loop.remove_reader(house.root._ends[0])  # type: ignore[index]
    first = house.ask("root", "raw", hex="41" * 100_000)
    answers = await asyncio.gather(first, house.ask("root", "raw", hex="42" * 5))
    codes = [answer["error"]["code"] for answer in answers]
    assert codes == ["outcome_unknown", "too_late"]  # a part of the first one is out


async def test_a_domain_that_saw_the_edge_die_does_not_keep_the_root_offline(house: House) -> None:
    await house.start()
    await until(lambda: house.statuses.get("root") == "online")
    house.said.clear()
    await house.watcher.publish("patchbay/status/mesh-uart-old", b"offline", retain=True)
    await until(lambda: len(house.said) == 2)
    assert house.said == [("root", "offline"), ("root", "online")]


async def test_an_edge_that_stops_says_that_the_root_is_offline(house: House) -> None:
    await house.start()
    await until(lambda: house.statuses.get("root") == "online")
    await house.stop("uart")
    await until(lambda: house.statuses["root"] == "offline")


async def test_a_full_outbox_gives_up_the_oldest_data_and_no_message(house: House) -> None:
    await house.watch()
    house.root.plug()
    await house.start_uart(max_rows=2000)
    await until(lambda: house.uart.ready)
    await house.root.say(5, b"keep me")
    for first in range(0, 3000, 100):
        lines = [
            encode(data_frame(5, [Value(b"CNT", number.to_bytes(2))]))
            for number in range(first, first + 100)
        ]
        await house.root.send(b"".join(lines))
    await until(lambda: house.uart.frames == 3001)
    assert house.outbox.shed >= 1000
    assert house.uart.refused == 0
    await house.start_domain()
    await until(lambda: house.outbox.waiting == 0)
    readings = await house.documents("readings", 3000 - house.outbox.shed)
    numbers = sorted(int.from_bytes(one["data"]) for one in readings)
    assert numbers == list(range(house.outbox.shed, 3000))
    (message,) = await house.documents("messages", 1)
    assert bytes(message["payload"]) == b"\x07keep me"
