"""The parts that tests of the lantern service start from."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from patchbay.store import Store
from patchbay.testing import MakeBus
from tests.lantern_client import Client
from tests.lantern_house import House, MakeHouse


@pytest.fixture
async def make_house(make_bus: MakeBus, store: Store) -> AsyncIterator[MakeHouse]:
    make = MakeHouse(make_bus, store)
    yield make
    for house in make.made:
        await house.stop()


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    """A house in which everything runs."""
    house = make_house()
    await house.start()
    return house


@pytest.fixture
async def client(house: House) -> AsyncIterator[Client]:
    """Who asks its API."""
    async with aiohttp.ClientSession() as session:
        yield Client(house, session)
