"""A Chromebook that sends and closes while something is down has not lost its job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from patchbay.settings import StoreSettings
from patchbay.store import Document, ObjectId, Store
from patchbay.testing import PATIENCE_S, Part, eventually, store_part, until
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


def seeds_job(number: int) -> Document:
    """A job as the seed's tool has left it: the domain lets it wait again, broker or not."""
    return {
        "_id": ObjectId(),
        "ClientName": "C",
        "data": {"CustomerName": str(number), "ColorCode": "112233"},
        "status": "inprogress",
        "assignedAt": "1",
    }


def published(house: House, job: Document, status: str) -> bool:
    data = [event["data"] for event in house.changed]
    return any((one["job"], one["status"]) == (str(job["_id"]), status) for one in data)


async def test_what_changes_while_the_broker_is_away_is_published_when_it_is_back(
    house: House, mosquitto: Part
) -> None:
    await house.start()
    dialer = house.domain.bus._dialer
    assert dialer is not None
    # The watcher is back before it: what nobody has subscribed to is gone.
    dialer._settings = replace(dialer._settings, backoff_initial_s=5.0, backoff_max_s=5.0)
    await asyncio.to_thread(mosquitto.kill)
    jobs = [seeds_job(number) for number in range(3)]
    await house.store.insert_new("jobs", jobs)
    await house.counted(waiting=3)
    assert not house.changed
    await asyncio.to_thread(mosquitto.start)
    await until(lambda: all(published(house, job, "waiting") for job in jobs))
    ids = [event["id"] for event in house.changed]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("orderly", [True, False])
async def test_what_was_not_published_before_the_end_is_published_after_the_next_start(
    house: House, mosquitto: Part, orderly: bool
) -> None:
    await house.start()
    await eventually(lambda: house.store.count("settings", {"published": {"$exists": True}}))
    await asyncio.to_thread(mosquitto.kill)
    job = seeds_job(1)
    await house.store.insert_new("jobs", [job])
    await house.counted(waiting=1)
    if not orderly:  # as after kill -9: nothing is noted at the end
        house.domain.announcer.finish = _nothing  # type: ignore[method-assign]
    await house.stop("domain-test")
    await asyncio.to_thread(mosquitto.start)
    await house.watcher.wait_connected(PATIENCE_S)
    await house.start_domain(0)
    await until(lambda: published(house, job, "waiting"))


async def _nothing() -> None:
    pass


async def test_a_job_that_was_deleted_while_events_were_owed_is_published(house: House) -> None:
    await house.start()
    answer = await house.ask("submit", ClientName="C", CustomerName="a", ColorCode="112233")
    await house.ask("cancel", job=answer["job"])
    house.changed.clear()
    house.domain.announcer._owe(datetime(2020, 1, 1, tzinfo=UTC))
    await until(lambda: [event["data"]["status"] for event in house.changed] == ["cancelled"])
