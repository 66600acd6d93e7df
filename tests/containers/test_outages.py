"""What is taken in is kept, whichever container is killed and whichever network is cut."""

from __future__ import annotations

import asyncio

from patchbay.testing import until
from tests.containers.composed import System
from tests.containers.load import Load

CUT_S = 20.0
"""How long a network is cut: that is the case, not a wait for something."""


async def test_each_container_is_killed_and_starts_again(system: System) -> None:
    load = Load(system, "killed", jobs=False)
    async with load.running():
        for service in sorted(system.containers()):
            await asyncio.to_thread(system.crash, service)
        await asyncio.to_thread(system.healthy)
    await load.all_kept()


async def test_with_the_broker_cut_off_nothing_is_lost(system: System) -> None:
    await nothing_is_lost_without("broker", "bus", system)


async def test_with_the_store_cut_off_nothing_is_lost(system: System) -> None:
    await nothing_is_lost_without("store", "storage", system)


async def nothing_is_lost_without(service: str, network: str, system: System) -> None:
    """Cut it off under load, and mend it; boards are answered all the time."""
    load = Load(system, f"{service}-cut")
    starts = system.starts()
    async with load.running():
        await until(lambda: load.answered > len(load.boards))
        await asyncio.to_thread(system.cut, network, service)
        before = load.answered
        await asyncio.sleep(CUT_S)
        assert load.answered > before + len(load.boards)
        await asyncio.to_thread(system.mend, network, service)
        await asyncio.to_thread(system.healthy)
    await load.all_kept()
    assert system.starts() == starts, "nobody had to be started again for that"
