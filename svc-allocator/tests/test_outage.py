"""A Chromebook that sends and closes while something is down has not lost its job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import Part, store_part, until
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Hall, House

JOBS = [Job("CHROMEBOOK_04", "이름", f"{number:06x}") for number in range(30)]


async def send_one_by_one(house: House, first: int = 0) -> None:
    for job in JOBS[first:]:
        await house.send(job)
    await until(lambda: house.intake.jobs == len(JOBS))


async def test_while_the_broker_is_down(house: House, hall: Hall, mosquitto: Part) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await asyncio.to_thread(mosquitto.kill)
    await send_one_by_one(house)
    assert house.intake.outbox.waiting == len(JOBS)
    await asyncio.to_thread(mosquitto.start)
    await house.counted(done=len(JOBS))
    await until(lambda: house.intake.outbox.waiting == 0)


async def test_while_the_domain_is_down(house: House, hall: Hall) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.stop("domain-test")
    await send_one_by_one(house)
    await house.start_domain(2)
    await house.counted(done=len(JOBS))
    ids = [str(one["_id"]) for one in await house.documents()]
    assert [id for _, id in hall.order] == ids


async def test_while_the_intake_itself_is_stopped_and_started(house: House) -> None:
    await house.start_intake()
    await send_one_by_one(house)
    await house.stop("intake")
    await house.start_intake()
    assert house.intake.outbox.waiting == len(JOBS)
    house.watch()
    await house.start_domain(0)
    await house.counted(waiting=len(JOBS))


@pytest.fixture
def own_store(tmp_path: Path) -> Part:
    part = store_part(tmp_path / "own store")
    part.start()
    return part


async def test_while_the_store_is_down(
    own_store: Part, house_on: Callable[[Store], House], hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    settings = StoreSettings(database="outage")
    uri = f"mongodb://127.0.0.1:{own_store.port}"
    async with Store(settings, uri) as store:
        house = house_on(store)
        try:
            await house.start(*hall.ports)
            await house.send(JOBS[0])
            await house.counted(done=1)
            await asyncio.to_thread(own_store.kill)
            await send_one_by_one(house, 1)
            await asyncio.to_thread(own_store.start)
            await house.counted(done=len(JOBS))
        finally:
            await house.stop()
            await asyncio.to_thread(own_store.kill)
