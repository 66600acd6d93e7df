"""The simulated mesh: it speaks the wire, and can be unplugged."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.testing import PATIENCE_S, until
from patchbay_mesh.simulator import BOOT_LOG, Mesh, Root, simulate, uuid_of
from patchbay_mesh.wire.content import Data, Members, Passed, parse
from patchbay_mesh.wire.uart import Command, Decoder, Frame, encode_command


class Port:
    """Who opens the port, as an edge does."""

    def __init__(self, link: Path) -> None:
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.descriptor, self._read)

    def _read(self) -> None:
        try:
            self.frames += self.decoder.feed(os.read(self.descriptor, 65_536))
        except OSError:
            self._loop.remove_reader(self.descriptor)

    def tell(self, command: Command) -> None:
        os.write(self.descriptor, encode_command(command))

    def close(self) -> None:
        self._loop.remove_reader(self.descriptor)
        os.close(self.descriptor)


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Root]:
    root = Root(tmp_path / "port", [5, 6])
    root.plug()
    yield root
    root.unplug()


async def test_it_boots_and_speaks_in_frames(root: Root) -> None:
    port = Port(root.link)
    await root.say(5, b"hello")
    await until(lambda: port.frames)
    assert port.frames == [Frame(5, b"[M]", b"\x05hello")]
    assert port.decoder.skipped == len(BOOT_LOG)
    port.close()


async def test_its_nodes_report_and_answer_and_tell_who_is_there(root: Root) -> None:
    mesh = Mesh(root, 0.01, random.Random(1))
    living = asyncio.create_task(mesh.live())
    port = Port(root.link)
    await until(lambda: {frame.node for frame in port.frames if frame.type == b"[D]"} == {5, 6})
    data = parse(next(frame for frame in port.frames if frame.type == b"[D]"))
    assert isinstance(data, Data)
    assert [value.type for value in data.values] == [b"GPS", b"CNT"]
    port.tell(Command(b"NINFO"))
    port.tell(Command(b"SEND-", 5, b"hi"))
    port.tell(Command(b"BCAST", 0, b"all"))
    port.tell(Command(b"RST-R"))
    network = Members(((5, uuid_of(5)), (6, uuid_of(6))))
    await until(lambda: network in [parse(frame) for frame in port.frames])
    said = [
        Frame(5, b"[M]", b"\x0byou said hi"),
        Frame(5, b"[M]", b"\x0cyou said all"),
        Frame(6, b"[M]", b"\x0cyou said all"),
    ]
    await until(lambda: all(frame in port.frames for frame in said))
    await until(lambda: Passed(Frame(0, b"RST")) in [parse(frame) for frame in port.frames])
    assert [command.name for command in root.commands] == [b"NINFO", b"SEND-", b"BCAST", b"RST-R"]
    living.cancel()
    port.close()


async def test_an_unplugged_root_is_no_port_and_says_nothing(root: Root) -> None:
    root.unplug()
    assert not root.plugged
    assert not root.link.exists()
    with pytest.raises(OSError, match="unplugged"):
        await root.say(5, b"hello")
    root.plug()
    assert root.link.exists()


async def test_who_sends_more_than_the_port_takes_waits_and_is_told_when_it_is_unplugged(
    root: Root,
) -> None:
    sending = asyncio.create_task(root.send(b"x" * 1_000_000))
    await asyncio.sleep(0)
    root.unplug()
    with pytest.raises(OSError, match="unplugged"):
        await sending


async def test_the_demo_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(simulate(tmp_path / "port", 3, 0.01, stop))
    await until(lambda: (tmp_path / "port").exists())
    port = Port(tmp_path / "port")
    await until(lambda: {frame.node for frame in port.frames} >= {5, 6, 7})
    stop.set()
    await asyncio.wait_for(running, PATIENCE_S)
    assert not (tmp_path / "port").exists()
    port.close()
