"""The skeleton of an edge: what a session of a simple device may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from patchbay.bus import Message
from patchbay.edge import DeviceEdge, DeviceSession, Memory, Number, WireCommand, WireError
from patchbay.log import get_logger
from patchbay.messages import Event, decode_events
from patchbay.net import Limits, Server
from patchbay.outbox import Outbox, room
from patchbay.testing import PATIENCE_S, MakeBus, until
from tests.slow_disk import SlowDisk

INSTANCE = "gate-edge-1"
WRAPS = 100


class Said(Struct, frozen=True):
    text: str


class Mute(Struct, frozen=True):
    seconds: int


class Lines:
    """Lines; one of more than 20 bytes is invalid."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        frames: list[str] = []
        for line in lines:
            if len(line) > 20:
                raise WireError("a line must have at most 20 bytes", line, frames)
            frames.append(line.decode())
        return frames


class Gate(DeviceSession[str]):
    """``<device> <number> <text>``; the number 0 is none, a text with ``!`` wraps."""

    decoder = Lines

    def on_frame(self, frame: str) -> None:
        device, _, rest = frame.partition(" ")
        number, _, text = rest.partition(" ")
        if not number.isdigit():
            self.reject("a line must be a device, a number and a text", frame.encode())
            return
        once = Number(int(number), WRAPS if "!" in text else 0) if number != "0" else None
        self.record(device, "said", Said(text), once=once)
        self.reply(f"{number}\n".encode())
        self.identify(device)


class Running:
    """An edge that runs, and what the bus hears of it."""

    def __init__(self, edge: DeviceEdge, server: Server) -> None:
        self.edge = edge
        self.server = server
        self.events: list[Event] = []
        self.dead: list[dict[str, Any]] = []

    @property
    def texts(self) -> list[str]:
        return [json.loads(bytes(event.data))["text"] for event in self.events]

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, *lines: str) -> list[str]:
        """Send lines on a connection of their own; as many replies."""
        async with self.line() as (reader, writer), asyncio.timeout(PATIENCE_S):
            writer.write("".join(f"{line}\n" for line in lines).encode())
            return [(await reader.readline()).decode().strip() for _ in lines]


Start = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(make_bus: MakeBus, tmp_path: Path) -> Start:
    @contextlib.asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Running]:
        bus, watcher = make_bus(INSTANCE), make_bus("watcher")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(bus.stop)
            outbox = await stack.enter_async_context(
                Outbox(bus, "gate", tmp_path / "outbox.sqlite", waited_for=True, **options)
            )
            edge = DeviceEdge(
                bus,
                outbox,
                "gate",
                Gate,
                max_devices=3,
                commands={"mute": WireCommand(Mute, lambda mute: b"MUTE %d\n" % mute.seconds)},
            )
            limits = Limits(max_invalid=3)
            server = Server(edge.connected, "127.0.0.1", 0, limits, get_logger("test"))
            edge.server = await stack.enter_async_context(server)
            running = Running(edge, server)

            def heard(message: Message) -> None:
                message.ack()
                running.events += decode_events(message.payload)

            for topic in (
                bus.topics.event("gate", "+", "+"),
                bus.topics.batch("gate", INSTANCE),
            ):
                watcher.listen(topic, heard)
            watcher.listen(bus.topics.dead("gate"), lambda one: running.dead.append(_read(one)))
            await stack.enter_async_context(watcher)
            bus.start()
            await bus.set_ready()
            await bus.wait_online(PATIENCE_S)
            yield running

    return start


def _read(message: Message) -> dict[str, Any]:
    message.ack()
    letter: dict[str, Any] = json.loads(message.payload)
    return letter


async def test_frames_are_recorded_and_answered_in_order(start: Start) -> None:
    async with start() as gate:
        assert await gate.ask("a 0 x", "b 0 y", "a 0 x") == ["0", "0", "0"]
        await until(lambda: gate.texts == ["x", "y", "x"])
        assert [event.subject for event in gate.events] == ["a", "b", "a"]


async def test_a_repeat_is_answered_and_not_recorded_though_the_edge_was_started_again(
    start: Start,
) -> None:
    async with start() as gate:
        assert await gate.ask("a 1 x", "a 2 y", "a 1 x", "a 2 y") == ["1", "2", "1", "2"]
        assert gate.edge.counts["repeats"] == 2
    async with start() as gate:
        assert await gate.ask("a 2 y", "a 3 z") == ["2", "3"]
        assert gate.edge.counts["repeats"] == 1
        recorded = [row.key for row in gate.edge.outbox._journal.after(0, 9)]
        assert recorded == ["a/1", "a/2", "a/3"]


async def test_numbers_that_wrap_repeat_only_with_the_same_content(start: Start) -> None:
    async with start() as gate:
        await gate.ask("a 98 p!", "a 99 q!", "a 1 r!", "a 1 r!", "a 98 p!", "a 98 s!")
        await until(lambda: len(gate.texts) == 4)
        assert gate.texts == ["p!", "q!", "r!", "s!"]


async def test_a_device_that_starts_anew_repeats_nothing(start: Start) -> None:
    async with start() as gate:
        await gate.ask("a 5 p!", "a 6 q!")
        await gate.ask("a 5 n!", "a 6 q!")  # another connection, and its numbers went back
        await until(lambda: gate.texts == ["p!", "q!", "n!", "q!"])


async def test_of_too_many_devices_the_longest_silent_is_forgotten(start: Start) -> None:
    async with start() as gate:
        await gate.ask(*(f"{name} 1 x" for name in "abcd"))
        assert len(gate.edge.repeats) == 3
        await gate.ask("d 1 x", "a 1 x")
        assert gate.edge.counts["repeats"] == 1


async def test_what_was_not_committed_is_not_answered_and_is_no_repeat(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.0)
    disk = SlowDisk(monkeypatch, holds=bool)
    async with start(threaded=True) as gate:
        async with gate.line() as (reader, writer):
            writer.write(b"a 1 x\n")
            await until(lambda: disk.begun == 1)
            writer.write(b"a 2 y\n")
            await until(lambda: gate.edge.outbox.waiting == 2)
            disk.fail()
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
        disk.free()
        await until(lambda: not gate.edge.outbox.full)
        assert await gate.ask("a 1 x", "a 2 y") == ["1", "2"]
        assert gate.edge.counts["repeats"] == 0
        await until(lambda: gate.texts == ["x", "y"])


async def test_invalid_input_becomes_a_dead_letter_and_too_much_of_it_ends_the_connection(
    start: Start,
) -> None:
    async with start() as gate:
        async with gate.line() as (reader, writer), asyncio.timeout(PATIENCE_S):
            writer.write(b"nonsense\na 0 x\n")
            assert await reader.readline() == b"0\n"
            writer.write(b"nonsense\nnonsense\na 0 never\n")
            assert await reader.read() == b""
        await until(lambda: gate.dead)
        assert "a line must be a device" in gate.dead[0]["reason"]
        assert "never" not in gate.texts


async def test_what_came_before_an_invalid_frame_is_answered_before_the_end(start: Start) -> None:
    async with start() as gate:
        async with gate.line() as (reader, writer), asyncio.timeout(PATIENCE_S):
            writer.write(b"a 0 x\n" + b"y" * 30 + b"\n")
            assert await reader.read() == b"0\n"
        await until(lambda: gate.dead)
        assert gate.dead[0]["reason"] == "a line must have at most 20 bytes"


async def test_a_command_reaches_the_device_where_it_was_identified_last(
    start: Start, make_bus: MakeBus
) -> None:
    async with start() as gate, make_bus("asker") as asker:
        topic = asker.topics.command("gate", "front", "mute")

        async def mute() -> dict[str, Any]:
            answer = await asker.request(
                topic, b'{"seconds": 5}', timeout_s=PATIENCE_S, actuates=True
            )
            found: dict[str, Any] = json.loads(answer)
            return found

        assert (await mute())["error"]["code"] == "not_connected"
        async with gate.line() as first, gate.line() as second, asyncio.timeout(PATIENCE_S):
            for reader, writer in (first, second):
                writer.write(b"Front 0 x\n")
                assert await reader.readline() == b"0\n"
            assert (await mute())["device"] == "Front"
            assert await second[0].readline() == b"MUTE 5\n"
        await until(lambda: not gate.edge.sessions)
        assert (await mute())["error"]["code"] == "not_connected"


async def test_a_full_outbox_reads_from_nobody_until_there_is_room(start: Start) -> None:
    async with start(max_rows=1) as gate:
        async with gate.line() as (reader, writer), asyncio.timeout(PATIENCE_S):
            writer.write(b"a 0 x\na 0 y\n")
            assert await reader.read() == b"0\n"
        assert gate.server.paused


async def test_a_memory_goes_back_with_a_commit_that_fails(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch, holds=bool)
    async with start(threaded=True) as gate:
        outbox = gate.edge.outbox

        def remember(value: str, key: str = "k") -> None:
            outbox.add("d", "said", subject="d", time="t", data=Said(value))
            memory[key] = value

        memory: Memory[str] = Memory(outbox, "m/", str.encode, bytes.decode)
        remember("one")
        await until(lambda: disk.begun == 1)
        disk.go_on()
        await until(lambda: dict(outbox.notes("m/")) == {"k": b"one"} and not outbox._writer.busy)
        remember("two")
        await until(lambda: disk.begun == 2)
        remember("three")
        remember("new", key="n")
        assert dict(memory) == {"k": "three", "n": "new"}
        disk.fail()
        await until(lambda: dict(memory) == {"k": "one"})
        disk.free()
