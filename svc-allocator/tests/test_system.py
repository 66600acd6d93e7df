"""Jobs from Chromebooks to combinators, through all parts."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from patchbay.messages import now
from patchbay.store import ObjectId
from patchbay.testing import until
from patchbay_allocator import rules
from patchbay_allocator.mixer import Mixer, waits
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House


def job(number: int, customer: str = "이름") -> Job:
    return Job("CHROMEBOOK_04", customer, f"{number:06x}")


async def test_a_job_is_mixed_and_its_document_has_the_seeds_schema(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.send(Job("CHROMEBOOK_04", "이름", " #69aB9c "))
    await house.counted(done=1)
    (found,) = await house.documents()
    assert isinstance(found["_id"], ObjectId)
    assert list(found)[:5] == ["_id", "ClientName", "data", "status", "assignedAt"]
    assert found["ClientName"] == "CHROMEBOOK_04"
    assert found["data"] == {"CustomerName": "이름", "ColorCode": "69AB9C"}
    assert found["status"] == "done"
    assert type(found["assignedAt"]) is int
    assert found["assignedAt"] in (1, 2)
    assert isinstance(found["createdAt"], datetime)
    assert isinstance(found["updatedAt"], datetime)
    assert (found["attempts"], found["lastError"]) == (0, None)
    assert found["eventId"] == str(found["_id"])
    statuses = [change["status"] for change in found["history"]]
    assert statuses == ["waiting", f"inprogress{found['assignedAt']}", "done"]
    await until(lambda: len(house.changed) == 3)
    assert [one["data"]["status"] for one in house.changed] == statuses
    await until(lambda: house.state.get("done") == 1)
    assert house.dead == []


async def test_jobs_go_first_in_first_out_to_both_and_never_two_to_one(
    house: House, hall: Hall
) -> None:
    await hall.open()
    await house.start(*hall.ports)
    for number in range(10):
        await house.send(job(number))
    await house.counted(inprogress1=1, inprogress2=1, waiting=8)
    hall.gate.set()
    await house.counted(done=10)
    ids = [str(one["_id"]) for one in await house.documents()]
    assert [one["data"]["ColorCode"] for one in await house.documents()] == [
        f"{number:06X}" for number in range(10)
    ]
    assert [id for _, id in hall.order] == ids
    assert {device for device, _ in hall.order} == {1, 2}
    assert hall.most_at_once == 1
    assert sorted(mixer.mixed[0] for mixer in hall.mixers) == ids[:2]


async def test_two_hundred_jobs_in_one_write_are_all_mixed(house: House) -> None:
    mixers = [Mixer(n, waits(0, 0, random.Random())) for n in (1, 2)]
    ports = [await mixer.start("127.0.0.1", 0) for mixer in mixers]
    await house.start(*ports)
    await house.send(*[job(number) for number in range(200)])
    await house.counted(done=200)
    assert sum(len(mixer.mixed) for mixer in mixers) == 200
    for mixer in mixers:
        await mixer.stop()


async def test_a_job_that_is_in_progress_where_nobody_holds_it_waits_again(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.ask("mode", mode="manual")
    await house.send(job(1))
    await house.counted(waiting=1)
    (found,) = await house.documents()
    long_ago = found["updatedAt"] - timedelta(minutes=1)
    found.update(status="inprogress1", assignedAt=1, updatedAt=long_ago, v=2)
    await house.store.save("jobs", [found])
    await house.counted(waiting=1)
    (found,) = await house.documents()
    assert (found["assignedAt"], found["attempts"]) == (0, 0)


async def test_what_a_replica_left_half_claimed_is_finished_or_undone(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.ask("mode", mode="manual")
    await house.send(job(1), job(2))
    await house.counted(waiting=2)
    await until(lambda: len(house.domain.dispatcher.hands) == 2)
    jobs = await house.domain.kept.jobs(str(one["_id"]) for one in await house.documents())
    first, second = jobs.values()
    hands = await house.domain.kept.combinators()
    long_ago = now() - timedelta(minutes=1)
    # One replica died after the first step; another after it too, and the job was recolored since.
    taken = [
        (hands[1], rules.reserve(hands[1], first, long_ago, "a")),
        (hands[2], rules.reserve(hands[2], second, long_ago, "b")),
    ]
    assert await house.refusal("recolor", job=second.id, ColorCode="ABCDEF") == ""
    assert await house.domain.kept.change_combinators(taken) == {1, 2}
    await house.counted(done=1, waiting=1)
    assert [id for _, id in hall.order] == [first.id]
    await house.ask("mode", mode="auto")
    await house.counted(done=2)
