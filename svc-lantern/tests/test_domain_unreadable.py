"""While the lanterns' document cannot be read nothing is commanded, and the domain waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from patchbay.testing import eventually

if TYPE_CHECKING:
    from conftest import MakeHouse
    from patchbay.store import Store


async def test_with_an_unreadable_document_the_domain_waits_and_says_why(
    make_house: MakeHouse, store: Store
) -> None:
    bad = {"_id": "all", "v": "one", "rev": 1}
    await store.insert_new("lanterns", [bad])
    house = make_house()
    starting = asyncio.create_task(house.start("domain"))

    async def reported() -> bool:
        return await store.count("dead", {}) == 1

    await eventually(reported)
    [letter] = await store.find("dead", {})
    assert "unreadable document all in lanterns" in letter["reason"]
    assert await store.find("lanterns", {}) == [bad]
    assert not starting.done()
    await store.remove("lanterns", {})
    await starting
    assert (await house.ask("set", command="ON"))["ok"]
    assert await reported()
