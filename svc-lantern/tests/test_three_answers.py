"""A command is accepted, or refused for good, or its outcome is unknown until somebody asks."""

from __future__ import annotations

import asyncio
import re
import subprocess
from typing import TYPE_CHECKING

import aiohttp
import pytest

from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate
from patchbay.testing import PATIENCE_S, Part, until
from patchbay_lantern.messages import ALL
from patchbay_lantern.rules import Lanterns
from patchbay_lantern.store import LanternStore
from tests.lantern_client import RED, Client
from tests.lantern_house import House
from tests.running import CLI

if TYPE_CHECKING:
    from conftest import MakeHouse


class Failing(LanternStore):
    """A store that fails at the next save, which lands or not, and then is ``away``."""

    fails = lands = away = False

    async def load(self) -> Aggregate[Lanterns]:
        if self.away:
            raise Unavailable("the store is away")
        return await super().load()

    async def save(self, document: Aggregate[Lanterns]) -> None:
        if not self.fails:
            return await super().save(document)
        self.fails, self.away = False, True
        if self.lands:
            await super().save(document)
        self.documents.doubt([ALL])
        raise Unavailable("the answer was lost")


async def failing(
    make_house: MakeHouse, *, lands: bool, **settings: float
) -> tuple[House, Failing]:
    house = make_house(**settings)
    kept = Failing(house.kept._store, 3600)
    kept.lands = lands
    house.kept = kept
    await house.start()
    await house.tell("ON")
    return house, kept


@pytest.mark.parametrize("lands", [True, False])
async def test_the_outcome_of_a_save_that_looked_failed_is_unknown_until_the_store_tells(
    make_house: MakeHouse, lands: bool
) -> None:
    house, kept = await failing(make_house, lands=lands, answer_s=1.0)
    async with aiohttp.ClientSession() as session:
        client = Client(house, session)
        kept.fails = True
        status, answer = await client.post(RED)
        assert (status, answer["error"]["code"]) == (504, "outcome_unknown")
        id = answer["error"]["id"]
        status, refused, _ = await client.ask("GET", f"/requests/{id}")
        assert (status, refused["error"]["code"]) == (503, "unavailable")
        kept.away = False
        status, told, _ = await client.ask("GET", f"/requests/{id}")
        assert status == 200
        if lands:
            red = {"outcome": "accepted", "command": "COLOR", "value": "ff0000"}
            assert told == {"id": id, **red}
            await until(lambda: house.commanded() == [("ON", None), ("COLOR", "ff0000")])
        else:
            assert told == {"id": id, "outcome": "not_accepted"}
            await house.tell("OFF")
            assert house.commanded() == [("ON", None), ("OFF", None)]


async def test_what_has_landed_is_told_to_the_lanterns_though_nobody_asks(
    make_house: MakeHouse,
) -> None:
    house, kept = await failing(make_house, lands=True, answer_s=0.5)
    kept.fails = True
    assert (await house.ask("set", command="OFF"))["error"]["code"] == "outcome_unknown"
    kept.away = False
    await until(lambda: house.commanded() == [("ON", None), ("OFF", None)])
    await until(lambda: house.state["on"] is False)


async def test_a_save_that_is_late_on_its_way_lands_no_more_once_the_outcome_was_told(
    make_house: MakeHouse,
) -> None:
    house, kept = await failing(make_house, lands=False, answer_s=0.5)
    (before,) = await kept._store.find("lanterns", {})
    kept.fails = True
    assert (await house.ask("set", command="OFF"))["error"]["code"] == "outcome_unknown"
    kept.away = False
    assert (await house.ask("outcome", id="x"))["outcome"] == "not_accepted"
    late = {**before, "v": before["v"] + 1}
    query = {"_id": ALL, "v": before["v"]}
    assert await kept._store.replace("lanterns", [(query, late)]) == 0


async def test_an_error_before_the_confirmation_leaves_nothing_in_the_store(
    make_house: MakeHouse,
) -> None:
    house, kept = await failing(make_house, lands=True, answer_s=0.5)
    kept.away = True
    async with aiohttp.ClientSession() as session:
        status, answer = await Client(house, session).post(RED)
        assert status == 503
        assert set(answer["error"]) == {"code", "message"}
        kept.away = False
        await house.tell("OFF")
    assert house.commanded() == [("ON", None), ("OFF", None)]


async def test_an_id_of_a_request_has_a_bound(client: Client) -> None:
    status, answer, _ = await client.ask("GET", f"/requests/{'x' * 3000}")
    assert (status, answer["outcome"]) == (200, "not_accepted")


async def test_the_command_line_has_three_answers(make_house: MakeHouse, mosquitto: Part) -> None:
    house, kept = await failing(make_house, lands=True)
    environ = {"PATCHBAY_BROKER__PORT": str(mosquitto.port), "PATH": "/usr/bin:/bin"}

    async def run(*words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [*CLI, "lantern", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    assert (await run("on")).returncode == 0
    refused = await run("color", "red")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "bad_value")
    kept.fails = True
    unknown = await run("off")
    assert unknown.returncode == 3
    told = re.fullmatch(
        r"outcome_unknown: request (\w+) may have been done; see patchbay lantern outcome (\w+)\n",
        unknown.stderr,
    )
    assert told is not None, unknown.stderr
    assert told[1] == told[2]
    kept.away = False
    assert (await run("outcome", told[1])).stdout == "accepted: OFF\n"
    assert (await run("outcome", "nobody")).stdout == "not_accepted\n"
    await house.stop()
