"""A bar that is open, and a clock that the test drives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, until
from tests.bartender_bar import PUMPS, Hand, House, PumpsByHand


@pytest.fixture
def wanted(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `with_settings` asks for."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
async def house(
    make_bus: MakeBus, store: Store, tmp_path: Path, wanted: dict[str, Any]
) -> AsyncIterator[House]:
    """A bar that is open. A litre takes 20 s."""
    house = House(make_bus, store, tmp_path, **wanted)
    try:
        await house.start()
        yield house
    finally:
        await house.end()


@pytest.fixture
async def alone(
    make_bus: MakeBus, store: Store, tmp_path: Path, wanted: dict[str, Any]
) -> AsyncIterator[House]:
    """The pumps of a bar without a scheduler."""
    house = House(make_bus, store, tmp_path, **wanted)
    house.watcher.start()
    await house.watcher.wait_connected(PATIENCE_S)
    await house.start_pumps()
    try:
        yield house
    finally:
        await house.end()


@pytest.fixture
async def bar(
    make_bus: MakeBus, store: Store, tmp_path: Path, wanted: dict[str, Any]
) -> AsyncIterator[House]:
    """A bar without pumps."""
    house = House(make_bus, store, tmp_path, **wanted)
    house.watcher.start()
    await house.watcher.wait_connected(PATIENCE_S)
    await house.start_domain()
    try:
        yield house
    finally:
        await house.end()


@pytest.fixture
async def pumps(bar: House, make_bus: MakeBus) -> PumpsByHand:
    bus = make_bus(PUMPS, announce=True)
    pumps = PumpsByHand(bar, bus)
    bus.start()
    await bus.set_ready()
    await bus.wait_online(PATIENCE_S)
    await pumps.state()
    await until(lambda: bar.domain.presence.online)
    return pumps


@pytest.fixture
def hand() -> Hand:
    """A clock that the test drives."""
    return Hand()
