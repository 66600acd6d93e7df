"""How many boards the domain knows, who makes room, and what an operator removes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from patchbay.inbox import Aggregate
from patchbay.messages import encode, now
from patchbay.testing import eventually, until
from patchbay_locker.messages import Report
from tests.locker_domain import (
    BOOT,
    GROUPS,
    TOPICS,
    Office,
    answers,
    enveloped,
    keep,
    known_board,
    order,
    rental,
)


async def cleared(office: Office, board: str) -> None:
    """Wait until every retained topic of a board is cleared."""
    topics = [topic("locker", board) for topic in (TOPICS.desired, TOPICS.state, TOPICS.status)]
    await until(lambda: all(office.ears.on(topic)[-1:] in ([], [b""]) for topic in topics))


async def ids(office: Office) -> list[str]:
    return [one["_id"] for one in await office.documents("boards")]


async def test_invented_boards_make_room_for_each_other_and_never_put_out_a_used_one(
    office: Office,
) -> None:
    week = now() - timedelta(days=7)
    old = {"first_seen": week, "rev": 0}
    await keep(
        office.store,
        known_board(rental(2), id="rented"),
        known_board(id="commanded", rev=1, last_seen=week, first_seen=week),
        known_board(id="reported-for-a-day", last_seen=week + timedelta(days=2), **old),
    )
    await office.open(max_boards=10)
    for number in range(40):
        office.add(board=f"invented-{number}", box_acc=[2])
    await office.persisted()
    known = await ids(office)
    assert len(known) == 10
    assert {"rented", "commanded", "reported-for-a-day"} <= {*known}
    assert len(office.domain.kept.boards) == 10
    gone = {f"invented-{number}" for number in range(40)} - {*known}
    assert len(gone) == 33
    for board in gone:
        await cleared(office, board)
    assert office.domain.registry.evicted == 33


async def test_a_board_that_reports_often_is_not_put_out_by_invented_ones(office: Office) -> None:
    await office.open(max_boards=8)
    for _ in range(3):
        office.add(board="honest", box_acc=[2])
    for number in range(50):
        await office.report(board=f"invented-{number}")
        if number % 10 == 0:
            await office.report(board="honest", box_acc=[2])
    [honest] = [one for one in await office.documents("boards") if one["_id"] == "honest"]
    assert honest["reports"] == honest["accesses"] == 8


async def test_topics_of_invented_boards_do_not_fill_the_broker(office: Office) -> None:
    """Mosquitto keeps a part of each topic on which something was ever retained."""
    await office.open(max_boards=10)
    for number in range(100):
        await office.report(board=f"invented-{number}")
    await office.report(board="1953")
    published = {
        message.topic for message in office.ears.messages if message.topic.endswith("/desired")
    }
    assert len(published) <= 20
    assert not office.ears.desired()
    assert (await office.done("state"))["board"]["online"]
    await office.done("assign", cell=2, minutes=5)
    await until(lambda: office.ears.desired() and office.ears.states())
    await until(lambda: office.ears.on(TOPICS.status("locker", "1953")) == [b"online"])


async def test_when_no_board_makes_room_a_new_one_is_refused_and_the_others_go_on(
    office: Office,
) -> None:
    await keep(office.store, *(known_board(rental(2), id=f"used-{n}") for n in range(3)))
    await office.open(max_boards=3)
    await office.report(board="new")
    await until(lambda: office.ears.on(TOPICS.dead("locker")))
    assert b"max_boards" in office.ears.on(TOPICS.dead("locker"))[0]
    await office.report(board="used-1", box_acc=[2])
    assert await ids(office) == ["used-0", "used-1", "used-2"]
    assert len(await office.documents("accesses")) == 1
    assert office.domain.registry.refused == 1


async def test_reports_of_other_clients_are_bounded_as_well(office: Office) -> None:
    await office.open(max_boards=5)
    for number in range(30):
        bare = Report(board=f"mqtt-{number}", boot=BOOT, send=1, cols=8, rows=8, act_con=GROUPS)
        topic = TOPICS.event("locker", f"mqtt-{number}", "report")
        await office.operator.publish(topic, encode(bare))

    async def all_are_taken() -> bool:
        return "mqtt-29" in await ids(office)

    await eventually(all_are_taken)
    assert len(await ids(office)) == 5


async def test_a_command_makes_a_board_one_that_stays(office: Office) -> None:
    await office.open(max_boards=3)
    await office.report(board="1953")
    await office.done("unblock")
    for number in range(20):
        await office.report(board=f"invented-{number}")
    assert "1953" in await ids(office)
    assert (await office.document("boards", "1953"))["used"] is True
    assert office.ears.desired()[-1]["rev"] == 1


async def test_a_command_to_an_unknown_board_makes_none(office: Office) -> None:
    await office.open()
    for command in ("block", "reset", "forget"):
        assert await office.refused(command, board="nobody") == "unknown_board"
    assert await ids(office) == []
    assert not office.ears.on(TOPICS.desired("locker", "nobody"))


async def test_a_store_with_more_boards_than_there_may_be_loses_only_strangers(
    office: Office,
) -> None:
    """As a version without a bound has left it."""
    used = [known_board(rental(2), id=f"used-{n}") for n in range(12)]
    strangers = [known_board(id=f"stranger-{n:04d}", rev=0, reports=1) for n in range(700)]
    await keep(office.store, *used, *strangers)
    await office.open(max_boards=10)
    assert len(office.domain.kept.boards) == 12

    async def removed() -> bool:
        return await ids(office) == sorted(one.id for one in used)

    await eventually(removed)
    await cleared(office, "stranger-0007")
    await office.report(board="used-3")
    assert (await office.done("state", board="used-11"))["board"]["busy"] == [2]


async def test_a_board_that_was_not_loaded_for_want_of_room_goes_on_when_it_reports(
    office: Office,
) -> None:
    strangers = [known_board(id=f"stranger-{n:04d}", rev=0, reports=1) for n in range(30)]
    await keep(office.store, *strangers)
    await office.open(max_boards=10)
    for number in range(30):
        office.add(board=f"stranger-{number:04d}", send=100)
    await office.persisted()

    async def bounded() -> bool:
        return len(await ids(office)) <= 11

    await eventually(bounded)


async def test_boards_are_loaded_in_pages_and_all_published_before_online(
    office: Office,
) -> None:
    await keep(office.store, *(known_board(id=f"board-{n:05d}") for n in range(2_000)))
    await office.open()
    assert len(office.domain.kept.boards) == 2_000
    wanted = {TOPICS.status("locker", f"board-{n:05d}") for n in range(2_000)}
    await until(lambda: wanted <= {message.topic for message in office.ears.messages})


# forget


async def test_forget_removes_the_board_and_all_that_is_retained_of_it(office: Office) -> None:
    await office.open()
    await office.report(box_acc=[2])
    await office.done("assign", cell=2, minutes=5)
    await office.done("revoke", cell=2)
    answer = await office.done("forget")
    assert answer == {"board": "1953", "documents": "keep", "removed": {"boards": 1}}
    assert await ids(office) == []
    assert len(await office.documents("accesses")) == len(await office.documents("rentals")) == 1
    await cleared(office, "1953")
    assert await office.refused("state") == "unknown_board"
    await office.report(board="other")
    await office.close()
    await office.open()
    await cleared(office, "1953")
    assert (await office.done("boards", board="all"))["total"] == 1


async def test_forget_can_remove_its_history(office: Office) -> None:
    await office.open()
    for board in ("1953", "19530"):
        await office.report(board=board, box_acc=[2, 4])
        await office.done("assign", board=board, cell=2, minutes=5)
        await office.done("revoke", board=board, cell=2)
    answer = await office.done("forget", documents="remove")
    assert answer["removed"] == {"boards": 1, "rentals": 1, "accesses": 2}
    assert {one["board"] for one in await office.documents("accesses")} == {"19530"}
    assert {one["board"] for one in await office.documents("rentals")} == {"19530"}


async def test_forget_is_refused_while_a_cell_is_rented_unless_it_is_forced(
    office: Office,
) -> None:
    await office.open()
    await office.report()
    await office.done("assign", cell=2, minutes=5)
    assert await office.refused("forget") == "rented"
    assert await ids(office) == ["1953"]
    await office.done("forget", force=True)
    [record] = await office.documents("rentals")
    assert record["status"] == "revoked"
    assert await ids(office) == []


async def test_a_report_from_before_it_was_removed_does_not_bring_a_board_back(
    office: Office,
) -> None:
    """An edge that was away has it in its outbox."""
    await office.open()
    await office.report()
    before = now()
    await office.done("forget")
    await office.report(at=before, box_acc=[2])
    assert await ids(office) == []
    await office.report()
    [board] = await office.documents("boards")
    assert (board["reports"], board["accesses"]) == (1, 0)


async def test_an_edge_that_was_away_is_told_when_it_comes(office: Office) -> None:
    await office.open()
    await office.report()
    await office.done("assign", cell=2, minutes=5)
    await office.done("forget", force=True)
    topic = TOPICS.desired("locker", "1953")
    status = TOPICS.unit_status(office.domain.bus.client_id)
    before = len(office.ears.messages)
    await office.operator.publish(TOPICS.unit_status("locker-edge-late"), b"online", retain=True)
    await until(lambda: any(m.topic == status for m in office.ears.messages[before:]))
    assert (topic, b"") in [(m.topic, m.payload) for m in office.ears.messages[before:]]


async def test_a_board_that_comes_back_outranks_the_list_that_an_edge_still_holds(
    office: Office,
) -> None:
    await office.open()
    await office.report()
    await office.done("assign", cell=2, minutes=5)
    held = office.ears.desired()[-1]["rev"]
    await office.done("forget", force=True)
    await office.report()
    assert office.ears.desired()[-1]["rev"] > held
    assert office.ears.desired()[-1]["rentals"] == []
    assert office.ears.on(TOPICS.desired("locker", "1953"))[-1]


async def test_a_kill_in_the_middle_of_forget_is_completed(office: Office) -> None:
    await keep(office.store, known_board(rental(2)), known_board(id="other"))
    at = now() - timedelta(minutes=1)
    forgotten = {"_id": "1953", "rev": 3, "at": at, "request": "", "answer": ""}
    await office.store.save("forgotten", [forgotten])
    await office.open()
    assert await ids(office) == ["other"]
    assert [board.id for board in office.domain.kept.boards] == ["other"]


async def test_a_document_that_cannot_be_read_can_be_forgotten(office: Office) -> None:
    await keep(office.store, known_board())
    [document] = await office.documents("boards")
    await office.store.save("boards", [{**document, "reports": "many"}])
    await office.open()
    assert await office.refused("block") == "unreadable"
    assert (await office.done("forget"))["board"] == "1953"
    assert await ids(office) == []


@pytest.mark.parametrize("documents", ["keep", "remove"])
async def test_forget_delivered_twice_acts_once(office: Office, documents: str) -> None:
    await office.open()
    await office.report()
    body = enveloped("forget", {"documents": documents})
    await order(office, "forget", body)
    await until(lambda: len(answers(office)) == 1)
    await order(office, "forget", body)
    await until(lambda: len(answers(office)) == 2)
    [first, second] = answers(office)
    assert first == second
    assert first["ok"]


def test_a_board_of_an_older_version_counts_as_used_if_it_ever_had_a_command() -> None:
    assert known_board(rev=0).stranger()
    assert not known_board(rev=1).stranger()
    assert not known_board(rental(2), rev=0).stranger()
    assert known_board(rev=3, used=False).stranger()
    assert not Aggregate("x", known_board(rev=0, used=True)).state.stranger()
