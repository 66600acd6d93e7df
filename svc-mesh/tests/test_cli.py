"""``patchbay mesh`` against a whole service."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner, Result

from patchbay.testing import PATIENCE_S, Part, until
from patchbay_mesh.cli import app
from patchbay_mesh.wire.uart import Command, Frame, encode

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command sets logging up for its process; here that is the tests'."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
async def started(
    house: House, mosquitto: Part, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> House:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATCHBAY_BROKER__PORT", str(mosquitto.port))
    monkeypatch.setenv("PATCHBAY_RUNTIME__STATE_DIR", str(tmp_path / "state"))
    await house.start()
    await house.report(5, GPS)
    await house.report(6, b"\x01", b"CNT")
    return house


async def run(*arguments: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments])


async def said(*arguments: object) -> str:
    result = await run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


async def test_nodes_are_listed_and_shown(started: House) -> None:
    listed = await said("nodes")
    assert all(word in listed for word in ("2 nodes", "37.566 126.978", "active", "CNT"))
    assert [one["node"] for one in json.loads(await said("nodes", "--json"))["nodes"]] == [5, 6]
    shown = await said("node", 5)
    assert all(word in shown for word in ("uuid unknown", "02f001be9200", "GPS"))
    assert json.loads(await said("node", 5, "--json"))["node"] == 5
    refused = await run("node", 7)
    assert refused.exit_code == 1
    assert refused.stderr == "unknown_node: node-7 has never reported\n"


async def test_values_now_and_before(started: House) -> None:
    assert "02f001be9200" in await said("get", "GPS", 5)
    assert json.loads(await said("get", "GPS", "--json"))["values"][0]["hex"] == "02f001be9200"
    missing = await run("get", "TMP")
    assert (missing.exit_code, missing.stderr) == (1, "no_such_type: no TMP there\n")
    await started.report(5, bytes.fromhex("03f001bf9200"))
    history = json.loads(await said("history", 5, "GPS", "--json"))
    assert [one["hex"] for one in history["values"]] == ["03f001bf9200", "02f001be9200"]
    assert "03f001bf9200" in await said("history", 5, "GPS", "--limit", 1)
    assert (await run("history", 5, "GPS", "--from", "yesterday")).exit_code == 1


async def test_messages_and_commands_go_to_the_root(started: House) -> None:
    assert await said("send", 5, "hi") == "11 bytes sent\n"
    await said("send", 6, "ff00", "--hex")
    await said("broadcast", "all")
    await said("root", "NINFO")
    await until(lambda: len(started.root.commands) == 4)
    assert started.root.commands == [
        Command(b"SEND-", 5, b"hi"),
        Command(b"SEND-", 6, b"\xff\x00"),
        Command(b"BCAST", 0, b"all"),
        Command(b"NINFO"),
    ]
    started.root.unplug()
    await until(lambda: not started.uart.ready)
    refused = await run("send", 5, "hi")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("serial_not_ready: ")


async def test_a_simulated_mesh_is_a_port_until_it_is_stopped(tmp_path: Path) -> None:
    link = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from patchbay_mesh.cli import app; app()"),
        *("simulate", str(link), "--nodes", "3", "--interval", "0.01"),
        stdout=asyncio.subprocess.PIPE,
    )
    await until(link.exists)
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (process.returncode, out.decode()) == (0, f"set PATCHBAY_MESH__SERIAL={link}\n")
    assert not link.exists()


ESCAPES = b"\x1b]0;owned\x07\x1b[31m\x9b2J\r\n"


async def test_what_nodes_send_reaches_no_terminal_as_control_characters(
    started: House, mosquitto: Part, tmp_path: Path
) -> None:
    watching = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "patchbay.cli", "watch", "patchbay/mesh/#"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    seen = bytearray()

    async def read() -> None:
        assert watching.stdout is not None
        while data := await watching.stdout.read(65_536):
            seen.extend(data)

    reading = asyncio.create_task(read())
    await until(lambda: b"node-5/state" in seen)  # retained: it watches
    await started.report(5, ESCAPES, b"\x1b[m")
    await started.root.say(5, ESCAPES)
    await started.root.send(encode(Frame(5, b"\x1b[A", ESCAPES)))
    await started.call(b"W-LOG" + ESCAPES)
    await until(lambda: started.latest("node-5", "\x1b[m") == ESCAPES.hex())
    await until(lambda: b"monitor/event/log" in seen and seen.count(b"event/message") >= 2)
    watching.send_signal(signal.SIGINT)
    await watching.wait()
    await reading
    shown = [
        await said("nodes"),
        await said("node", 5),
        await said("history", 5, "\x1b[m"),
        await said("get", "\x1b[m", 5),
        (await run("get", "\x1b]7")).output,
        await said("forget", 5, "--documents", "remove"),
        seen.decode(),
    ]
    for text in shown:
        assert [one for one in text if not one.isprintable() and one != "\n"] == [], text
    assert "owned" in shown[-1]
