"""Jobs in the form in which the seed's server and management tool write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from bson import Decimal128, Regex

from patchbay.errors import Unreadable
from patchbay.store import Document, ObjectId
from patchbay.testing import eventually, until
from patchbay_allocator import documents, rules
from patchbay_allocator.messages import Requested

if TYPE_CHECKING:
    from conftest import Hall, House

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def seed(customer: str = "이름", **fields: Any) -> Document:
    """A document exactly as the seed's schema has it."""
    return {
        "_id": ObjectId(),
        "ClientName": "CHROMEBOOK_10",
        "data": {"CustomerName": customer, "ColorCode": "445566"},
        "status": "waiting",
        "assignedAt": 0,
        **fields,
    }


def ours(**fields: Any) -> Document:
    """A document as we write it."""
    wanted = Requested(ClientName="C", CustomerName="ours", ColorCode="445566")
    job = rules.new(id=str(ObjectId()), wanted=wanted, event_id="e", at=MOMENT, now=MOMENT)
    return {**documents.document(job), **fields}


READABLE: dict[str, Document] = {
    "exactly the schema": {},
    "assignedAt as text": {"assignedAt": "0"},
    "assignedAt as text of a combinator": {"assignedAt": "1"},
    "assignedAt as a double": {"assignedAt": 0.0},
    "assignedAt empty": {"assignedAt": ""},
    "assignedAt null": {"assignedAt": None},
    "in progress as the tool writes it": {"status": "inprogress", "assignedAt": "1"},
    "in progress at nobody": {"status": "inprogress", "assignedAt": "0"},
    "in progress as the schema says": {"status": "inprogress2", "assignedAt": 2},
    "in progress at a combinator that is gone": {"status": "inprogress", "assignedAt": 7},
    "capitals": {"status": "Waiting"},
    "spaces": {"status": " In Progress "},
    "colour with #": {"data": {"CustomerName": "a", "ColorCode": "#aabbcc"}},
    "colour as a number": {"data": {"CustomerName": "a", "ColorCode": 112233}},
    "empty name": {"data": {"CustomerName": "", "ColorCode": "112233"}},
    "what a client has sent beside": {"room": {"floor": [1, {"x": None}]}, "t": float("nan")},
    "version null": {"v": None},
}
UNREADABLE: dict[str, Document] = {
    "no data": {"data": None},
    "data is a text": {"data": "445566"},
    "data nested once more": {"data": {"data": {"CustomerName": "a", "ColorCode": "112233"}}},
    "no colour": {"data": {"CustomerName": "a"}},
    "another colour": {"data": {"CustomerName": "a", "ColorCode": "red"}},
    "colour NaN": {"data": {"CustomerName": "a", "ColorCode": float("nan")}},
    "name is a number": {"data": {"CustomerName": 5, "ColorCode": "112233"}},
    "endless name": {"data": {"CustomerName": "x" * 5_000, "ColorCode": "112233"}},
    "client is an object": {"ClientName": {"$gt": ""}},
    "assignedAt is a word": {"assignedAt": "first"},
    "assignedAt is NaN": {"assignedAt": float("nan")},
    "assignedAt below 0": {"assignedAt": -1},
    "assignedAt is a list": {"assignedAt": [1]},
    "version is a text": {"v": "1"},
    "version is NaN": {"v": float("nan")},
    "version is a fraction": {"v": 1.5},
    "version is an object": {"v": {"n": 1}},
    "history is a text": {"history": "long"},
    "createdAt is a text": {"createdAt": "yesterday"},
    "attempts are infinite": {"attempts": float("inf")},
    "an id of another kind": {"_id": "job-1"},
}
ELSEWHERE: dict[str, Document] = {
    "no status": {"status": None},
    "another status": {"status": "paused"},
    "status is a number": {"status": 1},
    "status is done, but not the rest": {"status": "done", "data": Decimal128("1")},
    "status is a regular expression": {"status": Regex("waiting")},
}
"""Unreadable, and no query for waiting jobs finds them."""


@pytest.mark.parametrize("fields", READABLE.values(), ids=READABLE)
def test_the_seeds_forms_are_read_and_what_is_written_reads_the_same(fields: Document) -> None:
    found = seed(**fields)
    job = documents.read(found)
    new = rules.taken_over(job, MOMENT)
    written = documents.document(new)
    again = documents.read(written)
    assert (again.v, again.status, again.assignedAt) == (1, job.status, job.assignedAt)
    assert {key: written[key] for key in found if key not in fields} == {
        key: one for key, one in found.items() if key not in fields
    }
    assert written.keys() >= found.keys()
    assert type(written["assignedAt"]) is (str if isinstance(found["assignedAt"], str) else int)


@pytest.mark.parametrize("fields", (UNREADABLE | ELSEWHERE).values(), ids=UNREADABLE | ELSEWHERE)
def test_what_means_no_job_is_unreadable_and_can_still_be_shown(fields: Document) -> None:
    with pytest.raises(Unreadable):
        documents.read(seed(**fields))
    shown = documents.public(seed(**fields))
    assert shown["unreadable"]
    assert isinstance(shown["_id"], str)


@pytest.mark.parametrize(
    "fields",
    [{"v": 1.0}, {"status": "inprogress", "assignedAt": "1"}, {"extra": 1}],
    ids=["a version as a double", "the tool's status", "a field more"],
)
def test_our_document_with_somebody_elses_changes_is_read(fields: Document) -> None:
    job = documents.read(ours(**fields))
    assert (job.v, bool(job.found), job.history[0].id) == (1, True, "e")


async def insert(house: House, *found: Document) -> None:
    await house.store.insert_new("jobs", found)


async def test_jobs_of_the_seed_are_mixed_and_unreadable_ones_stepped_over(
    house: House, hall: Hall
) -> None:
    """Present before the start, with unreadable ones between them, and more while it runs."""
    hall.gate.set()
    await hall.open()
    good = [
        seed(f"early {name}", **fields) for name, fields in READABLE.items() if "data" not in fields
    ]
    bad = [seed(**fields) for fields in UNREADABLE.values()]
    odd = [seed(**fields) for fields in ELSEWHERE.values()]
    await insert(house, *bad[:9], *good[:5], *odd, *good[5:], *bad[9:])
    await house.start(*hall.ports)
    await house.counted(done=len(good) + 1)  # one of the unreadable says that it is done
    later = seed("later", assignedAt="1")
    await insert(house, seed("later bad", v=float("nan")), later)
    await eventually(lambda: _is_done(house, later))

    async def stored() -> list[str]:
        """The reasons of all letters: on the bus there are only some in a second."""
        letters = await house.store.find("dead", {"reason": {"$regex": "^unreadable document"}})
        return [letter["reason"] for letter in letters]

    async def all_stored() -> bool:
        return len(await stored()) == len(bad) + len(odd) + 1

    await eventually(all_stored)

    answer = await house.ask("list", limit=200)
    assert answer["total"] == len(answer["jobs"]) == len(good) + len(bad) + len(odd) + 2
    assert sum("unreadable" in one for one in answer["jobs"]) == len(bad) + len(odd) + 1
    reasons = await stored()
    assert len(set(reasons)) == len(reasons)
    assert all(any(str(one["_id"]) in reason for reason in reasons) for one in bad + odd)
    [left] = await house.store.find("jobs", {"_id": bad[0]["_id"]})
    assert left == bad[0]
    assert (await house.document(str(later["_id"])))["assignedAt"] in ("1", "2")

    # Not reported again after a restart.
    await house.stop("domain-test")
    await house.start_domain(2)
    await insert(house, another := seed("after the restart"))
    await eventually(lambda: _is_done(house, another))
    assert len(await stored()) == len(reasons)


async def _is_done(house: House, found: Document) -> bool:
    return bool(await house.store.count("jobs", {"_id": found["_id"], "status": "done"}))


async def test_a_job_that_somebody_repairs_is_mixed_without_a_restart(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    bad = seed(data={"CustomerName": "a", "ColorCode": 5})
    await insert(house, bad)
    await house.start(*hall.ports)
    await until(lambda: len(house.dead) == 1)
    assert await house.refusal("cancel", job=str(bad["_id"])) == "unreadable"
    jobs = house.store.collection("jobs")
    await jobs.update_one({"_id": bad["_id"]}, {"$set": {"data.ColorCode": "112233"}})
    await eventually(lambda: _is_done(house, bad))


async def test_what_the_seeds_tool_does_to_our_jobs_is_understood(house: House, hall: Hall) -> None:
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    answer = await house.ask("submit", ClientName="C", CustomerName="a", ColorCode="112233")
    await house.counted(done=1)
    jobs = house.store.collection("jobs")
    id = {"_id": ObjectId(answer["job"])}
    for change in ({"status": "waiting"}, {"status": "inprogress"}, {"assignedAt": "2"}):
        await jobs.update_one(id, {"$set": change})
    await eventually(lambda: _mixed(house, answer["job"], 2))
    await jobs.update_one(id, {"$set": {"data.ColorCode": "#abcdef"}})
    await jobs.update_one(id, {"$set": {"status": "waiting"}})
    await eventually(lambda: _mixed(house, answer["job"], 3))
    assert hall.mixers  # the last colour went out
    assert (await house.document(answer["job"]))["data"]["ColorCode"] == "ABCDEF"
    await jobs.delete_one(id)
    assert await house.refusal("show", job=answer["job"]) == "unknown_job"
    assert house.dead == []


async def _mixed(house: House, job: str, times: int) -> bool:
    history = (await house.document(job))["history"]
    return sum(change["status"] == "done" for change in history) >= times


async def test_a_combinator_whose_document_is_unreadable_waits_and_the_other_mixes(
    house: House, hall: Hall
) -> None:
    hall.gate.set()
    await hall.open()
    await house.store.insert_new("combinators", [{"_id": "combinator-1", "device": "one"}])
    await house.store.insert_new("settings", [{"_id": "allocator", "mode": ["auto"]}])
    await insert(house, seed())
    await house.start(*hall.ports)
    await house.counted(done=1)
    await until(lambda: len(house.dead) == 2)
    assert {device for device, _ in hall.order} == {2}
    await house.ask("mode", mode="manual")
    answer = await house.ask("submit", ClientName="C", CustomerName="a", ColorCode="112233")
    assert await house.refusal("assign", job=answer["job"], device=1) == "unreadable"
    await house.store.remove("combinators", {"_id": "combinator-1"})
    await eventually(
        lambda: house.store.count("combinators", {"_id": "combinator-1", "rev": {"$gt": 0}})
    )
    assert await house.refusal("assign", job=answer["job"], device=1) == ""
    await house.counted(done=2)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("list", {"skip": 2**63}),
        ("list", {"skip": 2**53 + 1}),
        ("list", {"skip": 2**70}),
        ("list", {"CustomerName": "n\0l"}),
        ("list", {"status": "done\n"}),
        ("assign", {"job": "x", "device": 2**70}),
        ("assign", {"job": "x" * 65, "device": 1}),
        ("submit", {"ClientName": "x" * 200_000, "CustomerName": "a", "ColorCode": "112233"}),
        ("submit", {"ClientName": "C", "CustomerName": "a", "ColorCode": "1" * 1_000}),
    ],
)
async def test_a_command_out_of_bounds_is_refused_and_the_next_is_answered(
    house: House, name: str, body: dict[str, Any]
) -> None:
    await house.start()
    assert await house.refusal(name, **body) == "bad_request"
    assert (await house.ask("list", skip=2**53))["jobs"] == []
