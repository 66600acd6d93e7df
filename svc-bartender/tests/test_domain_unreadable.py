"""While the bar's document cannot be read nothing is ordered; other documents are stepped over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, eventually
from tests.bartender_bar import House


async def test_with_unreadable_documents_the_scheduler_waits_only_for_its_own(
    make_bus: MakeBus, store: Store, tmp_path: Path
) -> None:
    bad = {"_id": "bar", "v": 1, "pumps": "eight"}
    blend = {"_id": "bar:1-a", "ended_at": None, "ordered_at": "noon"}
    await store.insert_new("pumps", [bad, {"_id": "another bar"}])
    await store.insert_new("blends", [blend])
    await store.insert_new("settings", [{"_id": "bartender:bar", "sec_per_liter": float("nan")}])
    house = House(make_bus, store, tmp_path)
    house.watcher.start()
    await house.watcher.wait_connected(PATIENCE_S)
    starting = asyncio.create_task(house.start_domain())

    async def reported() -> int:
        return await store.count("dead", {})

    await eventually(lambda: _is(reported, 2))
    assert not starting.done()
    assert await store.find("pumps", {"_id": "bar"}) == [bad]
    await store.remove("pumps", {"_id": "bar"})
    await starting
    assert await reported() == 4
    assert await store.find("blends", {}) == [blend]
    assert house.domain.kept.sec_per_liter == house.settings.sec_per_liter
    await house.end()


async def _is(measure: object, wanted: int) -> bool:
    return await measure() == wanted  # type: ignore[operator, no-any-return]
