"""Asking a service over the bus, against a real broker and a domain written by hand."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
import typer

from patchbay.bus import Bus, Message
from patchbay.cli.client import EVERY, System, ask, print_json, print_table, request
from patchbay.errors import Rejected, Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, Part, free_port


class Turn(msgspec.Struct):
    steps: int


def system_at(place: Path, port: int, timeout_s: float = 10.0) -> System:
    """A system whose broker listens on this port."""
    config = place / "house.toml"
    config.write_text(f"[broker]\nport = {port}\n")
    return System(place / "state", config, timeout_s)


@pytest.fixture
def system(tmp_path: Path, mosquitto: Part) -> System:
    return system_at(tmp_path, mosquitto.port)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command sets logging up for its process, which here is everybody's."""
    handlers, level, kept = logging.root.handlers[:], logging.root.level, structlog.get_config()
    yield
    structlog.configure(**kept)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


async def a_domain(bus: Bus, reply: bytes) -> list[tuple[str, bytes]]:
    """A domain of the service ``gadget`` that answers everything alike. What it was asked."""
    asked: list[tuple[str, bytes]] = []

    async def handle(message: Message) -> None:
        asked.append((message.topic, message.payload))
        await bus.publish(message.response_topic, reply, correlation=message.correlation)

    bus.subscribe(bus.topics.command("gadget", "+", "+"), handle)
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    return asked


async def test_a_request_reaches_the_device_and_brings_the_answer(
    system: System, make_bus: MakeBus
) -> None:
    asked = await a_domain(make_bus("domain"), b'{"ok": true, "turned": 3}')
    answer = await request(system, "gadget", "Mixer", "turn", Turn(3))
    assert answer == {"ok": True, "turned": 3}
    assert asked == [("patchbay/gadget/mixer/cmd/turn", b'{"steps":3}')]


async def test_a_question_about_all_devices_has_a_device_of_its_own(
    system: System, make_bus: MakeBus
) -> None:
    asked = await a_domain(make_bus("domain"), b'{"ok": true}')
    await request(system, "gadget", EVERY, "list", Turn(0))
    assert asked[0][0] == "patchbay/gadget/all/cmd/list"


async def test_a_refusal_brings_its_code(system: System, make_bus: MakeBus) -> None:
    refusal = b'{"ok": false, "error": {"code": "too_far", "message": "it ends at 2"}}'
    await a_domain(make_bus("domain"), refusal)
    with pytest.raises(Rejected, match="too_far: it ends at 2"):
        await request(system, "gadget", "mixer", "turn", Turn(3))


@pytest.mark.parametrize("reply", [b"", b"[]", b"hello", b'{"fine": 1}'])
async def test_an_answer_that_is_none_is_an_error(
    system: System, make_bus: MakeBus, reply: bytes
) -> None:
    await a_domain(make_bus("domain"), reply)
    with pytest.raises(Unavailable, match="invalid response from the gadget domain"):
        await request(system, "gadget", "mixer", "turn", Turn(3))


async def test_a_domain_that_is_not_there_is_named(tmp_path: Path, mosquitto: Part) -> None:
    system = system_at(tmp_path, mosquitto.port, timeout_s=1.0)
    with pytest.raises(Unavailable, match=r"no answer from the gadget domain \(is it running\?\)"):
        await request(system, "gadget", "mixer", "turn", Turn(3))


async def test_a_request_lives_at_the_broker_as_long_as_somebody_waits(
    tmp_path: Path, mosquitto: Part
) -> None:
    topic = ["-t", "patchbay/gadget/mixer/cmd/turn", "-F", "%E", "-C", "1", "-V", "5"]
    listener = await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-p", str(mosquitto.port), *topic, stdout=asyncio.subprocess.PIPE
    )
    heard = asyncio.create_task(listener.communicate())
    system = system_at(tmp_path, mosquitto.port, timeout_s=1.2)
    async with asyncio.timeout(PATIENCE_S):
        while not heard.done():
            with pytest.raises(Unavailable):
                await request(system, "gadget", "mixer", "turn", Turn(3))
    expiry_s, _ = await heard
    assert int(expiry_s) == 2


async def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=f"no broker at 127.0.0.1:{port}"):
        await request(system_at(tmp_path, port, timeout_s=0.1), "gadget", "mixer", "turn", Turn(3))


def test_an_error_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nowhere.toml"
    with pytest.raises(typer.Exit) as ended:
        ask(System(config=missing), "gadget", "mixer", "turn", Turn(3))
    assert ended.value.exit_code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{missing}: No such file or directory\n"


# Printing


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ok": True, "cells": [1, 2]})
    assert json.loads(capsys.readouterr().out) == {"ok": True, "cells": [1, 2]}


def test_a_table_shows_every_value_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "0123456789" * 12
    print_table("gadgets", ("name", "on", "at", "cells"), [(long, True, None, [1, 2])])
    out = capsys.readouterr().out
    assert "…" not in out
    assert sum(character.isdigit() for character in out) == len(long) + 2
    assert "yes" in out


def test_a_row_is_a_line_where_no_terminal_ends_it_and_folded_where_one_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = "2026-11-20T14:04:52.877Z"
    rows = [("x" * 60, at, at)]
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("gadgets", ("name", "from", "to"), rows)
    assert capsys.readouterr().out.splitlines()[2].split() == list(rows[0])
    monkeypatch.setenv("COLUMNS", "80")
    print_table("gadgets", ("name", "from", "to"), rows)
    folded = capsys.readouterr().out.splitlines()
    assert len(folded) > 3
    assert max(map(len, folded)) == 80


def test_what_a_device_says_is_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("gadgets", ("name",), [("[red]x[/red] :smile:",), (5,), (False,)])
    out = capsys.readouterr().out
    assert "[red]x[/red] :smile:" in out
    assert "no" in out
