"""What other clients of the broker may do: they keep no unit out and take no room without bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay import broker
from patchbay.bus import Bus
from patchbay.errors import PatchbayError
from patchbay.testing import PATIENCE_S, Part, broker_settings, free_port, until
from patchbay.topics import Topics
from tests.secure import SecureBroker

IDLE = 1_200
"""More than the 1,024 files that a process has if nobody raises that."""
MEMORY = 12_000_000
ROOM = 200_000
"""Bytes of a message that a hostile client retains."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process have as many connections open as a hostile one has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4 * IDLE), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Part]:
    """The broker of `up`, started from a shell that gives it 1,024 files, as most do."""
    port = free_port()
    arguments = [sys.executable, "-m", "patchbay.broker", "--state", str(tmp_path / "broker")]
    command = ["/bin/sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", *arguments]
    part = Part("mosquitto", tmp_path, lambda: [*command, "--port", str(port)], port)
    part.start()
    yield part
    part.stop()


def connect_packet(client_id: str) -> bytes:
    """An MQTT 3.1.1 CONNECT with a keepalive of 0: this client may be silent for ever."""
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client_id).to_bytes(2) + client_id.encode()
    return bytes([0x10, len(body)]) + body


@contextlib.contextmanager
def idle(port: int, packet: bool = True) -> Iterator[list[socket.socket]]:
    """Connections that do nothing any more."""
    opened: list[socket.socket] = []
    try:
        for number in range(IDLE):
            one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            opened.append(one)
            if packet:
                one.sendall(connect_packet(f"idle-{number}"))
                assert one.recv(4) == b"\x20\x02\x00\x00"
        yield opened
    finally:
        for one in opened:
            one.close()


def unit(port: int, client_id: str = "locker-edge-x") -> Bus:
    return Bus(broker_settings(port), client_id=client_id, topics=Topics())


async def works(bus: Bus) -> None:
    """It gets in, and its messages are taken."""
    await bus.wait_connected(PATIENCE_S)
    await bus.set_ready()
    await bus.wait_online(PATIENCE_S)
    assert await bus.publish("patchbay/locker/b1/event/report", b"{}" * 1000) in (0, 0x10)


@pytest.mark.parametrize("packet", [True, False], ids=["mqtt", "silent"])
async def test_more_than_a_thousand_idle_connections_keep_no_unit_out(
    local: Part, packet: bool
) -> None:
    with idle(local.port, packet):
        async with unit(local.port) as bus:
            await works(bus)


def _limited(tmp_path: Path) -> Part:
    """A broker of ours, with less memory than usual."""
    port = free_port()

    def command() -> list[str]:
        made = broker.prepare(tmp_path / "broker", port)
        path = tmp_path / "broker" / broker.CONFIGURATION
        text = path.read_text().replace(str(broker.MEMORY), str(MEMORY))
        assert f"memory_limit {MEMORY}\n" in text
        path.write_text(text)
        return made

    return Part("mosquitto", tmp_path, command, port)


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_topics_that_a_client_makes_up_take_no_memory_without_bound(tmp_path: Path) -> None:
    part = _limited(tmp_path)
    part.start()
    try:
        async with unit(part.port) as bus:
            await works(bus)
            async with unit(part.port, "hostile") as hostile:
                await hostile.wait_connected(PATIENCE_S)
                for number in range(3 * MEMORY // ROOM):
                    with contextlib.suppress(PatchbayError):
                        await hostile.publish(f"x/{number}", b"z" * ROOM, retain=True)
                    if hostile.reconnects:
                        break
                assert hostile.reconnects, "nobody stopped it"
            await works(bus)
            assert bus.reconnects == 0
            assert resident(part.pid) < 2 * MEMORY + 20_000_000
    finally:
        part.stop()


async def test_sessions_under_made_up_names_take_no_memory_without_bound(tmp_path: Path) -> None:
    part = _limited(tmp_path)
    part.start()
    try:
        async with unit(part.port) as bus:
            await works(bus)
            for number in range(30):
                command = ["mosquitto_sub", "-p", str(part.port), "-V", "mqttv5", "-q", "1", "-E"]
                command += ["-i", f"made-up-{number}", "-c", "-x", "4294967294", "-t", "x/#"]
                await asyncio.to_thread(subprocess.run, command, check=True, timeout=PATIENCE_S)
            async with unit(part.port, "hostile") as hostile:
                await hostile.wait_connected(PATIENCE_S)
                for _ in range(3 * MEMORY // ROOM):
                    with contextlib.suppress(PatchbayError):
                        await hostile.publish("x/1", b"z" * ROOM)
                    if hostile.reconnects:
                        break
            await works(bus)
            assert bus.reconnects == 0
            assert resident(part.pid) < 2 * MEMORY + 20_000_000
    finally:
        part.stop()


async def test_units_of_the_brokers_own_machine_get_in_whoever_fills_the_other_port(
    tmp_path: Path,
) -> None:
    part = SecureBroker(tmp_path)
    part.start()
    name = part.instances[0]
    settings = part.settings(name, port=part.plain_port, tls=False, ca_file=None)
    try:
        with idle(part.port, packet=False) as opened:
            await until(lambda: any(_is_closed(one) for one in opened[-10:]))  # more are refused
            async with Bus(settings, client_id=name, topics=Topics()) as bus:
                await bus.wait_connected(PATIENCE_S)
                assert await bus.publish(f"patchbay/status/{name}", b"online") in (0, 0x10)
    finally:
        part.stop()


def _is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_a_viewer_retains_nothing_on_topics_that_it_makes_up(tmp_path: Path) -> None:
    part = SecureBroker(tmp_path)
    part.start()
    try:
        async with part.bus("viewer") as bus:
            await bus.wait_connected(PATIENCE_S)
            for topic in ("patchbay/reply/viewer/1", "patchbay/reply/x", "x", "patchbay/x/y/state"):
                assert await bus.publish(topic, b"1", retain=True) == 0x87, topic
            assert await bus.publish("patchbay/reply/viewer", b"1", retain=True) in (0, 0x10)
    finally:
        part.stop()
