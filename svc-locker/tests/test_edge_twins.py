"""Two boards that were given one ID, as their edge sees them, and reboots that were ordered."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.testing import MakeBus, until
from patchbay_locker.messages import Report
from patchbay_locker.twins import RETURNS
from tests.locker_edge import EDGE, TOPICS, Domain, Running, report, running, said_reset


async def both(here: Running, domain: Domain, first: int, second: int, rounds: int) -> list[Report]:
    """Two boards of one ID report in turn, each on a connection of its own."""
    async with here.line() as one, here.line() as two:
        for number in range(rounds):
            await one.ask(report(first + number, accessed=(1,)))
            await two.ask(report(second + number, accessed=(2,)))
    await until(lambda: len(domain.reports) >= 2 * rounds)
    return domain.reports


async def each(here: Running, sends: list[int]) -> list[bytes]:
    """Reports, each on a connection that is closed after it."""
    return [await here.ask(report(send)) for send in sends]


async def test_two_boards_of_one_id_are_no_reboot_at_each_turn(
    here: Running, domain: Domain
) -> None:
    reports = await both(here, domain, 141_000, 5, 10)
    assert sum(one.rebooted for one in reports) <= 1
    assert [one.send for one in reports[-2:]] == [141_009, 14]
    assert not any(one.late or one.maybe_repeat for one in reports)
    assert len({(one.boot, one.send) for one in reports}) == 20
    assert [one.box_acc for one in reports] == [[1], [2]] * 10


async def test_two_boards_of_one_id_are_named_with_where_they_connect_from(
    here: Running, domain: Domain
) -> None:
    reports = await both(here, domain, 141_000, 5, 6)
    assert reports[1].peers == []
    assert len(set(reports[-1].peers)) == 2
    assert all(peer.startswith("127.0.0.1:") for peer in reports[-1].peers)


async def test_two_boards_whose_numbers_are_close_are_named_too(
    here: Running, domain: Domain
) -> None:
    reports = await both(here, domain, 141_000, 140_950, 6)
    assert not any(one.rebooted for one in reports)
    assert len(reports[-1].peers) == 2


async def test_two_boards_that_connect_for_each_report_are_told_apart_by_their_numbers(
    here: Running, domain: Domain
) -> None:
    await each(here, [141_000, 5, 141_001, 6, 141_002, 7, 141_003, 8])
    await until(lambda: len(domain.reports) == 8)
    assert sum(one.rebooted for one in domain.reports) <= RETURNS + 1
    assert len(domain.reports[-1].peers) == 2


async def test_a_report_that_equals_the_last_one_before_a_reboot_is_counted(
    here: Running, domain: Domain
) -> None:
    sends = [201, 202, 203, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6]
    await each(here, sends)
    await until(lambda: len(domain.reports) >= len(sends))
    assert [one.send for one in domain.reports] == sends
    boots = [one.boot for one in domain.reports]
    assert len(set(boots)) == 3
    assert boots == sorted(boots)


async def test_one_board_that_reboots_and_reconnects_is_never_two(
    here: Running, domain: Domain
) -> None:
    await each(here, [500, 501, 502, 1, 2, 3, 4, 5, 106, 1, 2, 3])
    await until(lambda: len(domain.reports) == 12)
    assert [one.send for one in domain.reports if one.rebooted] == [1, 1]
    assert not any(one.peers for one in domain.reports)


async def test_an_edge_that_is_started_again_knows_both_boards(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 1)
        await both(here, domain, 141_000, 5, 4)
    async with running(make_bus(EDGE), file) as here:
        reports = await both(here, domain, 141_004, 9, 4)
    assert sum(one.rebooted for one in reports) <= RETURNS + 1


# A reboot that was ordered


async def test_a_reboot_is_not_done_because_another_board_of_that_id_reports(
    here: Running, domain: Domain
) -> None:
    async with here.line() as one, here.line() as two:
        await one.ask(report(141_000))
        await two.ask(report(5))
        await domain.want(2, reset_id=1)
        await here.holds("1953", 2)
        answers = []
        for number in range(1, 6):
            answers.append(await one.ask(report(141_000 + number)))
            answers.append(await two.ask(report(5 + number)))
        assert all(said_reset(answers))
    await until(lambda: len(domain.reports) == 12)
    assert not any(one.told_reset for one in domain.reports)


async def test_a_reboot_is_done_with_the_first_report_after_the_connection_that_was_told(
    here: Running, domain: Domain
) -> None:
    await here.ask(report(3))
    await domain.want(2, reset_id=1)
    await here.holds("1953", 2)
    # It says nothing of RESET, and its number is so low that the next one could be a late packet.
    answers = await each(here, [4, 1, 2])
    assert said_reset(answers) == [True, False, False]
    await until(lambda: len(domain.reports) == 4)
    assert [(one.rebooted, one.told_reset) for one in domain.reports[2:]] == [
        (True, True),
        (False, None),
    ]


async def test_a_lower_number_on_the_connection_that_was_told_is_no_ordered_reboot(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        await line.ask(report(500))
        await domain.want(2, reset_id=1)
        await here.holds("1953", 2)
        answers = [await line.ask(report(send)) for send in (501, 1, 2)]
    assert said_reset(answers) == [True, True, True]
    await until(lambda: len(domain.reports) == 4)
    assert domain.reports[2].told_reset is False


async def test_what_a_board_was_told_is_known_to_an_edge_that_is_started_again(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    async with running(make_bus(EDGE), file) as here:
        await domain.want(1, reset_id=1)
        await here.holds("1953", 1)
        assert said_reset([await here.ask(report(500))]) == [True]
    async with running(make_bus(EDGE), file) as here:
        assert said_reset(await each(here, [1, 2])) == [False, False]
    await until(lambda: len(domain.reports) == 3)
    assert domain.reports[1].told_reset is True


# Ids that differ in case only


async def test_a_board_whose_id_differs_in_case_gets_no_codes_of_the_other(
    here: Running, domain: Domain
) -> None:
    await domain.say()
    await until(lambda: here.edge.domain_seen)
    await domain.want(1, id="Kiosk-A7", codes={1: "9911"})
    await here.holds("Kiosk-A7", 1)
    async with here.line() as line:
        assert b"9911" in await line.ask(report(1, id="Kiosk-A7"))
        assert b"9911" not in await line.ask(report(500, id="kiosk-a7"))
        assert b"9911" in await line.ask(report(2, id="Kiosk-A7"))
    await until(lambda: len(domain.reports) == 3)
    assert not any(one.rebooted for one in domain.reports)


# Forged desired states


@pytest.mark.parametrize("rev", [2**53 + 1, 2**63 - 1, 2**64, -1])
async def test_a_revision_out_of_bounds_is_not_held(
    here: Running, domain: Domain, rev: int
) -> None:
    await domain.want(rev, codes={1: "6666"})
    await until(lambda: domain.letters)
    await domain.want(2, codes={2: "1492"})
    await here.holds("1953", 2)
    answer = await here.ask(report(1))
    assert b"1492" in answer
    assert b"6666" not in answer


async def test_a_forged_revision_that_is_forgotten_leaves_room_for_the_domain_s(
    here: Running, domain: Domain
) -> None:
    await domain.want(2**53, codes={1: "6666"})
    await here.holds("1953", 2**53)
    await domain.bus.publish(TOPICS.desired("locker", "1953"), b"", retain=True)
    await domain.want(2, codes={2: "1492"})
    board = here.edge.memory.board("1953")
    await until(lambda: board.desired is not None and board.desired.rev == 2)
    assert b"1492" in await here.ask(report(1))
