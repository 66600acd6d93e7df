"""The port of the root: absent, unplugged under load, plugged again, and of other kinds."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import termios
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import serial
import serial.rfc2217
import structlog

from patchbay.bus import Message
from patchbay.messages import encode
from patchbay.progress import Progress
from patchbay.testing import PATIENCE_S, until, vanish
from patchbay_mesh.edge.line import CutOff, Line, NotReady
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


async def test_a_root_that_vanishes_without_closing_its_connection_is_found(house: House) -> None:
    house.replace(dead_after_s=2)
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        port = server.getsockname()[1]
        await house.watch()
        await house.start_domain()
        starting = asyncio.create_task(house.start_uart(f"socket://127.0.0.1:{port}"))
        came.append((await loop.sock_accept(server))[0])
        await starting
        await until(lambda: house.uart.ready and house.statuses.get("root") == "online")
        vanish(came[0])
        async with asyncio.timeout(PATIENCE_S):
            again, _ = await loop.sock_accept(server)
        assert house.uart.line is not None
        assert house.uart.line.losses == 1
        await until(lambda: house.uart.ready)
        again.sendall(TWO_VALUES)
        await house.documents("readings", 2)
        await house.stop("uart")
        again.close()


async def test_a_silent_root_is_reported_until_it_is_heard_again(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()  # another test may have sent the log elsewhere
    house.replace(root_silence_s=0.2)
    await house.start()
    progress = Progress()
    progress.watch("root", lambda: house.uart.silent, lambda: "root")
    watching = asyncio.create_task(house.uart.watch_silence())
    await until(lambda: house.uart.silent)
    assert "root silent" in capsys.readouterr().out
    assert str(progress.look(0.0)) == "waiting: root"
    reports = asyncio.create_task(_report_often(house))
    await until(lambda: not house.uart.silent)
    assert str(progress.look(0.0)) == "ok"
    reports.cancel()
    await until(lambda: house.uart.silent)
    house.root.unplug()
    await until(lambda: not house.uart.silent)  # a port that is closed is not silent
    watching.cancel()


async def _report_often(house: House) -> None:
    while True:
        await house.root.report(5, Value(b"CNT", b"1"))
        await asyncio.sleep(0.01)


async def test_a_port_has_one_user(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    await house.start()
    other = Line(
        _Nobody(),
        str(house.root.link),
        115_200,
        reconnect_s=(0.05, 0.1),
        write_timeout_s=1.0,
        write_queue=1,
        dead_after_s=45,
    )
    running = asyncio.create_task(other.run())
    with pytest.raises(serial.SerialException, match="is in use by another process"):
        await asyncio.to_thread(other._open_url)
    for number in range(20):
        await house.report(5, number.to_bytes(6))
    assert not other.ready
    await house.stop("uart")  # the lock goes with its holder
    await until(lambda: other.ready)
    running.cancel()


class _Nobody:
    """Owns a line and does nothing with it."""

    def opened(self) -> None: ...

    def closed(self, why: str) -> None: ...

    def received(self, data: bytes) -> None: ...


@pytest.mark.parametrize(("dtr", "rts"), [(True, True), (False, False), (True, False)])
async def test_dtr_and_rts_are_as_the_settings_say(dtr: bool, rts: bool) -> None:
    with FarLines() as far:
        line = Line(
            _Nobody(),
            f"rfc2217://127.0.0.1:{far.port}",
            115_200,
            reconnect_s=(0.05, 0.1),
            write_timeout_s=1.0,
            write_queue=1,
            dead_after_s=45,
            dtr=dtr,
            rts=rts,
        )
        opened = await asyncio.to_thread(line._open_url)
        await until(lambda: (far.lines.dtr, far.lines.rts) == (dtr, rts))
        await asyncio.to_thread(opened.close)
        # DTR low while RTS is high resets the usual board of an ESP32: not even for a moment.
        assert ("dtr", False, True) not in far.seen


class FarLines(threading.Thread):
    """A serial port elsewhere (RFC 2217), which remembers the changes of DTR. ``with``."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.lines: Any = serial.serial_for_url("loop://", timeout=0.05)
        self.seen: list[tuple[str, bool, bool]] = []
        """Each change of DTR, with RTS as it was then."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._connection: socket.socket | None = None

    def write(self, data: bytes) -> None:
        """What the protocol answers."""
        assert self._connection is not None
        self._connection.sendall(data)

    def run(self) -> None:
        self._connection, _ = self._server.accept()
        manager = serial.rfc2217.PortManager(self.lines, self)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and (data := self._connection.recv(1)):
            before = self.lines.dtr
            for _ in manager.filter(data):
                pass
            if self.lines.dtr != before:
                self.seen.append(("dtr", self.lines.dtr, self.lines.rts))

    def __enter__(self) -> FarLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._server.close()


async def test_a_command_whose_time_is_over_is_never_begun(house: House) -> None:
    await house.start()
    line = house.uart.line
    assert line is not None
    with pytest.raises(NotReady, match="its time was over"):
        await line.send(b"late\n", start_within_s=-0.1)
    await line.send(b"in time\n", start_within_s=60)
    await until(lambda: house.root.commands == [Command(b"in time")])


async def test_a_command_that_was_begun_and_cut_off_is_not_called_refused(house: House) -> None:
    house.replace(write_timeout_s=0.2)
    await house.start()
    line = house.uart.line
    assert line is not None
    house.root._loop.remove_reader(house.root._ends[0])  # type: ignore[index]
    with pytest.raises(CutOff):
        await line.send(b"x" * 100_000)  # more than a pseudo-terminal holds
    await until(lambda: line.ready)


async def test_nothing_is_written_for_whoever_does_not_confirm_it(house: House) -> None:
    house.replace(start_deadline_s=0.3)
    await house.start()
    topic = house.watcher.topics.command("mesh", "root", "send")
    hung = house._make_bus("hung")  # it asks, and does not answer the question
    answers: list[Message] = []
    hung.listen("patchbay/reply/hung", answers.append)
    hung.start()
    await hung.wait_connected(PATIENCE_S)
    order = {"specversion": "1.0", "id": "1", "source": "hung", "confirm": True}
    body = encode({**order, "data": {"command": "NINFO"}})
    await hung.publish(topic, body, response_topic="patchbay/reply/hung", correlation=b"1")
    await until(lambda: len(answers) == 2)
    assert json.loads(answers[1].payload)["error"]["code"] == "unconfirmed"
    assert (await house.ask("root", "send", command="STATE"))["ok"]
    await until(lambda: house.root.commands == [Command(b"STATE")])
