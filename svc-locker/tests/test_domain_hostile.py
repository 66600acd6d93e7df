"""Whatever comes on the bus: each command is answered, and time goes on for every board."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from patchbay.messages import encode
from patchbay.store import Document
from patchbay.testing import eventually, until
from patchbay_locker.messages import MAX_HOLDER, MAX_INTEGER
from patchbay_locker.reports import MAX_FOLLOWED
from tests.locker_domain import BOOT, TOPICS, Office, keep, known_board, rental

LONG = "x" * 200_000
BAD_REPORTS: dict[str, dict[str, Any]] = {
    "an id of 70,000 characters": {"board": "a" * 70_000},
    "an empty id": {"board": ""},
    "an id that stands for all boards": {"board": "All"},
    "a revision of 2^63 - 1": {"rev": 2**63 - 1},
    "a revision over 2^53": {"rev": MAX_INTEGER + 1},
    "a negative revision": {"rev": -1},
    "a boot of 2^63": {"boot": 2**63},
    "a negative boot": {"boot": -1},
    "a send of 2^63": {"send": 2**63},
    "a cell of 2^53": {"box_acc": [2**53]},
    "a million cells": {"box_acc": [1] * 100_000},
    "rows without end": {"rows": 2**40},
    "a long group": {"act_con": [LONG]},
}


@contextlib.asynccontextmanager
async def loaded(office: Office) -> AsyncIterator[None]:
    """Three boards report all the time meanwhile."""

    async def report(board: str) -> None:
        while True:
            await office.report(board=board)
            await asyncio.sleep(0.1)  # `persisted` waits for an outbox that is empty

    tasks = [asyncio.create_task(report(f"busy-{number}")) for number in range(3)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def after_empty(office: Office) -> dict[str, Any]:
    """What the board is to know, published after the edge was told to forget it."""
    payloads = office.ears.on(TOPICS.desired("locker", "1953"))
    last: dict[str, Any] = json.loads(payloads[-1] or b'{"rev": null}')
    return last


async def lives(office: Office, board: str = "1953") -> None:
    """A report is taken in, and the next command is answered and carried out."""
    await office.report(board=board)
    blocked = await office.done("block", board=board)
    assert blocked == {"blocked": True}
    await office.done("unblock", board=board)


async def test_a_report_out_of_bounds_is_a_dead_letter_and_stops_nobody(office: Office) -> None:
    await office.open()
    await office.report()
    async with loaded(office):
        for number, fields in enumerate(BAD_REPORTS.values(), 1):
            body = {"board": "1953", "boot": BOOT, "send": 1, **fields}
            await office.operator.publish(TOPICS.event("locker", "z", "report"), encode(body))
            await until(lambda n=number: len(office.ears.on(TOPICS.dead("locker"))) >= n)  # type: ignore[misc]
            await lives(office)
    await office.close()
    await office.open()
    await lives(office)
    ids = [one["_id"] for one in await office.documents("boards")]
    assert sorted(ids) == ["1953", "busy-0", "busy-1", "busy-2"]


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("assign", {"cell": "auto", "minutes": 1, "holder": LONG}),
        ("assign", {"cell": "auto", "minutes": 1, "holder": "x" * (MAX_HOLDER + 1)}),
        ("assign", {"cell": "auto", "minutes": 1, "code": "1" * 200_000}),
        ("assign", {"cell": 2**63, "minutes": 1}),
        ("revoke", {"cell": 2**64}),
        ("extend", {"cell": 2, "minutes": 2**63}),
        ("accesses", {"skip": 2**63}),
        ("accesses", {"skip": 2**64}),
        ("rentals", {"skip": 2**63 - 1}),
        ("boards", {"skip": 2**64}),
    ],
)
async def test_a_command_out_of_bounds_is_refused_and_the_next_is_answered(
    office: Office, command: str, body: dict[str, Any]
) -> None:
    await office.open()
    await office.report()
    async with loaded(office):
        for _ in range(2):
            assert await office.refused(command, **body) == "bad_request"
        await lives(office)


@pytest.mark.parametrize("command", ["accesses", "rentals", "boards"])
@pytest.mark.parametrize("skip", [2**31 - 1, 1_000_000])
async def test_skipping_more_than_there_is_finds_nothing(
    office: Office, command: str, skip: int
) -> None:
    await office.open()
    await office.report(box_acc=[2])
    assert (await office.done(command, skip=skip))[command] == []


async def test_a_board_that_cannot_be_published_keeps_no_other_rental_from_ending(
    office: Office,
) -> None:
    """A holder that was taken before there was a limit: two make a state that no broker takes."""
    holders = {cell: rental(cell, left_s=2.0) for cell in (2, 4)}
    long = known_board(*holders.values(), id="long", online=True)
    await keep(office.store, long, known_board(rental(5, left_s=2.0), id="other", online=True))
    [document] = [one for one in await office.documents("boards") if one["_id"] == "long"]
    for one in document["rentals"].values():
        one["holder"] = LONG
    await office.store.save("boards", [document])
    await office.open()
    async with loaded(office):
        await until(lambda: office.ears.events("expired", "other"))
        await until(lambda: len(office.ears.events("expired", "long")) == 2)
        assert office.ears.states("long")


async def test_a_board_that_cannot_be_saved_keeps_no_other_rental_from_ending(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a revision is that an older version had taken from a forged report."""
    broken = known_board(rental(2, left_s=1.0), id="broken", rev=2**63 - 1)
    await keep(office.store, broken, known_board(rental(5, left_s=1.0), id="other"))
    await office.open()
    await until(lambda: office.ears.events("expired", "other"))
    await lives(office)


async def test_a_board_that_an_older_version_took_with_an_endless_id_keeps_nobody_offline(
    office: Office,
) -> None:
    endless = known_board(rental(2, left_s=1.0), id="a" * 70_000, online=True)
    await keep(office.store, endless, known_board(rental(5, left_s=1.0), id="other"))
    await office.open(offline_after_s=1)
    await until(lambda: office.ears.events("expired", "other"))
    await office.operator.publish(TOPICS.unit_status("locker-edge-new"), b"online", retain=True)
    await lives(office)
    await office.close()
    await office.open()
    await lives(office)


@pytest.mark.parametrize("rev", [MAX_FOLLOWED + 1, MAX_INTEGER - 1, MAX_INTEGER])
async def test_a_forged_revision_leaves_room_for_ours(office: Office, rev: int) -> None:
    """The edge holds it, since it is higher than ours: it has to forget it before it takes ours."""
    await office.open()
    await office.report()
    mine = office.ears.desired()[-1]["rev"]
    await office.report(rev=rev)
    topic = TOPICS.desired("locker", "1953")
    await until(lambda: b"" in office.ears.on(topic))
    await until(lambda: office.ears.on(topic)[-1])
    assert after_empty(office)["rev"] == mine
    assert (await office.done("assign", cell=2, minutes=5))["cell"] == 2
    await until(lambda: after_empty(office)["rev"] == mine + 1)


async def test_an_edge_that_missed_what_a_board_is_to_know_gets_it_again(office: Office) -> None:
    """By its report: retained messages may never reach it."""
    await office.open()
    await office.report()
    await office.done("assign", cell=2, minutes=5, code="1492")
    await until(lambda: office.ears.desired()[-1]["rev"] == 1)
    said = len(office.ears.desired())
    await office.report(rev=0)
    await until(lambda: len(office.ears.desired()) > said)
    assert office.ears.desired()[-1]["rentals"][0]["code"] == "1492"
    said = len(office.ears.desired())
    await office.report(rev=1)
    await office.done("state")
    assert len(office.ears.desired()) == said


async def test_an_edge_that_comes_is_told_all_before_we_say_online(office: Office) -> None:
    await keep(office.store, *(known_board(id=f"board-{number}") for number in range(250)))
    await office.open()
    status = TOPICS.unit_status("locker-domain-test")
    await until(lambda: office.ears.on(status))
    before = len(office.ears.messages)
    await office.operator.publish(TOPICS.unit_status("locker-edge-new"), b"online", retain=True)
    await until(lambda: any(m.topic == status for m in office.ears.messages[before:]))
    topics = [message.topic for message in office.ears.messages[before:]]
    told = topics[: topics.index(status)]
    assert {TOPICS.desired("locker", f"board-{n}") for n in range(250)} <= set(told)


async def test_a_state_is_published_only_once_it_is_saved(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store takes its time, the bus says what is in the store."""
    await office.open()
    await office.report()
    store = office.domain.kept
    saving, go_on = asyncio.Event(), asyncio.Event()
    save_facts = store.save_facts

    async def slowly(accesses: list[Document]) -> None:
        saving.set()
        await go_on.wait()
        await save_facts(accesses)

    await until(lambda: office.ears.states() and office.ears.states()[-1]["send"] == 1)
    monkeypatch.setattr(store, "save_facts", slowly)
    office.add()
    office.domain.announcer.saved(office.domain.kept.boards)
    await saving.wait()
    await asyncio.sleep(0.3)  # six times the interval of states
    assert office.ears.states()[-1]["send"] == 1
    go_on.set()
    await until(lambda: office.ears.states()[-1]["send"] == 2)


# Ids that differ in case only


async def test_boards_whose_ids_differ_in_case_share_no_codes_and_raise_an_alarm(
    office: Office,
) -> None:
    await office.open()
    await office.report(board="Kiosk-A7")
    await office.report(board="kiosk-a7")
    [first, twin] = await office.documents("boards")
    assert (first["id"], twin["id"]) == ("Kiosk-A7", "kiosk-a7")
    assert first["_id"] == "kiosk-a7"
    assert twin["_id"].startswith("kiosk-a7-")
    await office.done("assign", board="Kiosk-A7", cell=2, minutes=5, code="9911")
    [alarm] = office.ears.facts("alarm", "Kiosk-A7")
    assert alarm["alarm"] == "two_boards"
    assert "kiosk-a7" in alarm["message"]
    await until(lambda: office.ears.on(TOPICS.desired("locker", twin["_id"])))
    assert b"9911" not in b"".join(office.ears.on(TOPICS.desired("locker", twin["_id"])))
    assert first["send"] == 1


async def test_a_board_that_is_back_in_another_case_and_has_no_rental_goes_on(
    office: Office,
) -> None:
    await keep(office.store, known_board(id="Kiosk-A7"))
    await office.open()
    await office.report(board="kiosk-a7", send=500)
    [board] = await office.documents("boards")
    assert (board["_id"], board["id"], board["send"]) == ("kiosk-a7", "kiosk-a7", 500)
    assert office.ears.events("alarm", "kiosk-a7") == []


async def test_the_alarm_is_over_when_the_other_board_is_gone(office: Office) -> None:
    await office.open()
    await office.report(board="Kiosk-A7")
    await office.report(board="kiosk-a7")
    for _ in range(25):
        await office.report(board="Kiosk-A7")

    async def is_over() -> bool:
        board = (await office.done("state", board="Kiosk-A7"))["board"]
        return board["alarms"] == []

    await eventually(is_over)
