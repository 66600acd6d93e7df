"""What boards see while parts of a locker house are away, and what is kept of it afterwards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from patchbay.messages import encode
from patchbay.priority import BACKGROUND_NICE
from patchbay.testing import eventually, start_s, until
from patchbay_locker.simulator import Behaviour, Board
from patchbay_locker.wire import encode_request
from tests.house import House, Line, codes_of, lists

CODES = {2: "1492", 5: "0007", 64: "123456"}
SLOWLY = Behaviour(chunk=1)
STOPPED_S = 6.0
"""Longer than an outbox waits for the domain before it starts again."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, watch="patchbay/locker/#") as house:
        yield house


async def a_board_with_codes(house: House, id: str = "1953") -> Board:
    board = house.board(id)
    await board.report()
    await house.assign(board, CODES)
    return board


async def unanswered(house: House, stranger: Board, known: Board) -> None:
    """The stranger reports, then the known board on the same connection: only that is answered."""
    async with Line(house.edge.port) as line:
        await line.say(encode_request(stranger.next_request()))
        request = known.next_request()
        await line.say(encode_request(request))
        answer = await line.hear()
        assert f"\nID={known.id}\nSEND={request.send_text}\n".encode() in answer


# The edge without the domain


async def test_an_edge_and_a_broker_that_start_without_the_domain_wipe_nobody(
    house: House,
) -> None:
    boards = [await a_board_with_codes(house, id) for id in ("1953", "Stadt Ost")]
    await house.kill(house.domain)
    await house.kill(house.broker, house.edge)
    await house.start(house.broker, house.edge)
    for board in boards:
        assert codes_of(await board.report(accessed=[2])) == CODES

    stranger = house.board("new-here")
    await unanswered(house, stranger, boards[0])
    async with Line(house.edge.port) as line:
        await line.say(encode_request(stranger.next_request()))
        await house.start(house.domain)
        answer = await line.hear()
    assert answer == b"ACon_V1.0\nID=new-here\nSEND=2\nRESET=0\nSTATE=0\nCLOSE\n"

    await house.persisted([*boards, stranger])
    documents = {one["id"]: one for one in await house.documents("boards")}
    assert documents["new-here"]["reports"] == 2
    for board in boards:
        unasked = board.send - board.reports_sent  # those that `unanswered` sent for it
        assert documents[board.id]["reports"] == board.reports_answered + unasked
        assert [one["cell"] for one in await house.documents("accesses", board.id)] == [2]
        assert board.empty_after_codes == 0


async def test_an_edge_with_a_new_file_answers_only_once_the_domain_is_there(
    house: House,
) -> None:
    board = await a_board_with_codes(house)
    await house.persisted([board])  # the outbox that is to be deleted is empty
    await house.kill(house.domain, house.broker, house.edge)
    house.empty_the_broker()
    house.empty_the_outbox()
    await house.start(house.broker, house.edge)
    await house.online(house.edge)
    async with Line(house.edge.port) as line:
        house.said.clear()
        await line.say(encode_request(board.next_request()))
        await until(lambda: house.said[house.topics.event("locker", board.id, "report")])
        await house.start(house.domain)
        answer = await line.hear()
    for cell, code in CODES.items():
        assert f"\nBOX_ENG=({cell},{code},".encode() in answer
    assert codes_of(await board.report(accessed=[5])) == CODES
    await house.persisted([board])
    [document] = await house.documents("boards")
    assert document["reports"] == board.reports_answered + 1
    assert document["accesses"] == 1


async def test_a_new_edge_file_and_a_new_broker_beside_a_running_domain_wipe_nobody(
    house: House,
) -> None:
    boards = [await a_board_with_codes(house, f"b{number}") for number in range(10)]
    for round in range(6):
        await house.persisted(boards)
        await house.kill(house.broker, house.edge)
        house.empty_the_broker()
        house.empty_the_outbox()
        order = (house.broker, house.edge) if round % 2 else (house.edge, house.broker)
        for part in order[: 1 + round % 3]:
            await house.start(part)
        reporting = asyncio.gather(*(board.report(accessed=[2]) for board in boards))
        await house.start(*(part for part in order if not part.running))
        for answer in await reporting:
            assert codes_of(answer) == CODES


async def test_boards_are_answered_from_what_is_held_whoever_is_away(house: House) -> None:
    board = await a_board_with_codes(house)
    [document] = await house.documents("boards")
    ends = {rental["cell"]: rental["expires_at"] for rental in document["rentals"].values()}
    before = board.reports_answered
    for part in (house.domain, house.broker, house.store):
        await house.kill(part)
        for cell in (2, 5):
            asked_at = datetime.now(UTC)
            answer = await board.report(accessed=[cell])
            heard_at = datetime.now(UTC)
            assert codes_of(answer) == CODES
            for code in answer.codes:
                most, least = (
                    math.ceil((ends[code.cell] - moment).total_seconds() / 60)
                    for moment in (asked_at, heard_at)
                )
                assert least <= code.minutes <= most
    await house.kill(house.edge)
    await house.start(house.edge)
    assert codes_of(await board.report()) == CODES

    await house.start(house.store, house.broker, house.domain)
    await house.persisted([board])
    [document] = await house.documents("boards")
    assert document["reports"] - before == 7
    assert document["reports"] == board.reports_answered
    assert [one["cell"] for one in await house.documents("accesses")] == [2, 5] * 3


async def test_a_code_that_runs_out_while_the_domain_is_down_is_not_listed(house: House) -> None:
    board = await a_board_with_codes(house)
    await house.kill(house.domain)
    # The domain's own words, but for a rental that ends now: no test waits for a minute.
    ends = datetime.now(UTC).isoformat()
    rental = {"cell": 2, "code": "1492", "expires_at": ends}
    desired = {"rev": 1000, "board": board.id, "rentals": [rental]}
    house.bus.keep(house.topics.desired("locker", board.id), encode(desired))
    await eventually(lambda: lists(board, {}))


# Resets


async def test_a_reset_reboots_a_board_once_though_domain_and_edge_are_killed(
    house: House,
) -> None:
    board = await a_board_with_codes(house)
    await house.ask(board.id, "reset")
    held = house.topics.desired("locker", board.id)
    await until(lambda: any(b'"reset_id":1' in one.payload for one in house.said[held]))
    await house.kill(house.domain)
    await house.kill(house.edge)
    await house.start(house.edge)
    await eventually(lambda: has_rebooted(board))

    await house.kill(house.edge)  # the board knows of the reboot, and nobody else
    await house.start(house.edge)
    assert codes_of(await board.report()) == CODES
    assert (board.boot, board.send) == (1, 1)
    await house.kill(house.edge)  # now the edge knows, and not the domain
    await house.kill(house.broker)
    await house.start(house.edge, house.broker)
    await house.online(house.edge)
    for _ in range(3):
        assert codes_of(await board.report()) == CODES
    await house.start(house.domain)
    await house.persisted([board])
    for _ in range(3):
        await board.report()
    await house.persisted([board])
    assert board.reboots_ordered == 1
    [document] = await house.documents("boards")
    assert (document["reset_id"], document["reset_done"]) == (1, 1)
    assert document["reports"] == board.reports_answered
    assert (await house.ask(board.id, "reset"))["reset_id"] == 2
    await eventually(lambda: has_rebooted(board, times=2))


async def has_rebooted(board: Board, times: int = 1) -> bool:
    await board.report()
    return board.reboots_ordered >= times


# The store


async def test_accesses_reported_while_the_store_is_down_are_kept(house: House) -> None:
    board = await a_board_with_codes(house)
    await house.persisted([board])
    await house.quiet()  # the first thing that the domain misses the store for are the accesses
    await house.kill(house.store)
    for cell in (2, 5, 64):
        await board.report(accessed=[cell])
    await until(lambda: "nothing can be persisted" in house.domain.log.read_text())
    await house.start(house.store)
    await board.report()
    await house.persisted([board])
    [document] = await house.documents("boards")
    assert document["accesses"] == 3
    assert [one["cell"] for one in await house.documents("accesses")] == [2, 5, 64]


async def test_a_code_that_is_assigned_while_the_store_dies_is_rented_once(house: House) -> None:
    board = await a_board_with_codes(house)
    wanted = dict(CODES)
    for cell in range(10, 16):
        asking = asyncio.create_task(house.ask(board.id, "assign", cell=cell, minutes=5))
        await house.kill(house.store)
        await house.start(house.store)
        wanted[cell] = (await asking)["code"]
        await eventually(lambda: lists(board, wanted))
    [document] = await house.documents("boards")
    rentals = await house.documents("rentals")
    assert {one["_id"] for one in rentals} == {one["id"] for one in document["rentals"].values()}
    assert {one["status"] for one in rentals} == {"active"}


async def test_an_empty_store_in_the_place_of_the_old_one_stops_nothing(house: House) -> None:
    boards = [await a_board_with_codes(house, id) for id in ("1953", "1954")]
    await house.persisted(boards)
    old = await epoch(house)
    await house.kill(house.store)
    house.empty_the_store()
    await house.start(house.store)
    for board in boards:
        for cell in (2, 5):
            assert codes_of(await board.report(accessed=[cell])) == CODES
    await house.persisted(boards)
    assert await epoch(house) != old
    documents = {one["_id"]: one for one in await house.documents("boards")}
    for board in boards:
        # What the old store had acknowledged is gone with it; what it had not is here.
        assert 2 <= documents[board.id]["reports"] <= board.reports_answered
        assert [one["cell"] for one in await house.documents("accesses", board.id)] == [2, 5]
    # An edge that has seen more than the new store obeys the new store's next word.
    answer = await house.ask("1953", "assign", cell=7, minutes=5)
    await eventually(lambda: lists(boards[0], {7: answer["code"]}))
    assert codes_of(await boards[1].report()) == CODES


async def epoch(house: House) -> str:
    """The edge's epoch that the domain has taken reports of, once it has noted so."""

    async def noted() -> bool:
        return bool(await house.documents("sources"))

    await eventually(noted)
    [source] = await house.documents("sources")
    name: str = source["epoch"]
    return name


# Slow boards, a domain that hangs


async def test_two_boards_that_send_byte_by_byte_at_once_are_both_served(house: House) -> None:
    boards = [house.board(id, SLOWLY) for id in ("slow-1", "slow-2")]
    await asyncio.gather(*(board.report() for board in boards))
    await asyncio.gather(*(house.assign(board, CODES) for board in boards))

    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Line(house.edge.port)) for _ in boards]
        messages = [encode_request(board.next_request()) for board in boards]
        assert len(messages[0]) == len(messages[1])
        for one, other in zip(*messages, strict=True):
            await lines[0].say(bytes([one]))
            await lines[1].say(bytes([other]))
        for board, line in zip(boards, lines, strict=True):
            answer = await line.hear()
            assert f"\nID={board.id}\nSEND={board.send}\n".encode() in answer
            assert answer.count(b"BOX_ENG=") == len(CODES)
    await house.persisted(boards)
    for document in await house.documents("boards"):
        assert document["reports"] == document["send"]


async def test_a_domain_that_hangs_for_seconds_loses_nothing(house: House) -> None:
    boards = [await a_board_with_codes(house, f"b{number}") for number in range(4)]
    made = dict.fromkeys((board.id for board in boards), 0)
    with house.domain.paused():
        until_s = time.monotonic() + STOPPED_S
        # More than an outbox has under way, too.
        while time.monotonic() < until_s or sum(made.values()) < 1200:
            for board in boards:
                assert codes_of(await board.report(accessed=[2, 5])) == CODES
                made[board.id] += 2
    await asyncio.gather(*(board.report() for board in boards))
    await house.persisted(boards)
    for document in await house.documents("boards"):
        board = next(one for one in boards if one.id == document["_id"])
        assert document["reports"] == board.reports_answered
        assert document["accesses"] == made[board.id]
        assert len(await house.documents("accesses", board.id)) == made[board.id]


# The end


def soon_s() -> float:
    """How long a unit may take to end: five seconds, more where nothing goes on quickly."""
    return max(5.0, 4 * start_s("patchbay.runtime", nice=BACKGROUND_NICE))


async def test_sigterm_ends_each_unit_soon_and_well(house: House) -> None:
    board = await a_board_with_codes(house)
    for unit in (house.edge, house.domain):
        code, took_s = await asyncio.to_thread(unit.terminate)
        assert (code, took_s < soon_s()) == (0, True), unit.log.read_text()
        await house.offline(unit)
        await house.start(unit)
        await house.online(unit)
        assert codes_of(await board.report()) == CODES


@pytest.mark.parametrize("away", ["broker", "store", "store for long", "both"])
async def test_sigterm_ends_each_unit_soon_and_well_though_parts_are_away(
    house: House, away: str
) -> None:
    board = await a_board_with_codes(house)
    if away in ("broker", "both"):
        await house.kill(house.broker)
    if away != "broker":
        await house.kill(house.store)
    assert codes_of(await board.report(accessed=[2])) == CODES
    if away == "store for long":
        await until(lambda: "nothing can be persisted" in house.domain.log.read_text())
    for unit in (house.domain, house.edge):
        code, took_s = await asyncio.to_thread(unit.terminate)
        assert (code, took_s < soon_s()) == (0, True), unit.log.read_text()
