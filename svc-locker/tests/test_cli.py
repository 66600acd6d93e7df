"""``patchbay locker``, against a real broker and a domain that answers what the test says."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from patchbay.bus import Bus, Message
from patchbay.errors import Rejected
from patchbay.messages import answer, refusal
from patchbay.testing import PATIENCE_S, MakeBus, Part
from patchbay_locker.cli import app, cell_or_auto

BOARD: dict[str, Any] = {
    "board": "1953",
    "online": True,
    "last_seen": "2026-03-01T12:00:00.000Z",
    "free": [1, 2, 4],
    "busy": [3],
    "blocked": False,
    "reports": 17,
    "alarms": ["wifi_fault"],
    "rentals": [
        {"rental": "id3", "cell": 3, "expires_at": "2026-03-01T13:00:00.000Z", "holder": None}
    ],
}
RENTAL: dict[str, Any] = {
    "rental": "id3",
    "board": "1953",
    "cell": 3,
    "code": "1492",
    "expires_at": "2026-03-01T13:00:00.000Z",
}
ACCESS: dict[str, Any] = {
    "board": "1953",
    "boot": 1,
    "send": 5,
    "cell": 54,
    "rental": None,
    "at": "2026-03-01T12:00:00.000Z",
    "maybe_repeat": True,
}


class Domain:
    """Answers each command with the next answer it was given; keeps what it was asked."""

    def __init__(self, bus: Bus) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.reply = answer()
        self._bus = bus
        bus.subscribe(bus.topics.command("locker", "+", "+"), self._handle)

    async def _handle(self, message: Message) -> None:
        body = json.loads(message.payload)
        body = body["data"] if body.get("confirm") else body
        self.asked.append((message.topic.removeprefix("patchbay/locker/"), body))
        await self._bus.publish(message.response_topic, self.reply, correlation=message.correlation)


@pytest.fixture
async def domain(make_bus: MakeBus) -> Domain:
    bus = make_bus("locker-domain-test")
    domain = Domain(bus)
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    return domain


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


Patchbay = Callable[..., Awaitable[Ended]]


@pytest.fixture
def locker(tmp_path: Path, mosquitto: Part, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patchbay]:
    """Runs ``patchbay locker ...`` beside the test's own loop."""
    monkeypatch.chdir(tmp_path)
    Path("patchbay.toml").write_text(f"[broker]\nport = {mosquitto.port}\n")

    async def run(*words: str) -> Ended:
        def invoke() -> Ended:
            result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
            return Ended(result.exit_code, result.stdout, result.stderr)

        return await asyncio.to_thread(invoke)

    # A command sets logging up for its process, which here is everybody's.
    handlers, level, kept = logging.root.handlers[:], logging.root.level, structlog.get_config()
    yield run
    structlog.configure(**kept)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("words", "topic", "body"),
    [
        (["boards"], "all/cmd/boards", {"active": False, "limit": 100, "skip": 0}),
        (["board", "AB"], "ab/cmd/state", {"active": False, "limit": 100, "skip": 0}),
        (["rentals"], "all/cmd/rentals", {"active": True, "limit": 100, "skip": 0}),
        (
            ["rentals", "1953", "--all", "--limit", "7"],
            "1953/cmd/rentals",
            {"active": False, "limit": 7, "skip": 0},
        ),
        (
            ["accesses", "1953", "--limit", "5"],
            "1953/cmd/accesses",
            {"active": False, "limit": 5, "skip": 0},
        ),
        (
            ["assign", "1953", "--minutes", "60"],
            "1953/cmd/assign",
            {"cell": "auto", "minutes": 60, "code": None, "holder": None},
        ),
        (
            ["assign", "1953", "5", "--minutes", "60", "--code", "0042", "--holder", "Ann"],
            "1953/cmd/assign",
            {"cell": 5, "minutes": 60, "code": "0042", "holder": "Ann"},
        ),
        (["revoke", "1953", "5"], "1953/cmd/revoke", {"cell": 5}),
        (["extend", "1953", "5", "30"], "1953/cmd/extend", {"cell": 5, "minutes": 30}),
        (["block", "1953"], "1953/cmd/block", {}),
        (["unblock", "1953"], "1953/cmd/unblock", {}),
        (["reset", "1953"], "1953/cmd/reset", {}),
        (["forget", "AB"], "ab/cmd/forget", {"documents": "keep", "force": False}),
        (
            ["forget", "1953", "--documents", "remove", "--force"],
            "1953/cmd/forget",
            {"documents": "remove", "force": True},
        ),
    ],
)
async def test_each_command_is_one_request_and_json_is_its_answer(
    locker: Patchbay, domain: Domain, words: list[str], topic: str, body: dict[str, Any]
) -> None:
    domain.reply = answer({"anything": [1, 2]})
    result = await locker(*words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"ok": True, "anything": [1, 2]}
    assert domain.asked == [(topic, body)]


@pytest.mark.parametrize(
    ("words", "reply", "said"),
    [
        (
            ["boards"],
            {"boards": [BOARD], "total": 1},
            ["1953", "yes", "3", "1", "no", "17", "wifi_fault"],
        ),
        (["boards"], {"boards": [BOARD], "total": 300}, ["boards (1 of 300)"]),
        (["board", "1953"], {"board": BOARD}, ["free", "1 2 4", "id3", "2026-03-01T13:00"]),
        (["rentals"], {"rentals": [RENTAL], "total": 1}, ["1953", "3", "id3"]),
        (["accesses"], {"accesses": [ACCESS], "total": 1}, ["54", "maybe repeat", "yes"]),
        (
            ["assign", "1953", "--minutes", "60"],
            RENTAL,
            ["cell 3 opens with code 1492 until 2026-03-01T13:00:00.000Z (rental id3)"],
        ),
        (["revoke", "1953", "3"], RENTAL, ["cell 3 is free: rental id3 has ended"]),
        (["extend", "1953", "3", "5"], RENTAL, ["cell 3 is rented until 2026-03-01T13:00"]),
        (["block", "1953"], {"blocked": True}, ["the board is blocked"]),
        (["unblock", "1953"], {"blocked": False}, ["the board is not blocked"]),
        (["reset", "1953"], {"reset_id": 4}, ["reboots when it reports next (reset 4)"]),
        (
            ["forget", "1953"],
            {"board": "1953", "documents": "remove", "removed": {"boards": 1, "accesses": 7}},
            ["board 1953 is forgotten; documents removed: boards 1, accesses 7"],
        ),
    ],
)
async def test_people_read_a_table_or_a_sentence(
    locker: Patchbay, domain: Domain, words: list[str], reply: dict[str, Any], said: list[str]
) -> None:
    domain.reply = answer(reply)
    result = await locker(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    for text in said:
        assert text in result.stdout


ESCAPES = chr(27) + "]0;owned" + chr(7) + chr(27) + "[2J" + chr(0x9B) + "31m"


@pytest.mark.parametrize("words", [["boards"], ["board", "1953"], ["rentals"]])
async def test_names_with_control_characters_do_not_reach_the_terminal(
    locker: Patchbay, domain: Domain, words: list[str]
) -> None:
    rental = {**BOARD["rentals"][0], "holder": ESCAPES}
    board = {**BOARD, "board": ESCAPES, "rentals": [rental]}
    domain.reply = answer(
        {"boards": [board], "rentals": [{**RENTAL, "holder": ESCAPES}], "total": 1}
        if words != ["board", "1953"]
        else {"board": board}
    )
    result = await locker(*words)
    assert result.exit_code == 0
    assert not {chr(27), chr(7), chr(0x9B)} & {*result.stdout}
    assert "owned" in result.stdout


async def test_a_refusal_is_a_line_on_stderr_and_exit_code_1(
    locker: Patchbay, domain: Domain
) -> None:
    domain.reply = refusal(Rejected("cell_busy", "cell 5 of board 1953 is rented"))
    result = await locker("assign", "1953", "5", "--minutes", "60", "--json")
    assert result.exit_code == 1
    assert result.stderr == "cell_busy: cell 5 of board 1953 is rented\n"
    assert result.stdout == ""


async def test_without_a_domain_the_answer_is_that_nobody_answered(locker: Patchbay) -> None:
    result = await locker("boards")
    assert result.exit_code == 1
    assert result.stderr == "no answer from the locker domain (is it running?)\n"


async def test_the_settings_may_be_in_another_file(
    locker: Patchbay, domain: Domain, tmp_path: Path
) -> None:
    (tmp_path / "patchbay.toml").rename(tmp_path / "house.toml")
    domain.reply = answer({"boards": [], "total": 0})
    result = await locker("boards", "--state", "elsewhere", "--config", "house.toml")
    assert (result.exit_code, len(domain.asked)) == (0, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["assign", "1953"],
        ["assign", "1953", "five", "--minutes", "1"],
        ["forget", "1953", "--documents", "burn"],
    ],
)
async def test_a_command_that_makes_no_sense_is_not_sent(
    locker: Patchbay, domain: Domain, words: list[str]
) -> None:
    result = await locker(*words)
    assert result.exit_code == 2
    assert domain.asked == []


def test_a_cell_is_a_number_or_auto() -> None:
    assert cell_or_auto("12") == 12
    assert cell_or_auto("auto") == "auto"
