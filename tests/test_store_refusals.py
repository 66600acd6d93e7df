"""A store that refuses writes: nothing is lost, doubled or set aside, in no service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from patchbay.chaos.store_link import How, Refusal
from patchbay.testing import Part
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
        town.load()
        await asyncio.sleep(2)
        await town.refuse(Refusal(code=code, name=REFUSALS[code], how=WAYS[how]), REFUSED_S)
        await asyncio.sleep(2)
        await town.stop_load()
        await town.settled()
        assert await town.complaints() == []
        assert town.link.refused
