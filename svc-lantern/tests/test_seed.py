"""The seed's own words. Each line that it marks ``[ok]`` is a test here, and so is its curl line.

The lantern is the program that is shipped, `patchbay lantern`, as a process; the server is a socket
of the test's own, as the seed's test stand was, and for the curl line the whole service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from patchbay.testing import PATIENCE_S, free_port, until
from patchbay_lantern.commands import KINDS, Byte, Kind, Light, Registry
from patchbay_lantern.messages import Order
from patchbay_lantern.wire.tlv import Decoder
from tests.running import CLI

if TYPE_CHECKING:
    from tests.lantern_house import House

ON, OFF, RED = b"\x12\x00\x00", b"\x13\x00\x00", b"\x20\x00\x03\xff\x00\x00"


def lantern(*arguments: str, stdin: int, stdout: Any) -> subprocess.Popen[bytes]:
    """The program, one line a change."""
    return subprocess.Popen([*CLI, "lantern", *arguments, "--plain"], stdin=stdin, stdout=stdout)


class Stand:
    """«Сделан тестовый стенд который эмулирует работу Сервера»: a port, and one lantern."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.out = directory / "lantern.out"
        self.writers: list[asyncio.StreamWriter] = []
        self.ends: list[bytes] = []
        """What came from each lantern until its connection ended."""
        self.process: subprocess.Popen[bytes] | None = None
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)

    async def light(self) -> None:
        """Start a lantern and wait until it is connected."""
        with self.out.open("wb") as out:
            self.process = lantern(f"127.0.0.1:{self.port}", stdin=subprocess.DEVNULL, stdout=out)
        await until(lambda: self.writers)

    def say(self, *data: bytes) -> None:
        for one in data:
            self.writers[-1].write(one)

    async def shows(self, *lines: str) -> None:
        """The lantern must have said exactly this since it was connected."""
        wanted = [f"connected to 127.0.0.1:{self.port}", *lines]
        await until(lambda: self.out.read_text().splitlines() == wanted)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        while self.writers:
            self.writers.pop().close()

    async def end(self) -> None:
        await self.stop()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            self.ends.append(await reader.read())


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    await stand.end()


async def test_ok_при_запуске_фонарь_должен_запрашивать_хост_порт(stand: Stand) -> None:
    """[ok] При запуске фонарь должен запрашивать хост:порт (по умолчанию 127.0.0.1:9999),
    подсоединяться по TCP и после этого начать отрабатывать протокол управления."""
    await stand.listen()
    master, slave = os.openpty()
    process = lantern(stdin=slave, stdout=slave)
    os.close(slave)
    os.set_blocking(master, False)
    said = b""

    def has_said(text: bytes) -> bool:
        nonlocal said
        with contextlib.suppress(BlockingIOError):
            said += os.read(master, 65_536)
        return text in said

    try:
        await until(lambda: has_said(b"host:port [127.0.0.1:9999]"))
        os.write(master, f"127.0.0.1:{stand.port}\n".encode())
        await until(lambda: stand.writers)
        stand.say(ON)
        await until(lambda: has_said(b"ON\r\n"))
    finally:
        process.kill()
        process.wait()
        os.close(master)


async def test_ok_фонарь_собирает_целые_команды_и_молча_игнорирует_неизвестные(
    stand: Stand,
) -> None:
    """[ok] При получении данных от сервера фонарь собирает целые команды (type length + value) и,
    если type известен, обрабатывает команду, иначе молча ее игнорирует."""
    await stand.listen()
    await stand.light()
    for byte in RED + b"\x77\x00\x05hello" + ON:
        stand.say(bytes([byte]))
        await stand.writers[-1].drain()
        await asyncio.sleep(0)
    await stand.shows("COLOR ff0000", "ON")


async def test_ok_при_получении_команды_on_фонарь_включается(stand: Stand) -> None:
    """[ok] При получении команды ON фонарь включается (отрисовку фонаря оставляем на ваше
    усмотрение)."""
    await stand.listen()
    await stand.light()
    stand.say(ON)
    await stand.shows("ON")


async def test_ok_при_получении_команды_off_фонарь_выключается(stand: Stand) -> None:
    """[ok] При получении команды OFF фонарь выключается."""
    await stand.listen()
    await stand.light()
    stand.say(ON, OFF)
    await stand.shows("ON", "OFF")


async def test_ok_при_получении_команды_color_фонарь_меняет_цвет(stand: Stand) -> None:
    """[ok] При получении команды COLOR фонарь меняет цвет."""
    await stand.listen()
    await stand.light()
    stand.say(RED, b"\x20\x00\x03\x00\x00\xff")
    await stand.shows("COLOR ff0000", "COLOR 0000ff")


async def test_при_завершении_работы_фонарь_корректно_закрывает_соединение(stand: Stand) -> None:
    """При завершении работы фонарь корректно закрывает соединение с сервером."""
    await stand.listen()
    await stand.light()
    assert stand.process is not None
    stand.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(stand.process.wait, 20) == 0
    await until(lambda: stand.ends == [b""])


def test_ok_реализация_фонаря_позволяет_легко_добавлять_любые_новые_команды() -> None:
    """[ok] Реализация фонаря позволяет легко добавлять любые новые команды."""
    table = Registry([*KINDS, Kind("BRIGHTNESS", 0x21, Byte(), "brightness", "Brightness")])
    (frame,) = Decoder().feed(b"\x21\x00\x01\x80")
    order = table.unpack(frame.type, frame.value)
    assert order == Order("BRIGHTNESS", "128")
    assert table.obey(Light(), order).orders == {"brightness": order}


async def test_ok_при_неожиданных_разрывах_связи_фонарь_восстанавливает_соединение(
    stand: Stand,
) -> None:
    """[ok] При неожиданных разрывах связи фонарь должен пытаться восстановить соединение."""
    await stand.listen()
    await stand.light()
    await stand.stop()
    await until(lambda: "cut off from" in stand.out.read_text())
    await stand.listen()
    await until(lambda: stand.writers)
    stand.say(RED)
    await until(lambda: stand.out.read_text().endswith("COLOR ff0000\n"))


async def test_the_curl_line_turns_every_connected_lantern_red(house: House) -> None:
    """As it stands, but for the port: that is the tests' own."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    lanterns = [await house.lantern() for _ in range(3)]
    await until(lambda: house.domain.census.lanterns == 3)
    body = '{"method": "message", "params": {"command": "COLOR", "value": "ff0000"}}'
    done = await asyncio.to_thread(
        subprocess.run,
        [curl, "--silent", "-d", body, f"http://localhost:{house.api_port}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == '{"result":"ok","command":"COLOR","value":"ff0000","lanterns":3}\n'
    for lantern in lanterns:
        await lantern.hears(b"\x20\x00\x03\xff\x00\x00")
        await lantern.close()
