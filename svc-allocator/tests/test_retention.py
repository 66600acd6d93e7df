"""What is removed of jobs and devices, by time or by an operator, and never comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from patchbay.messages import event_type, new_event, now, rfc3339
from patchbay.store import ObjectId
from patchbay.testing import eventually, until
from patchbay_allocator.ids import JobIds
from patchbay_allocator.messages import Requested
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House

JOB = Job("CHROMEBOOK_04", "이름", "696969")
DAY = timedelta(days=1)


async def age(house: House, days: int, **query: Any) -> None:
    """Make these jobs as if nothing had happened to them for so long."""
    jobs = house.store.collection("jobs")
    await jobs.update_many(query, {"$set": {"updatedAt": now() - days * DAY}})


async def request(house: House, id: str, days_ago: int = 0) -> None:
    """The event of a Chromebook's job, as the intake sends it."""
    event = new_event(
        id=id,
        source="allocator-intake-other",
        type=event_type("allocator", "requested"),
        subject=JOB.client,
        time=rfc3339(now() - days_ago * DAY),
        data=Requested(ClientName=JOB.client, CustomerName=JOB.customer, ColorCode=JOB.color),
    )
    await house.watcher.publish(
        house.watcher.topics.event("allocator", "chromebook_04", "requested"), event
    )


async def gone(house: House, job: str) -> None:
    """Wait until there is no such job."""

    async def is_gone() -> bool:
        return not await house.store.count("jobs", {"_id": ObjectId(job)})

    await eventually(is_gone)


async def test_what_ended_long_ago_is_removed_and_nothing_else(house: House) -> None:
    await house.start()
    await house.ask("mode", mode="manual")
    await house.send(*[JOB] * 5)
    await house.counted(waiting=5)
    jobs = house.store.collection("jobs")
    ids = [one["_id"] for one in await house.documents()]
    for id, status in zip(ids, ("done", "error", "done", "waiting", "inprogress1"), strict=True):
        await jobs.update_one({"_id": id}, {"$set": {"status": status}, "$inc": {"v": 1}})
    await age(house, 91)
    await age(house, 89, _id=ids[2])
    house.domain.retention._due_at = -1e9
    await gone(house, str(ids[1]))
    assert [one["_id"] for one in await house.documents()] == ids[2:]
    # Unlike those, jobs in progress at nobody wait again.
    assert {one["status"] for one in await house.documents()} <= {"done", "waiting", "inprogress1"}


async def test_a_job_in_the_seeds_form_is_removed_in_its_time_too(house: House) -> None:
    seed = {
        "ClientName": "C",
        "data": {"CustomerName": "이름", "ColorCode": "696969"},
        "status": "done",
        "assignedAt": "1",
    }
    id = (await house.store.collection("jobs").insert_one(seed)).inserted_id
    await house.start()

    async def is_ours() -> bool:
        return "updatedAt" in await house.document(str(id))

    await eventually(is_ours)
    await age(house, 91)
    house.domain.retention._due_at = -1e9
    await gone(house, str(id))


async def test_a_redelivered_event_does_not_make_a_removed_job_again(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    id, other = (JobIds(lambda: now().timestamp()).next() for _ in range(2))
    await request(house, id)
    await house.counted(done=1)
    await age(house, 91)
    house.domain.retention._due_at = -1e9
    await gone(house, id)
    await request(house, id)
    await request(house, other)  # what comes after it is there
    await house.counted(done=1)
    assert [str(one["_id"]) for one in await house.documents()] == [other]
    assert [job for _, job in hall.order] == [id, other]


async def test_an_event_older_than_all_traces_is_parked_and_not_mixed(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    house.settings = msgspec.structs.replace(house.settings, jobs_ttl_s=2 * 86_400)
    await house.start(*hall.ports)
    ids = JobIds(lambda: now().timestamp())
    late, early = ids.next(), ids.next()
    await request(house, late, days_ago=33)  # 30 days is a trace kept
    await request(house, early, days_ago=31)
    await house.counted(error=1, done=1)
    (found,) = await house.documents(status="error")
    assert found["lastError"].startswith("it came 33 days late and may have been mixed already")
    assert [job for _, job in hall.order] == [early]
    assert await house.refusal("retry", job=late) == ""
    await house.counted(done=2)


async def test_nothing_is_old_while_the_clock_is_unsure_or_without_a_limit(house: House) -> None:
    await house.start()
    retention = house.domain.retention
    retention.clock_unsure = lambda: True
    retention._due_at = -1e9
    assert await retention.work() == 0
    assert retention._due_at == -1e9
    house.settings = msgspec.structs.replace(house.settings, jobs_ttl_s=0)
    await house.stop("domain-test")
    domain = await house.start_domain(0)
    assert await domain.retention.work() == 0
    assert not domain.retention.complaint(now() - 9_000 * DAY, now())


async def test_a_combinator_that_is_forgotten_leaves_nothing_and_its_job_waits_again(
    house: House, hall: Hall
) -> None:
    await hall.open()
    await house.start(*hall.ports)
    await house.send(JOB, JOB)
    await until(lambda: len(hall.order) == 2)
    retained: dict[str, bytes] = {}
    for kind in (house.watcher.topics.state, house.watcher.topics.status):
        house.watcher.listen(
            kind("allocator", "combinator-2"),
            lambda message: (message.ack(), retained.update({message.topic: message.payload})),
        )
    assert await house.refusal("forget", device="combinator-2") == "in_use"
    await house.stop("edge", "domain-test")
    await house.start_edge(hall.ports[0])
    await house.start_domain(1)
    answer = await house.ask("forget", device="combinator-2")
    assert answer["removed"] == {"combinators": 1, "jobs": 0}
    assert [one["_id"] for one in await house.store.find("combinators", {})] == ["combinator-1"]
    await until(lambda: len(retained) == 2 and not any(retained.values()))
    await until(lambda: not dict(house.edge.outbox.notes("combinator/2")))
    hall.gate.set()
    await house.counted(done=2)
    await until(lambda: [one["combinator"] for one in house.state["combinators"]] == [1])
    again = await house.ask("forget", device="combinator-2", documents="remove")
    assert again["removed"]["combinators"] == 0
    # It comes back as a new one.
    await house.stop("edge", "domain-test")
    await house.start_edge(*hall.ports)
    await house.start_domain(2)
    await until(lambda: house.domain.presence.connected() == {1, 2})
    await house.send(JOB, JOB, JOB)
    await house.counted(done=5 - again["removed"]["jobs"])


async def test_the_ended_jobs_of_a_chromebook_are_forgotten_if_it_is_said(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.send(JOB, JOB, Job("OTHER", "이름", "696969"))
    await house.counted(done=3)
    assert (await house.ask("forget", device="CHROMEBOOK_04"))["removed"]["jobs"] == 0
    await house.ask("mode", mode="manual")
    await house.send(JOB)
    await house.counted(waiting=1)
    answer = await house.ask("forget", device="CHROMEBOOK_04", documents="remove")
    assert answer["removed"] == {"combinators": 0, "jobs": 2}
    left = sorted((one["ClientName"], one["status"]) for one in await house.documents())
    assert left == [("CHROMEBOOK_04", "waiting"), ("OTHER", "done")]


@pytest.mark.parametrize("device", ["", "x" * 257, 7])
async def test_forget_refuses_what_is_no_name(house: House, device: object) -> None:
    await house.start()
    assert await house.refusal("forget", device=device) == "bad_request"


async def test_an_index_serves_what_is_asked_at_the_start_and_by_retention(house: House) -> None:
    await house.start()

    async def prepared() -> bool:
        found = await house.store.collection("jobs").index_information()
        keys = [list(one["key"]) for one in found.values()]
        return [("updatedAt", 1)] in keys and [("status", 1), ("_id", 1)] in keys

    await eventually(prepared)
