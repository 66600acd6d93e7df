"""The port of the root: absent, unplugged under load, plugged again, and of other kinds."""

from __future__ import annotations

import asyncio
import itertools
import os
import termios
from typing import TYPE_CHECKING, Any

import pytest
import serial

from patchbay.testing import until
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.uart import Command, Frame

if TYPE_CHECKING:
    from conftest import House


TWO_VALUES = bytes.fromhex("ff00055b445d024750530602f001be920052415703fa05fa04fa00fe")
"""A frame of a node that reports two."""


async def test_a_port_that_is_absent_is_waited_for(house: House) -> None:
    await house.watch()
    await house.start_uart()
    await until(lambda: house.statuses.get("root") == "offline")
    assert await house.refusal("root", "send", command="NINFO") == "serial_not_ready"
    house.root.plug()
    await until(lambda: house.statuses.get("root") == "online")
    assert (await house.ask("root", "send", command="NINFO"))["ok"]
    await until(lambda: house.root.commands == [Command(b"NINFO")])


async def test_an_adapter_that_is_pulled_out_while_it_is_set_up_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial_for_url, set_blocking = serial.serial_for_url, os.set_blocking
    pulled = ["opened", "used"]

    def opens(*args: Any, **more: Any) -> Any:
        if len(pulled) == 2:
            pulled.pop()
            raise termios.error(5, "Input/output error")
        return serial_for_url(*args, **more)

    def uses(descriptor: int, blocking: bool) -> None:
        if len(pulled) == 1:
            pulled.pop()
            raise OSError(5, "Input/output error")
        set_blocking(descriptor, blocking)

    monkeypatch.setattr(serial, "serial_for_url", opens)
    monkeypatch.setattr(os, "set_blocking", uses)
    await house.start()
    assert pulled == []
    await house.report(5)


async def test_a_port_that_is_unplugged_under_load_and_plugged_again_goes_on(
    house: House,
) -> None:
    await house.start()
    sent = 0

    async def load() -> None:
        nonlocal sent
        while True:
            try:
                await house.root.report(5, Value(b"CNT", sent.to_bytes(4)))
                sent += 1
            except OSError:
                await asyncio.sleep(0.01)
            if sent % 20 == 0:
                await asyncio.sleep(0.005)

    loading = asyncio.create_task(load())
    try:
        for round in range(3):
            taken = house.uart.frames
            await until(lambda taken=taken: house.uart.frames > taken + 100)  # type: ignore[misc]
            house.root.unplug()
            await until(lambda: not house.uart.ready)
            await until(lambda: house.statuses["root"] == "offline")
            house.root.plug()
            await until(lambda: house.statuses["root"] == "online")
            assert house.uart.line is not None
            assert house.uart.line.losses == round + 1
    finally:
        loading.cancel()
    await until(lambda: house.outbox.waiting == 0)
    readings = await house.documents("readings", house.uart.frames)
    numbers = [int.from_bytes(one["data"]) for one in readings]
    assert numbers == sorted(set(numbers))


async def test_commands_are_sent_or_refused_while_the_port_comes_and_goes(house: House) -> None:
    await house.start()
    said: list[bytes] = []
    refused: list[str] = []
    numbers = itertools.count(10_000)

    async def ask() -> None:
        while not refused:
            number = str(next(numbers)).encode()  # digits: an end of line would make two of it
            answer = await house.ask("root", "raw", hex=number.hex())
            if answer["ok"]:
                said.append(number)
            else:
                refused.append(answer["error"]["code"])

    asking = [asyncio.create_task(ask()) for _ in range(20)]
    await until(lambda: len(house.root.commands) > 20)
    house.root.unplug()
    await asyncio.gather(*asking)
    assert set(refused) == {"serial_not_ready"}
    # What the port took and the root had not read yet went with the plug; nothing else is silent.
    assert {command.name for command in house.root.commands} <= set(said)


async def test_a_root_that_takes_nothing_is_told_of_and_its_port_opened_anew(house: House) -> None:
    house.replace(write_timeout_s=0.2)
    await house.start()
    house.root._loop.remove_reader(house.root._ends[0])  # type: ignore[index]
    codes = [await house.refusal("root", "raw", hex="41" * 8000) for _ in range(3)]
    assert "serial_not_ready" in codes
    assert house.uart.line is not None
    assert house.uart.line.losses >= 1
    await until(lambda: house.uart.ready)


async def test_a_port_without_a_descriptor_is_read_and_written_by_threads(house: House) -> None:
    house.replace(tx_framing="frame")
    await house.watch()
    await house.start_domain()
    await house.start_uart("loop://")
    await until(lambda: house.uart.ready)
    frame = Frame(5, b"[M]", b"\x02hi")
    assert (await house.ask("root", "raw", hex=frame.content.hex()))["ok"]
    (kept,) = await house.documents("messages", 1)
    assert (kept["node"], bytes(kept["payload"])) == (5, b"\x02hi")


async def test_a_port_may_be_a_socket(house: House) -> None:
    heard = bytearray()
    writers: list[asyncio.StreamWriter] = []

    async def device(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(100):
            heard.extend(data)

    server = await asyncio.start_server(device, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await house.watch()
    await house.start_domain()
    await house.start_uart(f"socket://127.0.0.1:{port}")
    await until(lambda: writers and house.uart.ready)
    writers[0].write(
        TWO_VALUES
    )  # not before: pyserial throws away what comes while it opens a port
    await house.documents("readings", 2)
    assert (await house.ask("root", "send", command="SEND-", node=5, text="hi"))["ok"]
    await until(lambda: bytes(heard) == b"SEND-\x00\x05\x02hi\n")
    line = house.uart.line
    assert line is not None
    writers[0].close()  # the cable is cut: it connects again
    await until(lambda: line.losses == 1 and len(writers) == 2 and line.ready)
    writers[1].write(TWO_VALUES)
    await house.documents("readings", 4)
    await house.stop("uart")
    server.close()
