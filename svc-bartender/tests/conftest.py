"""A bar that is open, and a clock that the test drives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus
from tests.bartender_bar import Hand, House


@pytest.fixture
async def house(make_bus: MakeBus, store: Store, tmp_path: Path) -> AsyncIterator[House]:
    """A bar that is open. A litre takes 20 s."""
    house = House(make_bus, store, tmp_path)
    try:
        await house.start()
        yield house
    finally:
        await house.end()


@pytest.fixture
async def alone(make_bus: MakeBus, store: Store, tmp_path: Path) -> AsyncIterator[House]:
    """The pumps of a bar without a scheduler."""
    house = House(make_bus, store, tmp_path)
    house.watcher.start()
    await house.watcher.wait_connected(PATIENCE_S)
    await house.start_pumps()
    try:
        yield house
    finally:
        await house.end()


@pytest.fixture
def hand() -> Hand:
    """A clock that the test drives."""
    return Hand()
