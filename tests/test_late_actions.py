"""After an error nothing acts: whoever is frozen, and whichever link stands still.

The quick round stops all units of one kind at once, since the paths of the services have nothing in
common but broker and store, with deadlines scaled down. The long one takes each process and each
link alone, with the deadlines that are shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
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
QUICK_CALM_S: Final = 1.5
CALM_S: Final = 20.0
BEFORE_S: Final = 0.4
"""Load before the fault: requests are in flight on each part of their way when it begins."""

Fault = Callable[[Commanded], AbstractContextManager[None]]

LINKS: Final = (*ACTORS, *APIS, OPERATOR)
STORE_LINKS: Final = tuple(f"{STORE} {name}" for name in DOMAINS)


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


async def hold(house: Commanded, fault: Fault, stall_s: float, calm_s: float) -> None:
    """The fault, for so long, and then a calm in which what is late would show."""
    house.told.clear()
    async with under_load(house):
        with fault(house):
            await asyncio.sleep(stall_s)
    await asyncio.sleep(calm_s)
    await house.look()
    assert house.wrong() == [], house.tally()


async def test_after_an_error_nothing_acts_whoever_stands_still(tmp_path: Path) -> None:
    faults: dict[str, Fault] = {
        "actors frozen": lambda house: house.frozen((*DOMAINS, "mesh.uart")),
        "APIs frozen": lambda house: house.frozen(APIS),
        "edges frozen": lambda house: house.frozen(("lantern.tlv", "mesh.uart", "locker.edge")),
        "broker frozen": lambda house: house.frozen(("broker",)),
        "store frozen": lambda house: house.frozen((STORE,)),
        "links of actors": lambda house: house.stalled(ACTORS),
        "links of actors up": lambda house: house.stalled(ACTORS, "up"),
        "links of actors down": lambda house: house.stalled(ACTORS, "down"),
        "links of requesters": lambda house: house.stalled((*APIS, OPERATOR)),
        "links of the store": lambda house: house.stalled(STORE_LINKS),
    }
    async with Commanded(tmp_path, **QUICK) as house:
        house.patience_s = 0.6
        for name, fault in faults.items():
            await hold(house, fault, QUICK_STALL_S, QUICK_CALM_S)
            print(name, house.tally())


@pytest.mark.long
@pytest.mark.parametrize("stall_s", [3.0, 8.0, 30.0])
async def test_after_an_error_nothing_acts_each_process_and_each_link(
    tmp_path: Path, stall_s: float
) -> None:
    async with Commanded(tmp_path) as house:
        house.patience_s = 5.0
        for name in ("broker", STORE, *ACTORS, *APIS):
            await hold(house, lambda house, name=name: house.frozen((name,)), stall_s, CALM_S)  # type: ignore[misc]
            print("frozen", name, house.tally())
        for name in (*LINKS, *STORE_LINKS):
            for way in ("both", "up", "down"):
                await hold(
                    house,
                    lambda house, name=name, way=way: house.stalled((name,), way),  # type: ignore[misc]
                    stall_s,
                    CALM_S,
                )
                print("stalled", name, way, house.tally())
