"""The TLV edge, by real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

from patchbay.testing import PATIENCE_S, until
from patchbay_lantern.commands import COMMANDS, Light
from patchbay_lantern.edge.tlv import MAX_LATER
from patchbay_lantern.messages import SERVICE
from patchbay_lantern.wire.tlv import Decoder
from tests.lantern_house import Wire

if TYPE_CHECKING:
    from conftest import MakeHouse
    from tests.lantern_house import House

RED = b"\x20\x00\x03\xff\x00\x00"
GREEN = b"\x20\x00\x03\x00\xff\x00"
ON, OFF = b"\x12\x00\x00", b"\x13\x00\x00"


async def test_before_the_first_command_nothing_is_sent_at_connect(house: House) -> None:
    lantern = await house.lantern()
    await house.tell("OFF")
    await lantern.hears(OFF)
    await lantern.close()


async def test_a_lantern_that_connects_or_comes_back_gets_the_present_state(house: House) -> None:
    await house.tell("COLOR", "ff0000")
    lantern = await house.lantern()
    await lantern.hears(RED)
    await house.tell("ON")
    await lantern.hears(ON)
    await lantern.close()
    await house.tell("COLOR", "00ff00")
    await house.tell("OFF")
    back = await house.lantern()
    await back.hears(GREEN + OFF)
    await back.close()


async def test_a_lantern_that_connects_reads_on_and_then_the_colour(make_house: MakeHouse) -> None:
    """Lanterns in use take one command from each read, and ignore a colour while they are off."""
    house = make_house(send_pause_s=0.4)
    await house.start()
    await house.tell("COLOR", "ff0000")
    await house.tell("ON")
    lantern = await house.lantern()
    assert await lantern.reads() == ON
    assert await lantern.reads() == RED
    await lantern.close()
    await house.tell("OFF")
    dark = await house.lantern()
    assert await dark.reads() == RED
    assert await dark.reads() == OFF  # last: whatever a colour does to it, it ends up dark
    await dark.close()


async def test_a_command_that_comes_meanwhile_is_read_after_the_present_state(
    make_house: MakeHouse,
) -> None:
    house = make_house(send_pause_s=0.4)
    await house.start()
    await house.tell("COLOR", "ff0000")
    await house.tell("ON")
    lantern = await house.lantern()
    assert await lantern.reads() == ON
    await house.tell("COLOR", "00ff00")
    await house.tell("OFF")
    assert [await lantern.reads() for _ in range(3)] == [RED, GREEN, OFF]
    await lantern.close()


async def test_after_the_present_state_commands_are_sent_at_once_again(
    make_house: MakeHouse,
) -> None:
    """However close together they come: the first one waits, and the pause ends with it."""
    house = make_house(send_pause_s=1.0)
    await house.start()
    await house.tell("COLOR", "ff0000")
    lantern = await house.lantern()
    assert await lantern.reads() == RED
    (session,) = house.tlv._lanterns
    await house.tell("COLOR", "00ff00")
    assert session._timer is not None
    await lantern.hears(GREEN)
    assert session._timer is None
    await house.tell("ON")
    await lantern.hears(ON)
    await lantern.close()


async def test_of_many_commands_that_come_meanwhile_only_the_state_is_sent(
    make_house: MakeHouse,
) -> None:
    house = make_house(send_pause_s=2.0)
    await house.start()
    await house.tell("COLOR", "ff0000")
    await house.tell("ON")
    lantern = await house.lantern()
    assert await lantern.reads() == ON
    for number in range(MAX_LATER):  # of the state, COLOR waits
        await house.tell("COLOR", f"{number:06x}")
    assert await lantern.reads() == ON
    assert await lantern.reads() == b"\x20\x00\x03" + (MAX_LATER - 1).to_bytes(3, "big")
    await lantern.close()


async def test_the_present_state_at_connect_can_be_switched_off(make_house: MakeHouse) -> None:
    house = make_house(send_state=False)
    await house.start()
    await house.tell("COLOR", "ff0000")
    lantern = await house.lantern()
    await house.tell("ON")
    await lantern.hears(ON)
    await lantern.close()


async def test_every_lantern_gets_every_command_in_one_order(house: House) -> None:
    lanterns = [await house.lantern() for _ in range(10)]
    said = b""
    for number in range(30):
        await house.tell("COLOR", f"{number:06x}")
        said += b"\x20\x00\x03" + number.to_bytes(3, "big")
    for lantern in lanterns:
        await lantern.hears(said)
        await lantern.close()


async def test_one_command_is_one_send_that_is_never_cut(house: House) -> None:
    lantern = await house.lantern()
    for number in range(20):
        await house.tell("COLOR", f"{number:06x}")
        async with asyncio.timeout(PATIENCE_S):
            got = await lantern.reader.read(1000)
        assert got == b"\x20\x00\x03" + number.to_bytes(3, "big")
    await lantern.close()


async def test_several_edges_obey_together_and_are_counted_together(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    await house.start()
    first = await house.lantern()
    one = house.tlv
    house.port = 0
    await house.start("tlv-second")
    others = [await house.lantern(), await house.lantern()]
    assert house.tlv is not one
    await until(lambda: house.domain.census.lanterns == 3)
    answer = await house.tell("COLOR", "ff0000")
    assert answer["lanterns"] == 3
    for lantern in (first, *others):
        await lantern.hears(RED)
    await house.stop("tlv-second")
    await until(lambda: house.domain.census.lanterns == 1)
    await first.close()
    await until(lambda: house.domain.census.lanterns == 0)


async def test_a_command_that_the_edge_has_missed_is_made_good(house: House) -> None:
    lantern = await house.lantern()
    await house.tell("COLOR", "ff0000")
    await house.tell("ON")
    await lantern.hears(RED + ON)
    # What the domain says of its next command, the edge does not get; then it gets the state.
    topics = house.watcher.topics
    await until(lambda: house.state.get("rev") == 2)
    state = {**house.state, "rev": 7, "on": False, "color": "00ff00"}
    state["orders"] = [{"command": "COLOR", "value": "00ff00"}, {"command": "OFF", "value": None}]
    await house.watcher.publish(
        topics.state(SERVICE, "all"), json.dumps(state).encode(), retain=True
    )
    await lantern.hears(GREEN + OFF)
    await lantern.close()


async def test_a_lantern_that_never_reads_holds_nobody_up_and_is_dropped(
    make_house: MakeHouse,
) -> None:
    house = make_house(backlog_bytes=600, send_buffer_bytes=4096)
    await house.start()
    server = house.tlv.server
    assert server is not None
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", house.port))
        await until(lambda: server.connections == 1)
        reader = await house.lantern()
        number = 0
        while not server.dropped:
            await house.tell("COLOR", f"{number:06x}")
            await reader.hears(b"\x20\x00\x03" + number.to_bytes(3, "big"))
            number += 1
            assert number < 20_000
        assert server.connections == 1
        await reader.close()


async def test_a_lantern_that_reads_again_gets_the_present_state_and_not_what_it_missed(
    make_house: MakeHouse,
) -> None:
    house = make_house(send_buffer_bytes=4096)
    await house.start()
    server = house.tlv.server
    assert server is not None
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.connect(("127.0.0.1", house.port))
        slow.settimeout(PATIENCE_S)
        await until(lambda: server.connections == 1)
        (session,) = house.tlv._lanterns
        sent = 0
        while session._missed < 600:
            await house.tell("COLOR", f"{sent:06x}")
            sent += 1
            assert sent < 20_000
        await house.tell("ON")
        await house.tell("COLOR", "abcdef")
        decoder, light, got = Decoder(), Light(), 0
        while (light.on, light.color) != (True, "abcdef"):
            data = await asyncio.to_thread(slow.recv, 65_536)
            assert data, "it was disconnected"
            for frame in decoder.feed(data):
                order = COMMANDS.unpack(frame.type, frame.value)
                assert order is not None, "a command was cut"
                light = COMMANDS.obey(light, order)
                got += 1
        assert got < sent - 50
        await house.tell("COLOR", "000001")
        assert await asyncio.to_thread(slow.recv, 6) == b"\x20\x00\x03\x00\x00\x01"


async def test_what_a_lantern_says_is_dropped_and_too_much_of_it_ends_it(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_said_bytes=10_000)
    await house.start()
    chatty, quiet = await house.lantern(), await house.lantern()
    chatty.writer.write(b"GET / HTTP/1.1\r\n\r\n\x20\x00\x03")
    await house.tell("COLOR", "ff0000")
    await chatty.hears(RED)
    chatty.writer.write(b"x" * 100_000)
    assert await chatty.rest() == b""
    await house.tell("ON")
    await quiet.hears(RED + ON)
    for one in (chatty, quiet):
        await one.close()


async def test_one_lantern_too_many_waits_until_one_leaves(make_house: MakeHouse) -> None:
    house = make_house(max_connections=2)
    await house.start()
    first, second = await house.lantern(), await house.lantern()
    third = Wire(*await asyncio.open_connection("127.0.0.1", house.port))
    await until(lambda: house.tlv.server is not None and house.tlv.server.waiting == 1)
    await house.tell("ON")
    await first.hears(ON)
    await second.hears(ON)
    await first.close()
    await third.hears(ON)
    for one in (second, third):
        await one.close()


async def test_dead_lanterns_are_found_within_a_minute(house: House) -> None:
    lantern = await house.lantern()
    server = house.tlv.server
    assert server is not None
    (peer,) = server._peers
    assert peer._transport is not None
    sock = peer._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    interval_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    probes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert idle_s + interval_s * probes <= 60
    assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await lantern.close()


async def test_an_edge_that_starts_while_lanterns_shine_tells_them_how(house: House) -> None:
    await house.tell("COLOR", "ff0000")
    await house.tell("ON")
    await house.stop("tlv")
    await house.start("tlv")
    lantern = await house.lantern()
    await lantern.hears(ON + RED)
    await lantern.close()


async def test_lanterns_keep_their_connections_while_another_address_takes_all_it_can(
    make_house: MakeHouse,
) -> None:
    house = make_house(max_connections=60, max_per_address=20)
    await house.start()
    server = house.tlv.server
    assert server is not None
    lanterns = [
        Wire(*await asyncio.open_connection("127.0.0.1", house.port, local_addr=("127.0.0.3", 0)))
        for _ in range(10)
    ]
    await until(lambda: server.connections == 10)
    hostile = []
    try:
        for _ in range(1000):
            one = socket.socket()
            hostile.append(one)
            one.bind(("127.0.0.2", 0))
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", house.port))
        await until(lambda: server.evicted == 950)
        await house.tell("COLOR", "ff0000")
        for lantern in lanterns:
            await lantern.hears(RED)
        late = Wire(
            *await asyncio.open_connection("127.0.0.1", house.port, local_addr=("127.0.0.4", 0))
        )
        await late.hears(RED)
        for lantern in (*lanterns, late):
            await lantern.close()
    finally:
        for one in hostile:
            one.close()
