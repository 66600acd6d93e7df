"""A store that refuses writes: nothing is lost, doubled or set aside, in no service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from patchbay.chaos.store_link import How, Refusal, containing
from patchbay.testing import Part, eventually
from tests.refusals import Town

REFUSALS = {
    14031: "OutOfDiskSpace",
    8000: "AtlasError",
    112: "WriteConflict",
    91: "ShutdownInProgress",
    13388: "StaleConfig",
}
WAYS: dict[str, How] = {
    "command": "command",
    "documents": "documents",
    "write concern": "write concern",
    "lands": "lands",
}
COLLECTIONS = {"accesses", "jobs", "readings", "lanterns", "blends"}
"""One of each service."""

REFUSED_S = 4.0


@pytest.mark.parametrize(
    ("code", "how"),
    [
        pytest.param(code, how, marks=[] if (code, how) == (14031, "command") else pytest.mark.long)
        for code in REFUSALS
        for how in WAYS
    ],
)
async def test_nothing_is_lost_or_doubled_while_the_store_refuses_all_writes(
    tmp_path: Path, mosquitto: Part, store_server: Part, code: int, how: str
) -> None:
    async with Town(tmp_path, mosquitto, store_server) as town:
        await town.load()
        await asyncio.sleep(2)
        await town.refuse(Refusal(code=code, name=REFUSALS[code], how=WAYS[how]), REFUSED_S)
        await asyncio.sleep(2)
        await town.stop_load()
        await town.settled()
        assert await town.complaints() == []
        assert town.link.refused


@pytest.mark.parametrize(
    ("collection", "how"),
    [
        pytest.param(one, how, marks=[] if (one, how) == (None, "documents") else pytest.mark.long)
        for one in (None, "sources", "boards", "nodes", "pumps", *sorted(COLLECTIONS))
        for how in ("command", "documents")
    ],
)
async def test_nothing_is_lost_or_doubled_while_the_store_refuses_writes_to_one_collection(
    tmp_path: Path, mosquitto: Part, store_server: Part, collection: str | None, how: How
) -> None:
    """None: one of each service."""
    collections = COLLECTIONS if collection is None else {collection}
    refusal = Refusal(code=13388, name="StaleConfig", how=how, collections=collections)
    async with Town(tmp_path, mosquitto, store_server) as town:
        await town.load()
        await asyncio.sleep(2)
        await town.refuse(refusal, REFUSED_S)
        await asyncio.sleep(2)
        await town.stop_load()
        await town.settled()
        assert await town.complaints() == []
        assert town.link.refused


@pytest.mark.long
async def test_nothing_is_lost_or_doubled_while_the_store_takes_and_refuses_writes_by_turns(
    tmp_path: Path, mosquitto: Part, store_server: Part
) -> None:
    async with Town(tmp_path, mosquitto, store_server) as town:
        await town.load()
        for number in range(60):
            how: How = "documents" if number % 3 else "command"
            await town.refuse(Refusal(code=14031, how=how), 0.12)
            await asyncio.sleep(0.12)
        await town.stop_load()
        await town.settled()
        assert await town.complaints() == []


async def test_one_document_that_is_refused_alone_is_set_aside_and_the_queue_goes_on(
    tmp_path: Path, mosquitto: Part, store_server: Part
) -> None:
    settings = {"STORE__SUSPECT_FAILURES": 3, "STORE__SUSPECT_S": 1}
    collections = {"accesses", "jobs", "readings"}
    marked = Refusal(code=96, how="documents", only=containing("odd-one"), collections=collections)
    async with Town(tmp_path, mosquitto, store_server, **settings) as town:
        town.link.refuse_writes(marked)
        await town.load()
        await asyncio.sleep(1)
        assert await town.reported(1, board="odd-one")
        await town.send_job("odd-one")
        town.read(b"odd-one")
        await asyncio.sleep(3)
        await town.stop_load()
        await town.settled()

        async def set_aside() -> bool:
            return len(await town.find("dead")) >= 3

        await eventually(set_aside)
        originals = [bytes(one["original"]) for one in await town.find("dead")]
        assert len(originals) == 3, await town.find("dead")
        assert all(json.loads(one)["specversion"] == "1.0" for one in originals)
        town.link.accept_writes()
        assert [one for one in await town.complaints() if "dead letters" not in one] == []


@pytest.mark.long
@pytest.mark.parametrize("code", [121, 22])
async def test_one_document_that_the_store_never_takes_is_set_aside_at_once(
    tmp_path: Path, mosquitto: Part, store_server: Part, code: int
) -> None:
    how: How = "documents" if code == 121 else "command"
    collections = {"accesses", "jobs", "readings"}
    refusal = Refusal(code=code, how=how, only=containing("odd-one"), collections=collections)
    async with Town(tmp_path, mosquitto, store_server) as town:
        town.link.refuse_writes(refusal)
        await town.load()
        await asyncio.sleep(1)
        assert await town.reported(1, board="odd-one")
        await town.send_job("odd-one")
        town.read(b"odd-one")
        await asyncio.sleep(2)
        await town.stop_load()
        await town.settled()
        assert len(await town.find("dead")) == 3
        assert [one for one in await town.complaints() if "dead letters" not in one] == []


async def test_a_store_whose_name_cannot_be_resolved_is_waited_for(
    tmp_path: Path, mosquitto: Part, store_server: Part
) -> None:
    """The first system cannot find the store and takes in all that devices send; the second one,
    on the same files, can."""
    async with Town(tmp_path, mosquitto, store_server) as town:
        await town.load()
        await asyncio.sleep(1)
        await town.restart_domains("mongodb+srv://store.nowhere.invalid")
        await asyncio.sleep(6)
        assert all(part.running for part in town.domains)
        await town.stop_load()
        await town.restart_domains()
        await town.settled()
        assert await town.complaints() == []


@pytest.mark.long
async def test_a_store_that_refuses_for_minutes_costs_little_log_and_restarts_nothing(
    tmp_path: Path, mosquitto: Part, store_server: Part
) -> None:
    async with Town(tmp_path, mosquitto, store_server) as town:
        await town.load()
        await asyncio.sleep(2)
        pids = [part.pid for part in town.domains]
        await town.refuse(Refusal(code=14031, name="OutOfDiskSpace"), 180)
        assert [part.pid for part in town.domains] == pids
        assert all(part.running for part in town.domains)
        await asyncio.sleep(2)
        await town.stop_load()
        await town.settled()
        assert await town.complaints() == []
