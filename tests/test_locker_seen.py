"""The locker as a new user sees it: the C clients, a board's own bytes, the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from patchbay.testing import until
from tests.house import PATIENCE_S, House, Line

REQUEST = (
    b"ACon_V1.0\r\nID=1953\r\nSEND=%d\r\nCONNECTION=1\r\nWIFI_STATE=0\r\nGSM_STATE=0\r\n"
    b"RESET=%d\r\nSTATE=0\r\nCOLS=8\r\nROWS=8\r\n"
    b"ACT_CON=01011011,11111111,10110111,11111111,10011111,11111111,10110111,11111111\r\n"
    b"BOX_ENG=2,5,8,23,24,25\r\nBOX_TO=33,34\r\nBOX_ACC=1,54,43\r\nCLOSE"
)
FIRST_SEND = 141_349
EMPTY = b"ACon_V1.0\nID=1953\nSEND=141349\nRESET=0\nSTATE=0\nCLOSE\n"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path) as house:
        yield house


class TheBoard:
    """Board 1953 of the worked case. Each message has the next SEND."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.send = FIRST_SEND - 1

    async def report(self) -> bytes:
        """Report, and return the answer."""
        self.send += 1
        await self._line.say(REQUEST % (self.send, self.send == FIRST_SEND))
        return await self._line.hear()

    async def until_told(self, codes: bytes) -> None:
        """Report until the answer has these lines, and no other, between STATE and CLOSE."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self.report()
                if answer == b"ACon_V1.0\nID=1953\nSEND=%d\nRESET=0\nSTATE=0\n%sCLOSE\n" % (
                    self.send,
                    codes,
                ):
                    return


@pytest.fixture
async def board(house: House) -> AsyncIterator[TheBoard]:
    """The board, known to the service."""
    async with Line(house.edge.port) as line:
        board = TheBoard(line)
        assert await board.report() == EMPTY
        await until_known(house)
        yield board


async def until_known(house: House) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await house.documents("boards"):  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)


class Watcher:
    """``mosquitto_sub -v`` and what it has printed: topic -> payloads."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}

    async def read(self, output: asyncio.StreamReader) -> None:
        async for line in output:
            topic, _, payload = line.decode().rstrip("\n").partition(" ")
            self.seen.setdefault(topic, []).append(payload)

    def last(self, topic: str) -> Any:
        """The last payload of a topic, as the JSON that it is."""
        return json.loads(self.seen[topic][-1])


@contextlib.asynccontextmanager
async def mosquitto_sub(house: House, pattern: str) -> AsyncIterator[Watcher]:
    """Run it, subscribed."""
    marker = "patchbay/locker/marker/status"
    process = await asyncio.create_subprocess_exec(
        *("mosquitto_sub", "-p", str(house.broker.port), "-v", "-t", pattern, "-q", "1"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    watcher = Watcher()
    reading = asyncio.create_task(watcher.read(process.stdout))
    try:
        await said(house, lambda: marker in watcher.seen, marker)
        yield watcher
    finally:
        process.terminate()
        await process.wait()
        await reading


async def said(house: House, heard: Callable[[], bool], topic: str) -> None:
    """Say something on a topic until it is heard: then the subscription stands."""
    async with asyncio.timeout(PATIENCE_S):
        while not heard():
            await house.bus.publish(topic, b"here")
            await asyncio.sleep(0.02)


async def run(*command: str, environ: dict[str, str] | None = None) -> str:
    """Run a program to its good end and return what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def test_mosquitto_sub_shows_reports_states_and_events_as_readable_json(
    house: House,
) -> None:
    device = "patchbay/locker/1953"
    async with mosquitto_sub(house, "patchbay/locker/#") as watcher, Line(house.edge.port) as line:
        assert await TheBoard(line).report() == EMPTY
        topics = {f"{device}/{name}" for name in ("state", "status", "desired")}
        topics |= {f"{device}/event/{name}" for name in ("report", "online", "opened", "rebooted")}
        await until(lambda: topics <= set(watcher.seen))
        opened = f"{device}/event/opened"
        await until(lambda: len(watcher.seen[opened]) == 3)

        report = watcher.last(f"{device}/event/report")
        assert report["specversion"] == "1.0"
        assert report["subject"] == "1953"
        assert report["data"]["send"] == FIRST_SEND
        assert report["data"]["box_acc"] == [1, 54, 43]
        assert report["data"]["act_con"][0] == "01011011"
        state = watcher.last(f"{device}/state")
        assert (state["board"], state["online"], state["reports"], state["accesses"]) == (
            *("1953", True),
            *(1, 3),
        )
        assert state["free"][:3] == [2, 4, 5]
        assert state["busy"] == []
        cells = [json.loads(payload)["data"]["cell"] for payload in watcher.seen[opened]]
        assert cells == [1, 54, 43]
        assert watcher.last(f"{device}/event/rebooted")["data"]["send"] == FIRST_SEND
        assert watcher.seen[f"{device}/status"] == ["online"]


async def test_mosquitto_rr_assigns_a_code_and_the_board_gets_it_with_the_minutes_left(
    house: House, board: TheBoard
) -> None:
    answer = json.loads(
        await run(
            *("mosquitto_rr", "-V", "mqttv5", "-p", str(house.broker.port), "-q", "1", "-W", "20"),
            *("-t", "patchbay/locker/1953/cmd/assign", "-e", "patchbay/reply/somebody"),
            *("-m", '{"cell": 2, "minutes": 4800, "code": "1492"}'),
        )
    )
    assert (answer["ok"], answer["cell"], answer["code"]) == (True, 2, "1492")
    await board.until_told(b"BOX_ENG=(2,1492,4800)\n")

    refused = json.loads(
        await run(
            *("mosquitto_rr", "-V", "mqttv5", "-p", str(house.broker.port), "-q", "1", "-W", "20"),
            *("-t", "patchbay/locker/1953/cmd/assign", "-e", "patchbay/reply/somebody"),
            *("-m", '{"cell": 2, "minutes": 1}'),
        )
    )
    assert refused["ok"] is False
    assert refused["error"]["code"] == "cell_busy"


async def test_a_plain_mqtt_3_command_is_obeyed_and_a_refusal_is_an_event(
    house: House, board: TheBoard
) -> None:
    publish = ("mosquitto_pub", "-V", "mqttv311", "-p", str(house.broker.port))
    command = "patchbay/locker/1953/cmd"
    async with mosquitto_sub(house, "patchbay/locker/#") as watcher:
        assign = '{"cell": "auto", "minutes": 60, "code": "0042"}'
        await run(*publish, "-q", "1", "-t", f"{command}/assign", "-m", assign)
        await board.until_told(b"BOX_ENG=(2,0042,60)\n")
        await run(*publish, "-t", f"{command}/revoke", "-m", '{"cell": 2}')
        await board.until_told(b"")
        await run(*publish, "-t", f"{command}/revoke", "-m", '{"cell": 2}')
        rejected = "patchbay/locker/1953/event/rejected"
        await until(lambda: rejected in watcher.seen)
        assert watcher.last(rejected)["data"]["code"] == "not_rented"
        assert not any(
            "0042" in payload
            for topic, payloads in watcher.seen.items()
            for payload in payloads
            if "/cmd/" not in topic and not topic.endswith("/desired")
        )


async def test_the_command_line_shows_boards_and_rents_cells(house: House, board: TheBoard) -> None:
    async def locker(*arguments: str) -> str:
        return await run(
            *(sys.executable, "-m", "patchbay.cli", "locker", *arguments), environ=house.environ
        )

    boards = json.loads(await locker("boards", "--json"))
    assert [one["board"] for one in boards["boards"]] == ["1953"]
    assert "1953" in await locker("boards")
    assert (await locker("assign", "1953", "5", "--minutes", "60", "--code", "777")).startswith(
        "cell 5 opens with code 777 until "
    )
    await board.until_told(b"BOX_ENG=(5,777,60)\n")
    drawn = json.loads(await locker("assign", "1953", "--minutes", "30", "--json"))
    assert drawn["cell"] == 2
    await board.until_told(b"BOX_ENG=(2,%s,30)\nBOX_ENG=(5,777,60)\n" % drawn["code"].encode())
    shown = json.loads(await locker("board", "1953", "--json"))["board"]
    assert shown["busy"] == [2, 5]
    rentals = json.loads(await locker("rentals", "1953", "--json"))["rentals"]
    assert {(one["cell"], one["status"]) for one in rentals} == {(2, "active"), (5, "active")}
    assert "777" not in await locker("rentals", "1953")
    assert json.loads(await locker("accesses", "1953", "--json"))["total"] == shown["accesses"]
    assert await locker("revoke", "1953", "2")
    await board.until_told(b"BOX_ENG=(5,777,60)\n")
