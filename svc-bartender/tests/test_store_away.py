"""What everybody sees of a bar is never more than what the store has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.chaos.store_link import Refusal, StoreLink
from patchbay.messages import encode
from patchbay.store import Store
from patchbay.testing import MakeBus, until
from patchbay_bartender.messages import Blend
from tests.bartender_bar import House


@pytest.fixture
async def linked(make_bus: MakeBus, linked_store: Store, tmp_path: Path) -> AsyncIterator[House]:
    """A bar that is open, with its store behind the link."""
    house = House(make_bus, linked_store, tmp_path)
    try:
        await house.start()
        yield house
    finally:
        await house.end()


async def test_a_run_is_published_only_when_it_is_saved(
    linked: House, store_link: StoreLink
) -> None:
    await until(lambda: linked.heard.of("bar/state"))
    before = len(linked.heard.of("bar/state"))
    store_link.refuse_writes(Refusal(how="hangs", collections={"pumps"}, times=1))
    topic = "patchbay/bartender/bar/cmd/blend"
    await linked.watcher.publish(topic, encode(Blend(cup_size=0.1, ratios={"0": 1.0})))
    await until(lambda: store_link.refused)
    linked.domain.publish_state()  # as when the pumps say something
    await until(lambda: len(linked.heard.of("bar/state")) > before)
    await asyncio.sleep(0.3)
    assert {one["state"] for one in linked.heard.of("bar/state")} == {"idle"}
