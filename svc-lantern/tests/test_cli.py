"""``patchbay lantern``: as processes, one of them on a real terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchbay.testing import PATIENCE_S, Part, until
from tests.running import CLI

if TYPE_CHECKING:
    from tests.lantern_house import House

LANTERN = [*CLI, "lantern"]


class Terminal:
    """A program on a terminal of the test's own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (30, 90))
        # setsid: it is the terminal that turns Ctrl-C into a signal, for the session that owns it.
        command = ["setsid", "--ctty", *LANTERN, *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._said = b""

    @property
    def said(self) -> str:
        """All that was written to the terminal."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._master, 65_536):
                self._said += data
        return self._said.decode("utf-8", "replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    one = Terminal(*arguments)
    try:
        yield one
    finally:
        one.close()


@contextlib.contextmanager
def program(*arguments: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``patchbay lantern`` without a terminal."""
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            [*LANTERN, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def ended(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, 20)


async def test_on_a_terminal_it_asks_for_host_and_port_draws_and_ends_with_ctrl_c(
    house: House,
) -> None:
    server = house.tlv.server
    assert server is not None
    await house.tell("COLOR", "ff8000")
    await house.tell("ON")
    with terminal() as one:
        await until(lambda: "host:port [127.0.0.1:9999]" in one.said)
        one.type(f"127.0.0.1:{house.port}\n")
        await until(lambda: server.connections == 1)
        await until(lambda: "\x1b[38;2;255;128;0m" in one.said)
        await house.tell("COLOR", "0080ff")
        await until(lambda: "\x1b[38;2;0;128;255m" in one.said)
        assert f"connected to 127.0.0.1:{house.port}" in one.said
        one.type("\x03")
        assert await ended(one.process) == 0
        await until(lambda: one.said.endswith("\x1b[?25h\x1b[?1049l"))
    await until(lambda: server.connections == 0)


async def test_plain_is_one_line_a_change_and_sigterm_closes_properly(
    house: House, tmp_path: Path
) -> None:
    server = house.tlv.server
    assert server is not None
    out = tmp_path / "out"
    where = f"127.0.0.1:{house.port}"
    with program(where, "--plain", out=out) as process:
        await until(lambda: server.connections == 1)
        await house.tell("COLOR", "ff0000")
        await house.tell("ON")
        await until(lambda: out.read_text().endswith("\nON\n"))
        await house.stop("tlv")
        await until(lambda: "cut off" in out.read_text())
        await house.start("tlv")
        await until(lambda: out.read_text().count("connected to") == 2)
        await until(lambda: out.read_text().endswith("\nCOLOR ff0000\n"))
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    assert out.read_text().splitlines() == [
        f"connected to {where}",
        "COLOR ff0000",
        "ON",
        f"cut off from {where}: the server closed the connection",
        f"connected to {where}",
        "ON",
        "COLOR ff0000",
    ]


async def test_without_a_terminal_the_default_is_taken_without_asking(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with program(out=out) as process:
        await until(lambda: out.exists() and "127.0.0.1:9999" in out.read_text())
        process.send_signal(signal.SIGINT)
        assert await ended(process) == 0
    assert "host:port" not in out.read_text()


@pytest.mark.parametrize("word", ["onn", "127.0.0.1", ":9999", "a:b", "a:99999"])
async def test_a_word_that_is_neither_a_command_nor_an_address_is_refused(word: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [*LANTERN, word],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{word}' is neither a command nor HOST:PORT" in done.stderr


async def test_what_people_tell_all_lanterns(house: House, mosquitto: Part, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "COLUMNS": "120",
        "PATCHBAY_BROKER__PORT": str(mosquitto.port),
        "PATCHBAY_RUNTIME__STATE_DIR": str(tmp_path / "state"),
    }

    async def said(*arguments: str, code: int = 0) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [*LANTERN, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            env=environ,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if not code else done.stderr

    lantern = await house.lantern()
    await until(lambda: house.domain.census.lanterns == 1)
    assert await said("color", "#FF0000") == "COLOR ff0000: 1 lantern connected\n"
    assert await said("on") == "ON: 1 lantern connected\n"
    assert await said("off") == "OFF: 1 lantern connected\n"
    assert await said("set", "on") == "ON: 1 lantern connected\n"
    await lantern.hears(b"\x20\x00\x03\xff\x00\x00\x12\x00\x00\x13\x00\x00\x12\x00\x00")
    assert (await said("color", "red", code=1)).startswith("bad_value: COLOR: it takes six")
    state = json.loads(await said("state", "--json"))
    assert (state["on"], state["color"], state["by"]) == (True, "ff0000", "command line")
    assert re.search(r"lanterns +1\b", await said("state"))
    listed = await said("history", "--limit", "2")
    assert re.search(r"4 .* ON .* command line", listed)
    assert "COLOR" not in listed
    assert json.loads(await said("history", "--json"))["total"] == 4
    await lantern.close()


async def test_simulate_is_many_lanterns(house: House, tmp_path: Path) -> None:
    server = house.tlv.server
    assert server is not None
    out = tmp_path / "out"
    with program("simulate", "50", f"127.0.0.1:{house.port}", out=out) as process:
        await until(lambda: server.connections == 50)
        await house.tell("COLOR", "ff0000")
        await until(lambda: "all obeyed" in out.read_text())
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    await until(lambda: server.connections == 0)


def test_the_lantern_itself_loads_no_broker() -> None:
    """It ships alone: nothing that it imports may need paho or a store."""
    code = "import sys, patchbay_lantern.lantern, patchbay_lantern.drawing; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout.split()
    assert not {"paho", "pymongo", "aiohttp", "websockets"} & set(loaded)
