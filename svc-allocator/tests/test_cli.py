"""``patchbay allocator`` against a whole service."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner, Result

from patchbay.testing import Part, free_port
from patchbay_allocator.cli import app
from patchbay_allocator.wire.combinator import Mix, encode

if TYPE_CHECKING:
    from conftest import Hall, House


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
    house: House, hall: Hall, mosquitto: Part, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> House:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATCHBAY_BROKER__PORT", str(mosquitto.port))
    monkeypatch.setenv("PATCHBAY_RUNTIME__STATE_DIR", str(tmp_path / "state"))
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    return house


async def run(*arguments: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments])


async def said(*arguments: object) -> str:
    result = await run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


async def test_every_command_of_the_queue(started: House) -> None:
    assert await said("mode") == "the mode is auto\n"
    assert await said("mode", "manual") == "the mode is manual\n"
    job = json.loads(await said("submit", "이름", "#696969", "--json"))["job"]
    assert await said("recolor", job, "abcdef") == f"job {job} is to be ABCDEF\n"
    listed = await said("list", "--status", "waiting", "--customer", "름")
    assert all(word in listed for word in (job, "이름", "ABCDEF", "waiting", "patchbay"))
    assert "patchbay" in await said("show", job)
    shown = json.loads(await said("show", job, "--json"))["job"]
    assert (shown["_id"], shown["data"]["ColorCode"]) == (job, "ABCDEF")
    assert await said("assign", job, 2) == f"combinator 2 gets job {job}\n"
    await started.counted(done=1)
    refused = await run("assign", job, 2)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("already_done: ")
    assert await said("assign", job, 1, "--force") == f"combinator 1 gets job {job}\n"
    await started.counted(done=1)
    assert (await run("retry", job)).stderr.startswith("wrong_state: ")
    assert await said("delete", job) == f"job {job} is deleted\n"
    other = json.loads(await said("submit", "이름", "696969", "--client", "me", "--json"))["job"]
    assert await said("cancel", other) == f"job {other} is cancelled\n"
    assert json.loads(await said("list", "--json")) == {"ok": True, "jobs": [], "total": 0}


async def test_send_is_a_chromebook(started: House, tmp_path: Path) -> None:
    conf, data = tmp_path / "conf.conf", tmp_path / "data.dat"
    conf.write_text(
        f"ClientName: CHROMEBOOK_01\nServerAddr: 127.0.0.1\nServerPort: {started.port}\n"
    )
    data.write_text("이름\nFFFFFF\n")
    where = f"sent to 127.0.0.1:{started.port}\n"
    assert await said("send", "--conf", conf, "--data", data) == where
    plain = ("--client", "B", "--host", "127.0.0.1", "--port", started.port)
    assert await said("send", *plain, "--customer", "C", "--color", "#000000") == where
    await started.counted(done=2)
    documents = await started.documents()
    assert [one["ClientName"] for one in documents] == ["CHROMEBOOK_01", "B"]
    for wrong, why in (
        (("--conf", conf), "one is missing"),
        ((*plain, "--customer", "C", "--color", "red"), "bad_color"),
        (("--conf", tmp_path / "none", "--data", data), "No such file"),
        (("--conf", conf, "--data", data, "--port", free_port()), "127.0.0.1:"),
    ):
        result = await run("send", *wrong)
        assert result.exit_code == 1
        assert why in result.output


async def test_import_conf_prints_the_table(tmp_path: Path) -> None:
    path = tmp_path / "allocatemgr.conf"
    path.write_text("ColorCombinator1Addr: a\nColorCombinator1Port: 5000\n")
    assert await said("import-conf", path) == '[allocator]\ncombinators = ["a:5000"]\n'
    result = await run("import-conf", tmp_path / "none")
    assert (result.exit_code, "No such file" in result.output) == (1, True)


async def test_forget_removes_the_jobs_of_a_chromebook(started: House) -> None:
    await said("submit", "이름", "696969", "--client", "CHROMEBOOK_09")
    await started.counted(done=1)
    assert await said("forget", "CHROMEBOOK_09", "--documents", "remove") == (
        "CHROMEBOOK_09 is forgotten; documents removed: combinators 0, jobs 1\n"
    )
    result = await run("forget", "combinator-1")
    assert (result.exit_code, "in_use: combinator-1 is in the settings" in result.output) == (
        1,
        True,
    )


SEEDS_OWN = """[DEFAULT]
ColorCombinator1Addr = localhost
ColorCombinator1Port = 5000
ColorCombinator2Addr = localhost
ColorCombinator2Port = 5001
SignalAddr = localhost
SignalPort = 5000
"""


async def test_import_conf_warns_of_ports_that_are_our_own(tmp_path: Path) -> None:
    path = tmp_path / "allocatemgr.conf"
    path.write_text(SEEDS_OWN)
    result = await run("import-conf", path)
    assert result.exit_code == 0
    assert result.stdout == '[allocator]\ncombinators = ["localhost:5000", "localhost:5001"]\n'
    first, second = result.stderr.splitlines()
    assert first.startswith("warning: localhost:5000 is our own port locker ([locker] port)")
    assert second.startswith("warning: localhost:5001 is our own port mesh ([mesh] port)")


async def test_combinator_is_a_program_that_mixes(tmp_path: Path) -> None:
    import sys

    port = free_port()
    command = [sys.executable, "-m", "patchbay.cli", "allocator", "combinator"]
    command += ["--port", str(port), "--device", "2", "--seconds", "0", "--host", "127.0.0.1"]
    part = Part("combinator", tmp_path, lambda: command, port)
    await asyncio.to_thread(part.start)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode(Mix("a", "696969")))
        answer = json.loads(await reader.readuntil(b"}"))
        assert answer == {"_id": "a", "status": "done", "device": 2}
        writer.close()
    finally:
        await asyncio.to_thread(part.stop)
