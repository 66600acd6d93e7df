"""A mesh that speaks real bytes: a root on a pseudo-terminal, with nodes that report and talk.

`Root` is the device: a name in the file system that leads to its port, commands that it reads, and
frames that it sends. It can be unplugged and plugged in again. `run` is the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from patchbay_mesh.data_types import gps_bytes
from patchbay_mesh.settings import MeshSettings, serial_port
from patchbay_mesh.wire.content import (
    JOINED,
    REQUEST,
    RESTARTED,
    Value,
    data_frame,
    message_frame,
    network_frame,
)
from patchbay_mesh.wire.uart import TO_A_NODE, TO_ALL, Command, CommandDecoder, Frame, encode

if TYPE_CHECKING:
    from patchbay.settings import Config

ROOT_ADDRESS: Final = 0
UUID_BYTES: Final = 16
READ_BYTES: Final = 65_536
BOOT_LOG: Final = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"I (29) boot: ESP-IDF v4.4 2nd stage bootloader\r\nI (642) mesh: root is up\r\n"
)
"""What an ESP32 says before it speaks in frames."""

TALKS: Final = ("hello", "battery 87 %", "turning left", "all well")
TALK_RATE: Final = 0.2
"""How often a node of the demo says something beside its report."""

JOINS_EVERY: Final = 20
"""A node of the demo says after so many reports that it has joined, and with it its uuid."""

HOME: Final = (37.566, 126.978)
WANDERS: Final = 0.002


class Root:
    """The root of a simulated mesh, at the end of a pseudo-terminal named ``link``."""

    def __init__(self, link: Path, nodes: Sequence[int]) -> None:
        self.link = link
        self.nodes = list(nodes)
        self.commands: list[Command] = []
        """All that it was told, in order."""
        self.on_command: Callable[[Command], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._decoder = CommandDecoder()
        self._ends: tuple[int, int] | None = None
        self._writing = asyncio.Lock()

    @property
    def plugged(self) -> bool:
        """Is there a port?"""
        return self._ends is not None

    def plug(self) -> None:
        """Make the port, and say the boot log."""
        if self._ends is not None:
            return
        ours, theirs = os.openpty()
        tty.setraw(theirs)  # or what is sent before somebody opens it would be echoed to us
        os.set_blocking(ours, False)
        self._ends = ours, theirs
        self._decoder = CommandDecoder()
        new = self.link.with_name(f".{self.link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(os.ttyname(theirs))
        new.replace(self.link)
        self._loop.add_reader(ours, self._readable)
        os.write(ours, BOOT_LOG)

    def unplug(self) -> None:
        """Take the port away, with what was not read of it."""
        ends, self._ends = self._ends, None
        if ends is None:
            return
        self.link.unlink(missing_ok=True)
        self._loop.remove_reader(ends[0])
        self._loop.remove_writer(ends[0])
        for descriptor in ends:
            os.close(descriptor)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; returns when the port has taken them all. OSError: unplugged."""
        async with self._writing:
            while data:
                if self._ends is None:
                    raise OSError("unplugged")
                try:
                    data = data[os.write(self._ends[0], data) :]
                except BlockingIOError:
                    await self._room(self._ends[0])

    async def report(self, node: int, *values: Value) -> None:
        """A node reports values."""
        await self.send(encode(data_frame(node, values)))

    async def say(self, node: int, message: bytes) -> None:
        """A node says something."""
        await self.send(encode(message_frame(node, message)))

    async def ask(self, node: int, payload: bytes) -> None:
        """A node asks the application something."""
        await self.send(encode(Frame(node, REQUEST, payload)))

    async def join(self, node: int) -> None:
        """A node joins the mesh."""
        await self.send(encode(Frame(node, JOINED, uuid_of(node))))

    async def restart(self) -> None:
        """The root restarts."""
        await self.send(BOOT_LOG + encode(Frame(ROOT_ADDRESS, RESTARTED)))

    # Details

    async def _room(self, descriptor: int) -> None:
        """Wait until the port takes something, or is unplugged."""
        room = asyncio.Event()
        self._loop.add_writer(descriptor, room.set)
        try:
            while self._ends is not None and not room.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await room.wait()
        finally:
            if self._ends is not None:
                self._loop.remove_writer(descriptor)

    def _readable(self) -> None:
        if self._ends is None:
            return
        try:
            data = os.read(self._ends[0], READ_BYTES)
        except OSError:  # nothing there after all
            return
        for command in self._decoder.feed(data):
            self.commands.append(command)
            if self.on_command is not None:
                self.on_command(command)


class Mesh:
    """A root whose nodes live: they report, talk, answer, and know who is there."""

    def __init__(self, root: Root, interval_s: float, chance: random.Random | None = None) -> None:
        self._root = root
        self._interval_s = interval_s
        self._chance = chance or random.Random()
        self._places = dict.fromkeys(root.nodes, HOME)
        self._answers: set[asyncio.Task[None]] = set()
        root.on_command = self._told

    async def live(self) -> None:
        """Until cancelled. While the root is unplugged nobody hears them."""
        async with asyncio.TaskGroup() as group:
            for node in self._root.nodes:
                group.create_task(self._node(node))

    async def _node(self, node: int) -> None:
        chance = self._chance
        await asyncio.sleep(chance.random() * self._interval_s)
        count = 0
        while True:
            latitude, longitude = self._places[node]
            latitude += chance.uniform(-WANDERS, WANDERS)
            longitude += chance.uniform(-WANDERS, WANDERS)
            self._places[node] = latitude, longitude
            count += 1
            values = Value(b"GPS", gps_bytes(latitude, longitude)), Value(b"CNT", _counter(count))
            with contextlib.suppress(OSError):
                if count % JOINS_EVERY == 2:  # its first word is lost if nobody has opened the port
                    await self._root.join(node)
                await self._root.report(node, *values)
                if chance.random() < TALK_RATE:
                    await self._root.say(node, chance.choice(TALKS).encode())
            await asyncio.sleep(self._interval_s * chance.uniform(0.8, 1.2))

    def _told(self, command: Command) -> None:
        task = asyncio.create_task(self._answer(command))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, command: Command) -> None:
        root = self._root
        with contextlib.suppress(OSError):
            if command.name == b"NINFO":
                members = [(node, uuid_of(node)) for node in root.nodes]
                await root.send(encode(network_frame(ROOT_ADDRESS, members[:255])))
            elif command.name == b"RST-R":
                await root.restart()
            elif command.name in (TO_A_NODE, TO_ALL):
                to = [command.node] if command.name == TO_A_NODE else root.nodes
                for node in to:
                    if node in root.nodes:
                        await root.say(node, b"you said " + command.message[:200])


def uuid_of(node: int) -> bytes:
    """The uuid that a simulated node has."""
    return b"patchbay-mesh-".ljust(UUID_BYTES - 2, b"\0") + node.to_bytes(2, "big")


def _counter(count: int) -> bytes:
    return (count & 0xFFFF).to_bytes(2, "big")


async def simulate(link: Path, nodes: int, interval_s: float, stop: asyncio.Event) -> None:
    """A mesh with so many nodes, from address 5 on, at a port named ``link`` until ``stop``."""
    root = Root(link, range(5, 5 + nodes))
    mesh = Mesh(root, interval_s)
    root.plug()
    try:
        living = asyncio.create_task(mesh.live())
        await stop.wait()
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living
    finally:
        root.unplug()


async def run(config: Config, stop: asyncio.Event) -> None:
    """The demo: a mesh at the port that the UART edge opens."""
    settings = config.table("mesh", MeshSettings)
    link = serial_port(config)
    if settings.serial is not None or link is None:
        await stop.wait()  # a real root is named
        return
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    await simulate(Path(link), settings.demo_nodes, settings.demo_interval_s, stop)
