"""The socket API byte for byte, with everything behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from patchbay.testing import PATIENCE_S, eventually, until
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.uart import Command, Frame, encode

if TYPE_CHECKING:
    from conftest import House

GPS5 = bytes.fromhex("02f001be9200")
GPS6 = bytes.fromhex("03f001bf9200")
ONE = bytes.fromhex("53475053060100 0502f001be9200")
ALL = bytes.fromhex("534750530602000502f001be9200000603f001bf9200")
NO_NODE = b"F\x0eNode Not Found"
NO_TYPE = b"F\x13Data Type Not Found"
NOT_READY = b"F\x10Serial Not Ready"
BAD = b"F\x0bBad Request"
UNKNOWN = b"F\x0fUnknown Command"


async def two_nodes(house: House) -> None:
    """Nodes 5 and 6 have reported where they are, and the API knows."""
    await house.start()
    await house.report(5, GPS5)
    await house.report(6, GPS6)
    await until(lambda: len(house.api.cache.nodes) == 2)


async def test_the_latest_value_of_one_node_in_both_orders(house: House) -> None:
    await two_nodes(house)
    assert await house.call(b"[GET]GPS\x00\x05") == ONE
    assert await house.call(b"[GET]\x00\x05GPS") == ONE


async def test_the_latest_values_of_all_nodes(house: House) -> None:
    await two_nodes(house)
    assert await house.call(b"[GET]GPS\x00\x00") == ALL
    assert await house.call(b"[GET]\x00\x00GPS") == ALL


async def test_what_is_not_there_is_said(house: House) -> None:
    await two_nodes(house)
    assert await house.call(b"[GET]GPS\x00\x07") == NO_NODE
    assert await house.call(b"[GET]TMP\x00\x05") == NO_TYPE
    assert await house.call(b"[GET]TMP\x00\x00") == NO_TYPE
    assert await house.call(b"XYZZY") == UNKNOWN
    assert await house.call(b"NIN") == BAD
    assert await house.call(b"[GET]GPS") == BAD


async def test_values_of_another_length_than_the_newest_are_left_out_of_all(house: House) -> None:
    await two_nodes(house)
    await house.report(6, b"\x01")
    await until(lambda: house.api.cache.latest(6, b"GPS") == b"\x01")
    assert await house.call(b"[GET]GPS\x00\x00") == b"SGPS\x01\x01\x00\x06\x01"


async def test_a_request_without_an_end_is_answered_after_a_moment_or_a_half_close(
    house: House,
) -> None:
    await house.start()
    assert await house.call(b"SEND-\x00\x05hi") == b"S"
    assert await house.call(b"SEND-\x00\x06ho", half_close=True) == b"S"
    await until(lambda: len(house.root.commands) == 2)
    assert house.root.commands == [Command(b"SEND-", 5, b"hi"), Command(b"SEND-", 6, b"ho")]


async def test_a_request_that_comes_byte_by_byte_is_one(house: House) -> None:
    house.replace(request_gap_s=1.0)
    await two_nodes(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for byte in b"[GET]GPS\x00\x05":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == ONE
    writer.close()


async def test_with_end_marks_several_requests_are_answered_in_order_on_one_connection(
    house: House,
) -> None:
    await two_nodes(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"[GET]GPS\x00\x05[E]SEND-\x00\x05hi[E]ACT-C[E][GET]XXX\x00\x05[E]")
    wanted = ONE + b"[E]S[E]S\x02[E]" + NO_TYPE + b"[E]"
    assert await asyncio.wait_for(reader.readexactly(len(wanted)), PATIENCE_S) == wanted
    writer.write(b"XYZZY[E]")
    assert await asyncio.wait_for(reader.readexactly(20), PATIENCE_S) == UNKNOWN + b"[E]"
    writer.write(b"[GET]GPS\x00\x05[E]")
    assert await asyncio.wait_for(reader.readexactly(len(ONE) + 3), PATIENCE_S) == ONE + b"[E]"
    writer.close()


async def test_commands_go_to_the_root_with_and_without_what_follows(house: House) -> None:
    await house.start()
    calls = [
        (b"NINFO", Command(b"NINFO")),
        (b"NINFO\x00\x05", Command(b"NINFO")),
        (b"RST-R", Command(b"RST-R")),
        (b"CLEAN\x00\x00", Command(b"CLEAN")),
        (b"SENDI", Command(b"SENDI")),
        (b"GETDF", Command(b"GETDF")),
        (b"STATE", Command(b"STATE")),
        (b"BCAST\x00\x00all", Command(b"BCAST", 0, b"all")),
        (b"SEND-\x00\x05a\nb", Command(b"SEND-", 5, b"a\nb")),
        (b"[REQ]\x00\x05yes", Command(b"SEND-", 5, b"<R>yes")),
        (b"[CMD]NINFO", Command(b"NINFO")),
        (b"[CMD]XYZZY\x00\x05what", Command(b"XYZZY\x00\x05what")),
        (b"[CMD]SEND-\x00\x05\x02hi", Command(b"SEND-", 5, b"hi")),
    ]
    for request, _ in calls:
        assert await house.call(request) == b"S"
    await until(lambda: len(house.root.commands) == len(calls))
    assert house.root.commands == [command for _, command in calls]


async def test_a_message_that_is_too_long_is_a_bad_request(house: House) -> None:
    await house.start()
    assert await house.call(b"SEND-\x00\x05" + b"x" * 256) == BAD
    assert await house.call(b"[REQ]\x00\x05" + b"x" * 253) == BAD
    assert await house.call(b"[REQ]\x00\x05" + b"x" * 252) == b"S"
    assert await house.call(b"SEND-\x00\x05" + b"x" * 255) == b"S"


async def test_without_a_port_or_its_edge_the_serial_is_not_ready(house: House) -> None:
    await house.start()
    house.root.unplug()
    await until(lambda: not house.uart.ready)
    assert await house.call(b"NINFO") == NOT_READY
    await house.stop("uart")
    assert await house.call(b"[CMD]NINFO") == NOT_READY


async def test_active_nodes_are_counted_and_listed(house: House) -> None:
    await two_nodes(house)
    assert await house.call(b"ACT-C") == b"S\x02"
    house.clock.now += 61
    await until(lambda: house.states.get("node-5", {}).get("status") == "away")
    await house.report(6, GPS6)
    await until(lambda: house.api.cache.active == 1)
    assert await house.call(b"ACT-C\x00\x00") == b"S\x01"
    answer = await house.call(b"NSTAT")
    assert answer[:1] == b"S"
    assert json.loads(answer[1:]) == {
        "node_amount": 2,
        "node_addr_list": [5, 6],
        "node_status_list": [0, 1],
    }
    assert await house.call(b"[GET]GPS\x00\x00") == b"SGPS\x06\x01\x00\x06" + GPS6
    assert await house.call(b"[GET]GPS\x00\x05") == ONE


async def test_an_api_that_starts_later_knows_what_was_known(house: House) -> None:
    await two_nodes(house)
    await house.stop("api")
    await house.start_api()
    await until(lambda: len(house.api.cache.nodes) == 2)
    assert await house.call(b"[GET]GPS\x00\x00") == ALL


async def test_a_node_that_was_heard_in_a_batch_is_known_too(house: House) -> None:
    await house.start()
    for number in range(100):
        await house.root.report(7, Value(b"CNT", bytes([number])))
    await until(lambda: 7 in house.api.cache.nodes)
    await until(lambda: house.api.cache.latest(7, b"CNT") == b"\x63")
    assert await house.call(b"[GET]CNT\x00\x07") == b"SCNT\x01\x01\x00\x07\x63"


async def listener(house: House, how: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    count = len(house.api.listeners)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"[syn]" + bytes([how]))
    assert await asyncio.wait_for(reader.readexactly(6), PATIENCE_S) == b"[ack]\x00"
    await until(lambda: len(house.api.listeners) == count + 1)
    return reader, writer


async def test_listeners_hear_what_is_not_handled_here_in_both_forms(house: House) -> None:
    await house.start()
    plain, plain_writer = await listener(house)
    counted, counted_writer = await listener(house, 1)
    frames = [
        (Frame(5, b"[M]", b"\x02hi"), b"\x00\x05[M]\x02hi"),
        (Frame(0, b"RST"), b"\x00\x00RST"),
        (Frame(5, b"<Q>", b"where?"), b"[REQ]\x00\x05where?"),
        (Frame(6, b"XYZ", b"\xff\xfe\xfa"), b"\x00\x06XYZ\xff\xfe\xfa"),
        (Frame(6, b"R"), b"\x00\x06R"),
    ]
    for frame, pushed in frames:
        await house.root.send(encode(frame))
        await house.root.report(5, Value(b"GPS", GPS5))  # is not for them
        assert await asyncio.wait_for(plain.read(1000), PATIENCE_S) == pushed
        size = len(pushed).to_bytes(2, "big")
        assert (
            await asyncio.wait_for(counted.readexactly(len(pushed) + 2), PATIENCE_S)
            == size + pushed
        )
    plain_writer.close()
    counted_writer.close()

    async def nobody_listens() -> bool:
        await house.root.say(5, b"anybody?")  # who has left is found when it is told something
        return not house.api.listeners

    await eventually(nobody_listens)


async def test_a_handshake_in_pieces_is_one(house: House) -> None:
    house.replace(request_gap_s=1.0)
    await house.start()
    for at in range(1, 6):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"[syn]\x00"[:at])
        await writer.drain()
        writer.write(b"[syn]\x00"[at:])
        assert await asyncio.wait_for(reader.readexactly(6), PATIENCE_S) == b"[ack]\x00"
        writer.close()


async def test_a_listener_that_says_nothing_is_not_closed_for_it(house: House) -> None:
    house.replace(idle_timeout_s=0.2)
    await house.start()
    reader, writer = await listener(house)
    _, silent = await asyncio.open_connection("127.0.0.1", house.port)
    await until(lambda: house.server.timed_out == 1)
    await house.root.say(5, b"hi")
    assert await asyncio.wait_for(reader.read(100), PATIENCE_S) == b"\x00\x05[M]\x02hi"
    writer.close()
    silent.close()


async def test_a_listener_that_has_said_all_hears_on(house: House) -> None:
    await house.start()
    house.server.limits = replace(house.server.limits, ended_grace_s=0)  # nobody else may
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"[syn]\x00")
    writer.write_eof()
    assert await asyncio.wait_for(reader.readexactly(6), PATIENCE_S) == b"[ack]\x00"
    assert await house.call(b"[GET]") == BAD
    await house.root.say(5, b"hi")
    assert await asyncio.wait_for(reader.read(100), PATIENCE_S) == b"\x00\x05[M]\x02hi"
    writer.close()


async def test_a_listener_that_does_not_read_is_dropped_and_the_others_hear_on(
    house: House,
) -> None:
    house.replace(listener_buffer_bytes=10_000)
    await house.start()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.connect(("127.0.0.1", house.port))
    slow.sendall(b"[syn]\x00")
    await until(lambda: len(house.api.listeners) == 1)
    reader, writer = await listener(house)
    heard = 0

    async def read() -> None:
        nonlocal heard
        while data := await reader.read(65_536):
            heard += len(data)

    reading = asyncio.create_task(read())
    sent = 0

    def keeps_up() -> bool:
        return heard > (sent - 500) * 256

    while house.server.dropped == 0:
        for _ in range(50):
            await house.root.say(5, b"x" * 250)
            sent += 1
        assert sent < 100_000
        await until(keeps_up)
    await until(lambda: heard == sent * 256)
    assert len(house.api.listeners) == 1
    reading.cancel()
    writer.close()
    slow.close()


async def test_what_is_for_the_monitor_is_said_on_the_bus(house: House) -> None:
    await house.start()
    assert await house.call(b"W-LOGrobot 3 is stuck") == b"S"
    await until(lambda: house.named("log"))
    assert house.named("log") == [{"text": "robot 3 is stuck"}]
    for said in (b'[{"id": 3}]', b'{"robots": [{"id": 3}]}', b'{"id": 3}'):
        house.states.pop("robots", None)
        assert await house.call(b"W-RBT" + said) == b"S"
        await until(lambda: "robots" in house.states)
        assert house.states["robots"] == {"robots": [{"id": 3}]}
    assert await house.call(b"W-RBT{nonsense") == BAD


async def test_while_the_broker_is_away_values_are_answered_and_commands_refused(
    house: House, mosquitto: object
) -> None:
    await two_nodes(house)
    mosquitto.kill()  # type: ignore[attr-defined]
    await until(lambda: not house.api._bus.connected)
    assert await house.call(b"[GET]GPS\x00\x05") == ONE
    assert await house.call(b"NINFO") == NOT_READY
    assert await house.call(b"W-LOGhello") == BAD


@pytest.mark.parametrize("request_", [b"[syn]\x02", b"[syn]"])
async def test_a_handshake_that_is_none_is_a_bad_request(house: House, request_: bytes) -> None:
    await house.start()
    assert await house.call(request_) == BAD


async def test_a_client_that_leaves_before_its_answer_disturbs_nobody(house: House) -> None:
    await house.start()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"SEND-\x00\x05hi")
        await writer.drain()
        writer.transport.abort()
    assert await house.call(b"NINFO") == b"S"
    assert house.server.crashes == 0


async def test_requests_that_are_piled_up_close_their_connection(house: House) -> None:
    await house.start()
    answer = await house.call(b"NINFO[E]" * 200)
    assert answer.count(b"S[E]") < 200
    assert await house.call(b"NINFO") == b"S"
