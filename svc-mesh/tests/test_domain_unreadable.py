"""A node whose document cannot be read waits, and all others are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from patchbay.testing import eventually, until

if TYPE_CHECKING:
    from conftest import House


@pytest.mark.parametrize(
    "fields",
    [{"node": "five"}, {"v": float("nan")}, {"values": [1]}, {"readings": 2**62}],
    ids=["wrong type", "version is NaN", "extra nesting", "number above 2^53"],
)
async def test_an_unreadable_node_waits_and_the_others_are_served(
    house: House, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("aggregates", "parked"):
        monkeypatch.setattr(f"patchbay.inbox.{module}.RECHECK_S", 0.2)
    await house.start()
    await house.report(5)
    await house.report(6)
    await until(lambda: {"node-5", "node-6"} <= house.states.keys())
    await house.stop("domain")
    [good] = await house.store.find("nodes", {"_id": "node-5"})
    await house.store.save("nodes", [{**good, **fields}])
    await house.start_domain()
    for _ in range(2):
        await house.report(5)
    await house.report(6)

    async def parked() -> bool:
        return await house.store.count("parked", {}) == 2

    await eventually(parked)
    answer = await house.ask("node-5", "show")
    assert answer["error"]["code"] == "unreadable"
    assert (await house.ask("nodes", "list"))["total"] == 1
    assert await house.store.count("dead", {}) == 1

    await house.store.save("nodes", [good])
    await until(lambda: house.states["node-5"]["readings"] == good["readings"] + 2)
    assert await house.store.count("readings", {"node": 5}) == good["readings"] + 2
    assert (await house.ask("node-5", "show"))["ok"]

    async def applied() -> bool:
        return not await house.store.count("parked", {})

    await eventually(applied)
