"""The locker's commands, asked by an operator of a domain with a real store and a real broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from patchbay.messages import encode, now, parse_time
from patchbay.testing import until
from tests.locker_domain import (
    Office,
    answers,
    desired_codes,
    keep,
    known_board,
    order,
)


@pytest.fixture
async def office(office: Office) -> Office:
    """A domain that knows board 1953, whose cells 2, 4, 5, 7, 8, 9 and so on have a lock."""
    await keep(office.store, known_board())
    await office.open()
    return office


# assign


async def test_assign_rents_a_cell_and_answers_what_opens_it(office: Office) -> None:
    began = now()
    answer = await office.done("assign", cell=5, minutes=4800, code="1492", holder="Ann")
    assert answer.keys() == {"rental", "cell", "code", "expires_at"}
    assert (answer["cell"], answer["code"]) == (5, "1492")
    expires_at = parse_time(answer["expires_at"])
    assert began <= expires_at - timedelta(minutes=4800) <= now()
    assert await office.documents("rentals") == [
        {
            "_id": answer["rental"],
            "board": "1953",
            "cell": 5,
            "code": "1492",
            "holder": "Ann",
            "created_at": expires_at - timedelta(minutes=4800),
            "expires_at": expires_at,
            "status": "active",
            "ended_at": None,
        }
    ]
    assert await desired_codes(office, 4) == {5: "1492"}
    await until(lambda: office.ears.states()[-1]["busy"] == [5])
    [shown] = office.ears.states()[-1]["rentals"]
    assert shown == {
        "rental": answer["rental"],
        "cell": 5,
        "expires_at": answer["expires_at"],
        "holder": "Ann",
    }


async def test_auto_takes_the_lowest_free_cell_that_has_a_lock(office: Office) -> None:
    await office.done("assign", cell=4, minutes=60)
    cells = [(await office.done("assign", cell="auto", minutes=60))["cell"] for _ in range(4)]
    assert cells == [2, 5, 7, 8]


async def test_a_code_is_drawn_when_none_is_given(office: Office) -> None:
    drawn = [(await office.done("assign", cell="auto", minutes=60))["code"] for _ in range(5)]
    assert all(len(code) == 4 and code.isdigit() for code in drawn)
    assert len(set(drawn)) == 5
    assert list((await desired_codes(office, 8)).values()) == drawn


async def test_drawn_codes_have_the_length_of_the_setting_and_run_out(office: Office) -> None:
    await office.close()
    await office.open(code_length=1)
    drawn = [(await office.done("assign", cell="auto", minutes=60))["code"] for _ in range(10)]
    assert sorted(drawn) == list("0123456789")
    assert await office.refused("assign", cell="auto", minutes=60) == "code_in_use"
    assert (await office.done("assign", cell="auto", minutes=60, code="10"))["code"] == "10"


@pytest.mark.parametrize("minutes", [1, 525_600])
async def test_the_shortest_and_the_longest_rental(office: Office, minutes: int) -> None:
    await office.done("assign", cell=2, minutes=minutes)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("bad_minutes", {"cell": 5, "minutes": 0}),
    ("bad_minutes", {"cell": 5, "minutes": -60}),
    ("bad_minutes", {"cell": 5, "minutes": 525_601}),
    ("bad_code", {"cell": 5, "minutes": 60, "code": ""}),
    ("bad_code", {"cell": 5, "minutes": 60, "code": "14a2"}),
    ("bad_code", {"cell": 5, "minutes": 60, "code": "1" * 17}),
    ("no_such_cell", {"cell": 0, "minutes": 60}),
    ("no_such_cell", {"cell": -2, "minutes": 60}),
    ("no_such_cell", {"cell": 65, "minutes": 60}),
    ("cell_not_connected", {"cell": 1, "minutes": 60}),
    ("cell_busy", {"cell": 2, "minutes": 60}),
    ("code_in_use", {"cell": 5, "minutes": 60, "code": "1492"}),
    ("bad_request", {"cell": 5}),
    ("bad_request", {"cell": "five", "minutes": 60}),
    ("bad_request", {"cell": 5, "minutes": "60"}),
    ("bad_request", {"cell": 5, "minutes": 60, "colour": "red"}),
]


async def test_assign_is_refused_with_a_code_for_each_reason_and_changes_nothing(
    office: Office,
) -> None:
    await office.done("assign", cell=2, minutes=60, code="1492")
    before = await office.document("boards", "1953")
    for code, body in REFUSED:
        assert (code, await office.refused("assign", **body)) == (code, code), body
    assert await office.document("boards", "1953") == before
    assert len(await office.documents("rentals")) == 1
    assert office.ears.desired()[-1]["rev"] == before["rev"] == 4


async def test_a_board_without_a_free_cell_says_so(office: Office) -> None:
    await office.report(board="small", cols=3, rows=1, act_con=["101"])
    for cell in (1, 3):
        assert (await office.done("assign", board="small", cell="auto", minutes=1))["cell"] == cell
    assert await office.refused("assign", board="small", cell="auto", minutes=1) == "no_free_cell"


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("assign", {"cell": 2, "minutes": 60}),
        ("revoke", {"cell": 2}),
        ("extend", {"cell": 2, "minutes": 60}),
        ("block", {}),
        ("unblock", {}),
        ("reset", {}),
        ("state", {}),
        ("rentals", {}),
        ("accesses", {}),
    ],
)
async def test_a_board_that_has_never_reported_is_unknown(
    office: Office, command: str, body: Mapping[str, Any]
) -> None:
    assert await office.refused(command, board="nobody", **body) == "unknown_board"


# revoke and extend


async def test_revoke_ends_a_rental_and_frees_its_cell(office: Office) -> None:
    rented = await office.done("assign", cell=5, minutes=60)
    began = now()
    answer = await office.done("revoke", cell=5)
    assert answer == {"rental": rented["rental"], "cell": 5}
    [record] = await office.documents("rentals")
    assert record["status"] == "revoked"
    assert began <= record["ended_at"] <= now()
    assert await desired_codes(office, 5) == {}
    assert await office.refused("revoke", cell=5) == "not_rented"
    assert await office.refused("extend", cell=5, minutes=1) == "not_rented"
    await office.done("assign", cell=5, minutes=60)


async def test_extend_adds_minutes_to_what_is_left(office: Office) -> None:
    rented = await office.done("assign", cell=5, minutes=60, code="1492")
    answer = await office.done("extend", cell=5, minutes=30)
    longer = parse_time(rented["expires_at"]) + timedelta(minutes=30)
    assert (answer["rental"], answer["cell"]) == (rented["rental"], 5)
    assert parse_time(answer["expires_at"]) == longer
    assert (await office.document("rentals", rented["rental"]))["expires_at"] == longer
    assert await desired_codes(office, 5) == {5: "1492"}
    for minutes in (0, 525_601, 525_600):  # the last: more than a year would be left
        assert await office.refused("extend", cell=5, minutes=minutes) == "bad_minutes"


# block, unblock and reset


async def test_block_holds_until_unblock(office: Office) -> None:
    assert await office.done("block") == {"blocked": True}
    assert await office.done("block") == {"blocked": True}
    await until(lambda: office.ears.states()[-1]["blocked"])
    assert await office.done("unblock") == {"blocked": False}
    await until(lambda: not office.ears.states()[-1]["blocked"])
    said = [(one["rev"], one["blocked"]) for one in office.ears.desired()]
    assert said == [(3, False), (4, True), (5, False)]


async def test_reset_is_one_order_until_the_board_has_rebooted(office: Office) -> None:
    assert await office.done("reset") == {"reset_id": 1}
    assert await office.done("reset") == {"reset_id": 1}
    await until(lambda: office.ears.desired()[-1]["reset_id"] == 1)
    await office.report(rebooted=True, reset=True)
    await until(lambda: office.ears.desired()[-1]["reset_id"] is None)
    await until(lambda: [one["reset_id"] for one in office.ears.facts("rebooted")] == [1])
    assert await office.done("reset") == {"reset_id": 2}


async def test_a_reset_that_waited_while_the_domain_was_down_is_too_late(office: Office) -> None:
    await office.close()
    await order(office, "reset", b"")
    await order(office, "assign", encode({"cell": 5, "minutes": 60}))
    await office.open()
    await until(lambda: len(answers(office)) == 2)
    late, rented = answers(office)
    assert (late["ok"], late["error"]["code"]) == (False, "too_late")
    assert (rented["ok"], rented["cell"]) == (True, 5)
    assert (await office.document("boards", "1953"))["reset_id"] is None
    assert await office.done("reset") == {"reset_id": 1}


# Questions


async def test_state_shows_one_board_as_everybody_may_see_it(office: Office) -> None:
    rented = await office.done("assign", cell=5, minutes=60, code="1492")
    state = (await office.done("state"))["board"]
    assert (state["board"], state["busy"], state["free"][:4]) == ("1953", [5], [2, 4, 7, 8])
    assert [one["rental"] for one in state["rentals"]] == [rented["rental"]]
    assert "1492" not in json.dumps(state)


async def test_boards_shows_all_of_them_by_their_ids_and_in_pages(office: Office) -> None:
    for board in ("b", "a"):
        await office.report(board=board)
    answer = await office.done("boards", board="all")
    assert [one["board"] for one in answer["boards"]] == ["1953", "a", "b"]
    assert answer["total"] == 3
    page = await office.done("boards", board="all", skip=1, limit=1)
    assert ([one["board"] for one in page["boards"]], page["total"]) == (["a"], 3)
    one = await office.done("boards", board="b")
    assert ([one["board"] for one in one["boards"]], one["total"]) == (["b"], 1)
    assert await office.refused("boards", board="all", limit=201) == "bad_request"


async def test_rentals_shows_them_without_their_codes_newest_first(office: Office) -> None:
    await office.report(board="other")
    first = await office.done("assign", cell=2, minutes=60, holder="Ann")
    await office.done("revoke", cell=2)
    second = await office.done("assign", cell=4, minutes=60)
    third = await office.done("assign", board="other", cell=2, minutes=60)

    def ids(answer: Mapping[str, Any]) -> list[str]:
        return [one["rental"] for one in answer["rentals"]]

    mine = await office.done("rentals")
    assert ids(mine) == [second["rental"], first["rental"]]
    assert mine["total"] == 2
    assert mine["rentals"][1].keys() == {
        "rental",
        "board",
        "cell",
        "holder",
        "created_at",
        "expires_at",
        "status",
        "ended_at",
    }
    assert [one["status"] for one in mine["rentals"]] == ["active", "revoked"]
    assert ids(await office.done("rentals", active=True)) == [second["rental"]]
    everybodys = await office.done("rentals", board="all", active=True)
    assert ids(everybodys) == [third["rental"], second["rental"]]
    page = await office.done("rentals", board="all", skip=2, limit=1)
    assert (ids(page), page["total"]) == ([first["rental"]], 3)


async def test_accesses_shows_them_newest_first(office: Office) -> None:
    rented = await office.done("assign", cell=2, minutes=60)
    await office.report(box_acc=[2])
    await office.report(box_acc=[4], maybe_repeat=True)
    await office.report(board="other", box_acc=[7])
    answer = await office.done("accesses")
    assert answer["total"] == 2
    newest, oldest = answer["accesses"]
    assert (newest["cell"], newest["rental"], newest["maybe_repeat"]) == (4, None, True)
    assert (oldest["cell"], oldest["rental"], oldest["send"]) == (2, rented["rental"], 1)
    assert newest.keys() == {"board", "boot", "send", "cell", "rental", "at", "maybe_repeat"}
    everybodys = await office.done("accesses", board="all")
    assert sorted(one["board"] for one in everybodys["accesses"]) == ["1953", "1953", "other"]


@pytest.mark.parametrize("command", ["state", "boards", "rentals", "accesses"])
async def test_a_question_that_waited_while_the_domain_was_down_is_answered(
    office: Office, command: str
) -> None:
    await office.close()
    await order(office, command, b"{}")
    await office.open()
    await until(lambda: answers(office))
    assert answers(office)[0]["ok"], answers(office)
