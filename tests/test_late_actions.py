"""After an error nothing acts: whoever is frozen, and whichever link stands still.

All units of one kind stop at once, since the paths of the services have nothing in common but
broker and store. The quick round has deadlines that are scaled down, the long one those that are
shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.late_actions import ACTORS, APIS, DOMAINS, OPERATOR, STORE, Commanded

QUICK: Final = {
    "LANTERN__ANSWER_S": 0.6,
    "MESH__COMMAND_TIMEOUT_S": 0.8,
    "MESH__START_DEADLINE_S": 0.4,
    "BROKER__CONFIRM_S": 0.4,
    "STORE__TIMEOUT_S": 3,
}
QUICK_STALL_S: Final = 1.5
CALM_S: Final = 1.5
"""After each fault; what acts later than that is seen in the calm at the end, or meanwhile."""

LONG_CALM_S: Final = 20.0
BEFORE_S: Final = 0.4
"""Load before the fault: requests are in flight on each part of their way when it begins."""

Fault = Callable[[Commanded], AbstractContextManager[None]]

REQUESTERS: Final = (*APIS, OPERATOR)
STORE_LINKS: Final = tuple(f"{STORE} {name}" for name in DOMAINS)

FAULTS: Final[dict[str, Fault]] = {
    "actors frozen": lambda house: house.frozen((*DOMAINS, "mesh.uart")),
    "APIs frozen": lambda house: house.frozen(APIS),
    "edges frozen": lambda house: house.frozen(("lantern.tlv", "mesh.uart", "locker.edge")),
    "broker frozen": lambda house: house.frozen(("broker",)),
    "store frozen": lambda house: house.frozen((STORE,)),
    "links of actors": lambda house: house.stalled(ACTORS),
    "links from actors": lambda house: house.stalled(ACTORS, "up"),
    "links to actors": lambda house: house.stalled(ACTORS, "down"),
    "links of requesters": lambda house: house.stalled(REQUESTERS),
    "links of the store": lambda house: house.stalled(STORE_LINKS),
}

MORE_FAULTS: Final[dict[str, Fault]] = {
    "links from requesters": lambda house: house.stalled(REQUESTERS, "up"),
    "links to requesters": lambda house: house.stalled(REQUESTERS, "down"),
    "links to the store": lambda house: house.stalled(STORE_LINKS, "up"),
    "links from the store": lambda house: house.stalled(STORE_LINKS, "down"),
}


@contextlib.asynccontextmanager
async def under_load(house: Commanded) -> AsyncIterator[None]:
    stop = asyncio.Event()
    loading = asyncio.create_task(house.load(stop=stop))
    try:
        await asyncio.sleep(BEFORE_S)
        yield
        await asyncio.sleep(BEFORE_S)
    finally:
        stop.set()
        await loading


async def hold(house: Commanded, fault: Fault, stall_s: float) -> None:
    """The fault, for so long, and a calm after it."""
    async with under_load(house):
        with fault(house):
            await asyncio.sleep(stall_s)
    await asyncio.sleep(CALM_S)
    await house.look()
    assert house.wrong() == [], house.tally()


async def test_after_an_error_nothing_acts_whoever_stands_still(tmp_path: Path) -> None:
    async with Commanded(tmp_path, **QUICK) as house:
        house.patience_s = 0.6
        for fault in FAULTS.values():
            await hold(house, fault, QUICK_STALL_S)
        counted = sum(house.tally().values(), Counter())
    assert counted["accepted"] > 0
    assert counted["error"] > 0


@pytest.mark.long
@pytest.mark.parametrize("stall_s", [3.0, 8.0, 30.0])
async def test_after_an_error_nothing_acts_however_long_it_stands_still(
    tmp_path: Path, stall_s: float
) -> None:
    async with Commanded(tmp_path) as house:
        house.patience_s = 5.0
        for fault in (FAULTS | MORE_FAULTS).values():
            await hold(house, fault, stall_s)
        await asyncio.sleep(LONG_CALM_S)
        await house.look()
        assert house.wrong() == [], house.tally()
        print(house.tally())
