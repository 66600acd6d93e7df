"""Repeats, late packets and reboots, as boards and the bus see them at the locker edge."""

from __future__ import annotations

from pathlib import Path

from patchbay.testing import MakeBus, until
from tests.locker_edge import (
    EDGE,
    Domain,
    Running,
    report,
    running,
    said_reset,
    unanswered,
    worked,
    worked_answer,
)


async def test_the_same_bytes_again_are_answered_and_are_no_second_event(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(worked() + worked())
        assert [await line.hear(), await line.hear()] == [worked_answer()] * 2
    assert await here.ask(worked()) == worked_answer()
    assert await here.ask(worked(141350)) == worked_answer(141350)
    await until(lambda: [one.send for one in domain.reports] == [141349, 141350])


async def test_the_same_bytes_after_a_restart_of_the_edge_are_no_second_event(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    for _ in range(2):
        async with running(make_bus(EDGE), file) as here:
            await here.holds("1953", 1)
            assert await here.ask(worked()) == worked_answer()
            await until(here.empty)
    assert [one.send for one in domain.reports] == [141349]


async def test_accesses_said_again_may_be_repeats_when_no_answer_was_written(
    here: Running, domain: Domain
) -> None:
    sent = [
        report(1, id="new", accessed=(1, 54)),
        report(2, id="new", accessed=(1, 54)),
        report(3, id="new", accessed=(1,)),
        report(4, id="new"),
        report(5, id="new", accessed=(7,)),
    ]
    async with here.line() as line:
        for number, each in enumerate(sent, start=1):
            line.say(each)
            assert await line.ask(worked(number)) == worked_answer(number)
        await domain.say()
        assert await line.hear() == worked_answer(5, id="new")
        await line.ask(report(6, id="new", accessed=(7,)))
    await until(lambda: len(domain.reports) == 11)
    said = [one.maybe_repeat for one in domain.reports if one.board == "new"]
    assert said == [False, True, False, False, False, False]


async def test_an_answer_to_a_late_packet_is_none_to_the_report_before_it(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    async with running(make_bus(EDGE), file) as here:
        await domain.want(1)
        await here.holds("1953", 1)
        await unanswered(here, report(50, id="new", accessed=(7,)), 1)
        await until(lambda: here.server.connections == 0)
        await domain.want(1, id="new")
        await here.holds("new", 1)
        async with here.line() as line:
            await line.ask(report(49, id="new"))
            await line.ask(report(51, id="new", accessed=(7,)))
        await until(lambda: len(domain.reports) == 4)
    said = {one.send: one for one in domain.reports if one.board == "new"}
    assert (said[49].late, said[51].late, said[51].maybe_repeat) == (True, False, True)


async def test_a_late_packet_is_answered_and_is_an_event_that_says_so(
    here: Running, domain: Domain
) -> None:
    for send in (100, 101, 99, 102):
        assert await here.ask(worked(send).replace(b"RESET=1", b"RESET=0")) == worked_answer(send)
    await until(lambda: len(domain.reports) == 4)
    assert [one.late for one in domain.reports] == [False, False, True, False]
    assert len({one.boot for one in domain.reports}) == 1
    assert len({event.id for event in domain.events}) == 4


async def test_a_board_is_rebooted_once_for_one_id_also_by_an_edge_that_started_again(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1, reset_id=7)
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 1)
        before = [await here.ask(report(send)) for send in (500, 501)]
        rebooted = [await here.ask(report(1, reset=True)), await here.ask(report(2))]
        assert said_reset(before) == [True, True]
        assert said_reset(rebooted) == [False, False]
        await until(here.empty)
    assert [one.rebooted for one in domain.reports] == [False, False, True, False]

    async with running(make_bus(EDGE), file) as here:
        assert said_reset([await here.ask(report(3))]) == [False]
        await domain.want(2, reset_id=7)
        await here.holds("1953", 2)
        assert said_reset([await here.ask(report(4))]) == [False]
        await domain.want(3, reset_id=8)
        await here.holds("1953", 3)
        assert said_reset([await here.ask(report(5))]) == [True]


async def test_a_reboot_that_only_the_number_shows_is_one_too(
    here: Running, domain: Domain
) -> None:
    await domain.want(2, reset_id=1)
    await here.holds("1953", 2)
    assert said_reset([await here.ask(report(send)) for send in (500, 501, 1, 2)]) == [
        True,
        True,
        False,
        False,
    ]


async def test_a_report_that_says_reset_is_not_rebooted_for_an_order_that_came_later(
    here: Running, domain: Domain
) -> None:
    await here.ask(report(1, reset=True))
    await domain.want(2, reset_id=1)
    await here.holds("1953", 2)
    assert said_reset([await here.ask(report(2)), await here.ask(report(3))]) == [True, True]
