"""The parts that tests of edge and domain start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, Part, store_part
from tests.locker_domain import Office
from tests.locker_edge import EDGE, Domain, Running, running


@pytest.fixture
async def domain(make_bus: MakeBus) -> Domain:
    """The test as the domain service of an edge."""
    bus = make_bus("the-test")
    domain = Domain(bus)
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    return domain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The outbox of an edge."""
    return tmp_path / "outbox.sqlite"


@pytest.fixture
async def here(make_bus: MakeBus, domain: Domain, file: Path) -> AsyncIterator[Running]:
    """An edge that holds a desired state without codes, revision 1, of board 1953."""
    await domain.want(1)
    async with running(make_bus(EDGE, announce=True), file) as here:
        await here.holds("1953", 1)
        yield here


@pytest.fixture
async def office(make_bus: MakeBus, store: Store, tmp_path: Path) -> AsyncIterator[Office]:
    """Everything around a domain; the test opens the domain itself."""
    async with Office(make_bus, store, tmp_path) as office:
        yield office


@pytest.fixture
async def frail(make_bus: MakeBus, tmp_path: Path) -> AsyncIterator[tuple[Office, Part]]:
    """An office with a store of its own, which the test may kill."""
    part = store_part(tmp_path / "store")
    part.start()
    settings = StoreSettings(timeout_s=2.0)
    try:
        async with (
            Store(settings, f"mongodb://127.0.0.1:{part.port}") as store,
            Office(make_bus, store, tmp_path) as office,
        ):
            yield office, part
    finally:
        part.stop()
