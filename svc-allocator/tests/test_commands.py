"""Every command of the queue, with every code that it is refused with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patchbay.messages import encode
from patchbay.store import ObjectId
from patchbay.testing import eventually, until
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House

NOBODY = "65a1f0c20000000000000001"


async def submit(house: House, customer: str = "이름", color: str = "696969") -> str:
    answer = await house.ask("submit", ClientName="C", CustomerName=customer, ColorCode=color)
    assert answer["ok"], answer
    return str(answer["job"])


async def test_in_manual_mode_only_assign_gives_a_job_and_refuses_with_every_code(
    house: House, hall: Hall
) -> None:
    await hall.open()
    await house.start(*hall.ports)
    assert await house.ask("mode") == {"ok": True, "mode": "auto"}
    assert await house.ask("mode", mode="manual") == {"ok": True, "mode": "manual"}
    assert await house.refusal("mode", mode="sometimes") == "bad_request"
    first, second = await submit(house), await submit(house)
    await until(lambda: house.state.get("mode") == "manual" and house.state["waiting"] == 2)

    assert await house.refusal("assign", job=NOBODY, device=1) == "unknown_job"
    assert await house.refusal("assign", job="no id", device=1) == "unknown_job"
    assert await house.refusal("assign", job=first, device=3) == "no_such_combinator"
    assert await house.refusal("assign", job=first, device=0) == "no_such_combinator"
    assert await house.refusal("assign", job=first) == "bad_request"
    assert await house.ask("assign", job=first, device=2) == {
        "ok": True,
        "job": first,
        "device": 2,
    }
    await until(lambda: hall.order == [(2, first)])
    assert await house.refusal("assign", job=second, device=2) == "combinator_busy"
    assert await house.refusal("assign", job=first, device=1) == "in_progress"
    for name in ("cancel", "delete", "retry"):
        assert await house.refusal(name, job=first) == "in_progress"
    assert await house.refusal("recolor", job=first, ColorCode="000000") == "in_progress"

    hall.gate.set()
    await house.counted(done=1, waiting=1)
    assert await house.refusal("assign", job=first, device=1) == "already_done"
    for name in ("cancel", "retry"):
        assert await house.refusal(name, job=first) == "wrong_state"
    assert await house.refusal("recolor", job=first, ColorCode="000000") == "wrong_state"
    assert await house.refusal("retry", job=second) == "wrong_state"
    assert await house.refusal("assign", job=first, device=1, force=True) == ""
    await until(lambda: hall.order[1:] == [(1, first)])
    await house.counted(done=1, waiting=1)

    await hall.mixers[0].stop()
    await until(lambda: house.domain.presence.online() == {2})
    assert await house.refusal("assign", job=second, device=1) == "combinator_offline"
    await house.ask("mode", mode="auto")
    await house.counted(done=2)


async def test_cancel_delete_and_recolor_change_the_queue_and_leave_a_trace(house: House) -> None:
    await house.start()
    one, two, three = await submit(house), await submit(house), await submit(house)
    assert await house.ask("recolor", job=two, ColorCode=" #abcdef") == {
        "ok": True,
        "job": two,
        "ColorCode": "ABCDEF",
    }
    assert (await house.document(two))["data"]["ColorCode"] == "ABCDEF"
    assert await house.refusal("recolor", job=two, ColorCode="blue") == "bad_color"
    assert await house.refusal("cancel", job=one) == ""
    assert await house.refusal("delete", job=three) == ""
    for name in ("cancel", "delete", "retry", "show"):
        assert await house.refusal(name, job=one) == "unknown_job"
    assert await house.refusal("recolor", job=one, ColorCode="000000") == "unknown_job"
    assert [str(job["_id"]) for job in await house.documents()] == [two]
    traces = await house.store.find("events", {}, sort=[("_id", 1)])
    assert [(trace["_id"], trace["what"]) for trace in traces] == [
        (f"removed:{one}", "cancelled"),
        (f"removed:{three}", "deleted"),
    ]
    await until(lambda: len(house.changed) == 6)
    said = [(change["data"]["job"], change["data"]["status"]) for change in house.changed]
    assert said[-2:] == [(one, "cancelled"), (three, "deleted")]


async def test_submit_refuses_what_a_chromebook_may_not_send_either(house: House) -> None:
    await house.start()
    good = {"ClientName": "C", "CustomerName": "이름", "ColorCode": "696969"}
    assert await house.refusal("submit", **{**good, "ColorCode": "red"}) == "bad_color"
    assert await house.refusal("submit", **{**good, "CustomerName": " "}) == "bad_request"
    assert await house.refusal("submit", **{**good, "ClientName": "x" * 257}) == "bad_request"
    assert await house.refusal("submit", ClientName="C") == "bad_request"
    assert await house.documents() == []


async def test_a_request_that_comes_again_makes_one_job(house: House) -> None:
    await house.start()
    body = {"ClientName": "C", "CustomerName": "이름", "ColorCode": "696969"}
    event = {"specversion": "1.0", "id": "once", "source": "x", "type": "x", "data": body}
    topic = house.watcher.topics.command("allocator", "queue", "submit")
    answers = [await house.watcher.request(topic, encode(event)) for _ in range(3)]
    assert len(set(answers)) == 1
    assert len(await house.documents()) == 1
    (found,) = await house.documents()
    job = str(found["_id"])
    cancel = {**event, "id": "cancel once", "data": {"job": job}}
    topic = house.watcher.topics.command("allocator", "queue", "cancel")
    answers = [await house.watcher.request(topic, encode(cancel)) for _ in range(2)]
    assert answers == [encode({"ok": True, "job": job})] * 2


async def test_an_assign_that_comes_again_is_answered_the_same_and_assigns_once(
    house: House, hall: Hall
) -> None:
    """Also when it comes too late to act; another one is refused then."""
    await hall.open()
    await house.start(*hall.ports)
    await house.ask("mode", mode="manual")
    job = await submit(house)
    await until(lambda: house.state.get("mode") == "manual" and house.state["waiting"] == 1)
    data = {"job": job, "device": 2}
    event = {"specversion": "1.0", "id": "once", "source": "x", "type": "x", "data": data}
    topic = house.watcher.topics.command("allocator", "queue", "assign")
    first = await house.watcher.request(topic, encode(event))
    assert first == encode({"ok": True, **data})
    await until(lambda: hall.order == [(2, job)])
    assert await house.watcher.request(topic, encode(event)) == first
    house.domain.bus._router.late = True
    assert await house.watcher.request(topic, encode(event)) == first
    other = {**event, "id": "another", "data": {**data, "device": 1}}
    refused = msgspec.json.decode(await house.watcher.request(topic, encode(other)))
    assert refused["error"]["code"] == "too_late"
    assert hall.order == [(2, job)]


async def test_a_plain_command_that_is_refused_says_so_on_the_bus(house: House) -> None:
    await house.start()
    topic = house.watcher.topics.command("allocator", "queue", "cancel")
    await house.watcher.publish(topic, encode({"job": NOBODY}))
    await until(lambda: house.rejected)
    assert house.rejected[0]["data"]["code"] == "unknown_job"
    assert house.rejected[0]["data"]["command"] == "cancel"


async def test_list_finds_a_part_of_a_name_in_any_script_and_pages(house: House) -> None:
    await house.start()
    names = ["김이름", "이름표", "Анна Йод", "José", "a.c", "abc", "たろう", "ÉCOLE"]
    jobs = {name: await submit(house, name) for name in names}

    async def found(**query: object) -> list[str]:
        answer = await house.ask("list", **query)
        assert answer["ok"], answer
        return [job["data"]["CustomerName"] for job in answer["jobs"]]

    assert await found() == names
    assert await found(order="newest", limit=2) == names[:-3:-1]
    assert await found(limit=3, skip=6) == names[6:]
    assert await found(CustomerName="이름") == ["김이름", "이름표"]
    assert await found(CustomerName="\u110b\u1175\u1105\u1173\u11b7") == ["김이름", "이름표"]
    assert await found(CustomerName="йод") == ["Анна Йод"]
    assert await found(CustomerName="école") == ["ÉCOLE"]
    assert await found(CustomerName="ろ") == ["たろう"]
    assert await found(CustomerName="a.") == ["a.c"]
    assert await found(CustomerName="nobody") == []
    assert await found(status="waiting", CustomerName="os") == ["José"]
    for status in ("done", "error", "inprogress", "inprogress1"):
        assert await found(status=status) == []
    answer = await house.ask("list", limit=3)
    assert (len(answer["jobs"]), answer["total"]) == (3, 8)
    assert await house.refusal("list", status="ready") == "bad_request"
    assert await house.refusal("list", limit=0) == "bad_request"
    shown = (await house.ask("show", job=jobs["José"]))["job"]
    assert (shown["_id"], shown["data"]["CustomerName"]) == (jobs["José"], "José")


async def test_a_cancelled_job_does_not_come_again_with_its_event(house: House) -> None:
    await house.start()
    await house.send(Job("CHROMEBOOK_04", "이름", "696969"))
    await house.counted(waiting=1)
    (found,) = await house.documents()
    job = str(found["_id"])
    assert await house.refusal("cancel", job=job) == ""
    event = {
        "specversion": "1.0",
        "id": job,
        "source": "allocator-intake-test",
        "type": "patchbay.allocator.requested",
        "time": "2026-03-01T12:00:00.000Z",
        "data": {"ClientName": "C", "CustomerName": "이름", "ColorCode": "696969"},
    }
    topic = house.watcher.topics.event("allocator", "c", "requested")
    taken = house.domain.inbox.taken
    await house.watcher.publish(topic, encode(event))
    await until(lambda: house.domain.inbox.taken > taken)
    assert await house.documents() == []


async def test_a_job_that_a_person_publishes_is_taken_and_nonsense_is_set_aside(
    house: House,
) -> None:
    await house.start()
    topic = house.watcher.topics.event("allocator", "c", "requested")
    body = {"ClientName": "C", "CustomerName": "이름", "ColorCode": "#abcdef"}
    await house.watcher.publish(topic, encode(body))
    await house.watcher.publish(topic, encode({**body, "ColorCode": "blue"}))
    await house.watcher.publish(topic, b"nonsense")
    await house.counted(waiting=1)
    await until(lambda: len(house.dead) == 2)
    (found,) = await house.documents()
    assert found["data"]["ColorCode"] == "ABCDEF"
    assert isinstance(found["_id"], ObjectId)

    async def buried() -> bool:
        return await house.store.count("dead", {}) == 2

    await eventually(buried)
