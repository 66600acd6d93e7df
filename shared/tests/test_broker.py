"""Against a real mosquitto: it starts with whatever file a power cut left behind."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patchbay import broker, durable
from patchbay.bus import Bus, Message
from patchbay.errors import SettingsError
from patchbay.testing import PATIENCE_S, Part, broker_settings, free_port, mosquitto_part, until
from patchbay.topics import Topics

TOPICS = Topics()
TOPIC = TOPICS.state("locker", "b1")


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """A mosquitto that has not been started."""
    part = mosquitto_part(tmp_path / "broker")
    yield part
    part.stop()


def make_bus(part: Part) -> Bus:
    return Bus(broker_settings(part.port), client_id="test", topics=TOPICS, announce=False)


async def keep_a_message(part: Part) -> Path:
    """Let mosquitto write a file with a retained message in it; returns the file."""
    part.start()
    async with make_bus(part) as bus:
        await bus.wait_connected(PATIENCE_S)
        await bus.publish(TOPIC, b"kept" * 100, retain=True)
    part.stop()
    return part.log.parent / broker.DATABASE


async def retained(part: Part) -> list[bytes]:
    """What a new subscriber is told at once: what was retained, up to a message of its own."""
    seen: list[bytes] = []

    def heard(message: Message) -> None:
        message.ack()
        seen.append(message.payload)

    bus = make_bus(part)
    bus.listen(TOPICS.state("locker", "+"), heard)
    async with bus:
        await bus.wait_connected(PATIENCE_S)
        await bus.publish(TOPICS.state("locker", "last"), b"last")
        await until(lambda: b"last" in seen)
    return seen[:-1]


def set_aside(database: Path) -> bool:
    return database.with_name("mosquitto.db.bad").exists()


async def test_a_good_file_is_kept_and_its_messages_are_there(part: Part) -> None:
    database = await keep_a_message(part)
    part.start()
    assert await retained(part) == [b"kept" * 100]
    assert not set_aside(database)


async def test_the_files_of_mosquitto_begin_as_we_think(part: Part) -> None:
    database = await keep_a_message(part)
    assert database.read_bytes().startswith(broker.MAGIC)


async def test_a_file_of_zeros_is_moved_aside_and_the_broker_starts(part: Part) -> None:
    database = await keep_a_message(part)
    database.write_bytes(bytes(database.stat().st_size))
    part.start()
    assert await retained(part) == []
    assert set_aside(database)


async def test_a_truncated_file_is_moved_aside_and_the_broker_starts(part: Part) -> None:
    database = await keep_a_message(part)
    whole = database.read_bytes()
    for size in (5, len(broker.MAGIC), 40, 60, len(whole) - 1):
        database.write_bytes(whole[:size])
        part.start()
        part.stop()
    assert set_aside(database)


async def test_garbage_after_a_good_head_is_moved_aside_and_the_broker_starts(part: Part) -> None:
    database = await keep_a_message(part)
    head = database.read_bytes()[: len(broker.MAGIC)]
    database.write_bytes(head + random.Random(7).randbytes(5000))
    part.start()
    assert set_aside(database)


async def test_earlier_damaged_files_are_never_overwritten(part: Part) -> None:
    database = await keep_a_message(part)
    for number in (1, 2, 3):
        database.write_bytes(b"damage %d" % number)
        part.start()
        part.stop()
    aside = [one for one in durable.places_aside(database) if one.exists()]
    assert [one.read_bytes() for one in aside] == [b"damage 1", b"damage 2", b"damage 3"]


def newer(whole: bytes) -> bytes:
    """A file of a version that this mosquitto does not know."""
    at = whole.index(broker.MAGIC) + len(broker.MAGIC)
    return whole[:at] + b"\xff" * 8 + whole[at + 8 :]


def endless(whole: bytes) -> bytes:
    """A chunk that says to be longer than any file."""
    return whole[:40] + b"\x7f\xff\xff\xff" * 4 + whole[56:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "zeroes": lambda whole: bytes(len(whole)),
    "cut": lambda whole: whole[: len(whole) * 2 // 3],
    "noise": lambda whole: whole[:30] + random.Random(3).randbytes(len(whole)),
    "a newer version": newer,
    "an endless chunk": endless,
    "no file of mosquitto": lambda whole: b"something else" + whole,
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_file_that_is_damaged_while_the_broker_runs_stops_neither_it_nor_the_next(
    part: Part, kind: str
) -> None:
    database = await keep_a_message(part)
    part.start()
    database.write_bytes(DAMAGE[kind](database.read_bytes()))
    assert await retained(part) == [b"kept" * 100]
    await asyncio.to_thread(part.kill)
    began = time.monotonic()
    part.start()
    assert time.monotonic() - began < 10
    part.stop()


async def test_an_empty_file_is_no_obstacle(part: Part) -> None:
    database = await keep_a_message(part)
    database.write_bytes(b"")
    part.start()
    assert not set_aside(database)


async def test_the_supervised_process_becomes_mosquitto(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "patchbay.broker", "--state", str(tmp_path / "broker")]
    part = Part("module", tmp_path, lambda: [*command, "--port", str(port)], port)
    part.start()
    try:
        assert Path(os.readlink(f"/proc/{part.pid}/exe")).name == "mosquitto"
    finally:
        part.stop()


def test_every_placeholder_of_the_configuration_is_filled_in(tmp_path: Path) -> None:
    broker.prepare(tmp_path, 1884)
    lines = (tmp_path / broker.CONFIGURATION).read_text().splitlines()
    assert "listener 1884 127.0.0.1" in lines
    assert f"persistence_location {tmp_path}/" in lines
    assert not [line for line in lines if "@" in line]


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no broker configuration at .*nowhere\.conf"):
        broker.prepare(tmp_path, 1884, template=tmp_path / "nowhere.conf")


def test_the_templates_are_installed_with_the_package(tmp_path: Path) -> None:
    """Where only a wheel is, as on a Pi and in an image."""
    root = Path(__file__).resolve().parents[2]
    builder = (
        "from flit_core.buildapi import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    )
    built = subprocess.run(
        [sys.executable, "-c", builder, str(tmp_path)],
        cwd=root / "shared",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "installed")
    program = (
        "import pathlib, sys; from patchbay import broker;"
        "print(broker.__file__); broker.prepare(pathlib.Path(sys.argv[1]), 1883)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert ran.stdout.startswith(str(tmp_path / "installed"))
    assert "listener 1883 127.0.0.1" in (tmp_path / "state/mosquitto.conf").read_text()


def test_the_pages_of_the_broker_show_the_files_that_are_installed() -> None:
    root = Path(__file__).resolve().parents[2]
    for template in broker.TEMPLATES.glob("*.conf"):
        assert (root / "broker" / template.name).resolve() == template
