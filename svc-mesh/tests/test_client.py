"""The client library against the socket API, and what it does without one."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import patchbay_mesh.client
from patchbay.testing import PATIENCE_S, free_port, until
from patchbay_mesh.client import MeshClient, Message, NotAnswered, Refused
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.uart import Command, Frame, encode

if TYPE_CHECKING:
    from conftest import House

GPS5 = bytes.fromhex("02f001be9200")
GPS6 = bytes.fromhex("03f001bf9200")


def test_it_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(patchbay_mesh.client.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [n.name for n in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names


def test_nor_does_anything_come_with_it() -> None:
    program = (
        "import sys; before = set(sys.modules); import patchbay_mesh.client;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'patchbay_mesh'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.strip() == "[]"


async def test_it_gets_and_tells_and_asks(house: House) -> None:
    await house.start()
    await house.report(5, GPS5)
    await house.report(6, GPS6)
    await until(lambda: len(house.api.cache.nodes) == 2)
    mesh = MeshClient("127.0.0.1", house.port)
    assert await asyncio.to_thread(mesh.get, "GPS", 5) == GPS5
    assert await asyncio.to_thread(mesh.get_all, "GPS") == {5: GPS5, 6: GPS6}
    assert await asyncio.to_thread(mesh.get_all, "TMP") == {}
    assert await asyncio.to_thread(mesh.active_count) == 2
    assert await asyncio.to_thread(mesh.status) == {5: True, 6: True}
    await asyncio.to_thread(mesh.send, 5, b"hi")
    await asyncio.to_thread(mesh.broadcast, b"all")
    await asyncio.to_thread(mesh.respond, 6, b"yes")
    await until(lambda: len(house.root.commands) == 3)
    assert house.root.commands == [
        Command(b"SEND-", 5, b"hi"),
        Command(b"BCAST", 0, b"all"),
        Command(b"SEND-", 6, b"<R>yes"),
    ]
    with pytest.raises(Refused, match=r"^Node Not Found$"):
        await asyncio.to_thread(mesh.get, "GPS", 7)
    with pytest.raises(Refused, match=r"^Data Type Not Found$"):
        await asyncio.to_thread(mesh.get, "TMP", 5)
    house.root.unplug()
    await until(lambda: not house.uart.ready)
    with pytest.raises(Refused, match=r"^Serial Not Ready$"):
        await asyncio.to_thread(mesh.send, 5, b"hi")


@pytest.mark.parametrize(
    "call",
    [
        lambda mesh: mesh.get("GPS", 0),
        lambda mesh: mesh.get("GPSX", 5),
        lambda mesh: mesh.get("GPS", 65_536),
        lambda mesh: mesh.send(5, b"x" * 256),
        lambda mesh: mesh.respond(5, b"x" * 253),
        lambda mesh: mesh.send(5, b"one[E]two"),
        lambda mesh: mesh.broadcast(b"[E]"),
        lambda mesh: mesh.send(0x5B45, b"]"),
        lambda mesh: mesh.respond(5, b"x[E]"),
        lambda mesh: mesh.subscribe("M", print),
    ],
)
def test_what_makes_no_sense_is_not_asked(call: object) -> None:
    with pytest.raises(ValueError, match=r"type|node|bytes"):
        call(MeshClient("127.0.0.1", 1))  # type: ignore[operator]


def test_without_a_service_there_is_no_answer() -> None:
    mesh = MeshClient("127.0.0.1", free_port(), timeout_s=2)
    with pytest.raises(NotAnswered):
        mesh.active_count()


@pytest.mark.parametrize("answer", [b"", b"X", b"F", b"F\x05no", b"SGPS\x06\x01", b"SXYZ\x00\x00"])
async def test_what_is_no_answer_is_told_as_none(answer: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    mesh = MeshClient("127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(NotAnswered):
        await asyncio.to_thread(mesh.get, "GPS", 5)
    server.close()


async def test_a_subscription_hears_its_type_and_connects_again(house: House) -> None:
    await house.start()
    messages: list[Message] = []
    everything: list[Message] = []
    connections: list[bool] = []
    mesh = MeshClient("127.0.0.1", house.port)
    said = mesh.subscribe("[M]", messages.append, connections.append)
    heard = mesh.subscribe(None, everything.append)
    await until(lambda: said.connected and heard.connected)
    await until(lambda: len(house.api.listeners) == 2)
    await house.root.say(5, b"one")
    await house.root.ask(6, b"where?")
    await house.root.report(5, Value(b"GPS", GPS5))
    await house.root.send(encode(Frame(0, b"RST")))
    await until(lambda: len(everything) == 3)
    assert everything == [
        Message(5, "[M]", b"one"),
        Message(6, "<Q>", b"where?"),
        Message(0, "RST", b""),
    ]
    assert messages == [Message(5, "[M]", b"one")]
    await house.stop("api")
    await until(lambda: not said.connected)
    await house.start_api()
    await until(lambda: said.connected and heard.connected)
    await until(lambda: len(house.api.listeners) == 2)
    await house.root.say(5, b"two")
    await until(lambda: len(messages) == 2)
    assert messages[-1] == Message(5, "[M]", b"two")
    assert connections == [True, False, True]
    await asyncio.to_thread(said.close)
    await asyncio.to_thread(heard.close)
    await until(lambda: not house.api.listeners)
    assert connections == [True, False, True, False]


async def test_a_subscription_is_a_context_manager_and_may_be_closed_in_its_callback(
    house: House,
) -> None:
    await house.start()
    mesh = MeshClient("127.0.0.1", house.port)
    heard: list[Message] = []
    subscription = mesh.subscribe("[M]", lambda one: (heard.append(one), subscription.close()))
    await until(lambda: len(house.api.listeners) == 1)
    await house.root.say(5, b"last")
    await until(lambda: not house.api.listeners)
    assert heard == [Message(5, "[M]", b"last")]

    def listen_for_a_moment() -> bool:
        with mesh.subscribe("[M]", print) as other:
            assert other.wait_connected(PATIENCE_S)
        return other.connected

    assert await asyncio.to_thread(listen_for_a_moment) is False


async def test_a_callback_that_fails_is_logged_and_called_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.start()
    mesh = MeshClient("127.0.0.1", house.port)
    heard: list[Message] = []
    connections: list[bool] = []

    def fail(message: Message) -> None:
        heard.append(message)
        raise OSError("the disk is full")

    def fail_too(connected: bool) -> None:
        connections.append(connected)
        raise KeyError(connected)

    subscription = mesh.subscribe("[M]", fail, fail_too)
    await until(lambda: len(house.api.listeners) == 1)
    for text in (b"one", b"two"):
        await house.root.say(5, text)
    await until(lambda: len(heard) == 2)
    assert subscription.connected
    await asyncio.to_thread(subscription.close)
    assert connections == [True, False]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        KeyError,
        OSError,
        OSError,
        KeyError,
    ]
