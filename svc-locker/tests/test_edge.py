"""The locker edge by real sockets: what it makes of reports, and which answers it gives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from patchbay.testing import PATIENCE_S, MakeBus, until
from tests.locker_edge import (
    DOMAIN,
    EDGE,
    GROUPS,
    TOPICS,
    Domain,
    Running,
    report,
    running,
    unanswered,
    worked,
    worked_answer,
)

# The worked case


async def test_the_worked_case_is_answered_byte_for_byte(here: Running) -> None:
    answer = await here.ask(worked())
    assert answer == b"ACon_V1.0\nID=1953\nSEND=141349\nRESET=0\nSTATE=0\nCLOSE\n"
    assert len(answer) == 52


async def test_the_worked_case_is_answered_when_it_comes_byte_by_byte(here: Running) -> None:
    async with here.line() as line:
        for byte in worked():
            line.say(bytes([byte]))
            await asyncio.sleep(0)
        assert await line.hear() == worked_answer()


async def test_three_pipelined_reports_are_answered_in_order(here: Running, domain: Domain) -> None:
    sends = range(141349, 141352)
    async with here.line() as line:
        line.say(b"".join(map(worked, sends)))
        assert [await line.hear() for _ in sends] == [worked_answer(send) for send in sends]
    await until(lambda: [event.send for event in domain.reports] == list(sends))


async def test_the_worked_case_is_a_report_on_the_bus(here: Running, domain: Domain) -> None:
    await here.ask(worked())
    await until(lambda: domain.events)
    [event], [said] = domain.events, domain.reports
    assert event.id == f"1953:{said.boot}:0000141349"
    assert (event.source, event.type, event.subject) == (EDGE, "patchbay.locker.report", "1953")
    assert (event.sequence, event.epoch) == (1, here.outbox.epoch)
    assert msgspec.to_builtins(said) == {
        "board": "1953",
        "boot": said.boot,
        "send": 141349,
        "rebooted": True,
        "told_reset": None,
        "peers": [],
        "late": False,
        "maybe_repeat": False,
        "connection": 1,
        "wifi_state": 0,
        "gsm_state": 0,
        "reset": True,
        "state": [0],
        "cols": 8,
        "rows": 8,
        "act_con": GROUPS.split(","),
        "box_eng": [2, 5, 8, 23, 24, 25],
        "box_to": [33, 34],
        "box_acc": [1, 54, 43],
        "rev": 1,
        "extra": {},
    }
    await until(here.empty)


async def test_keys_that_the_protocol_does_not_name_go_on_as_they_came(
    here: Running, domain: Domain
) -> None:
    await here.ask(worked().replace(b"STATE=0\r\nCOLS", b"STATE=0\r\nBATTERY=3.7 V\r\nCOLS"))
    await until(lambda: domain.events)
    assert domain.reports[0].extra == {"BATTERY": "3.7 V"}


async def test_a_board_with_an_odd_name_has_a_topic_and_hears_its_own_name(
    here: Running, domain: Domain
) -> None:
    name = "Stadt Ost/7"
    await domain.want(1, id=name, codes={2: "1492"})
    await here.holds(name, 1)
    async with here.line() as line:
        answer = await line.ask(worked(id=name).replace(b"ID=Stadt\r\nOst/7", b"ID=Stadt Ost/7"))
    assert answer.startswith(b"ACon_V1.0\nID=Stadt Ost/7\nSEND=141349\n")
    assert b"\nBOX_ENG=(2,1492," in answer
    await until(lambda: domain.events)
    assert domain.events[0].id.startswith("stadt_ost_7-")
    assert domain.reports[0].board == name


# What a board is told


async def test_an_answer_carries_all_codes_and_the_block(here: Running, domain: Domain) -> None:
    await domain.want(2, codes={2: "1492", 63: "0007"}, blocked=True)
    await here.holds("1953", 2)
    head, *codes, end, nothing = (await here.ask(report(1))).split(b"\n")[3:]
    assert (head, end, nothing) == (b"RESET=0", b"CLOSE", b"")
    assert codes[0] == b"STATE=3"
    assert [code.rpartition(b",")[0] for code in codes[1:]] == [
        b"BOX_ENG=(2,1492",
        b"BOX_ENG=(63,0007",
    ]


async def test_an_older_desired_state_and_nonsense_change_nothing(
    here: Running, domain: Domain
) -> None:
    await domain.want(5, codes={2: "1492"})
    await here.holds("1953", 5)
    await domain.want(4, codes={3: "1111"})
    await domain.bus.publish(TOPICS.desired("locker", "1953"), b"nonsense")
    await until(lambda: domain.letters)
    assert bytes.fromhex(domain.letters[0]["hex"]) == b"nonsense"
    assert domain.letters[0]["topic"] == TOPICS.desired("locker", "1953")
    answer = await here.ask(report(1))
    assert b"(2,1492," in answer
    assert b"(3," not in answer


async def test_a_retained_desired_state_is_answered_from_before_the_domain_is_seen(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(3, codes={2: "1492"})
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 3)
        assert not here.edge.domain_seen
        assert b"\nBOX_ENG=(2,1492," in await here.ask(report(1))


# A board of which nothing is held


async def test_a_board_of_which_nothing_is_held_is_answered_once_the_domain_says_online(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.say()
        assert await line.hear() == worked_answer(7, id="stranger")
        assert await line.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")
    assert await here.ask(report(1, id="another")) == worked_answer(1, id="another")
    await until(lambda: [one.send for one in domain.reports] == [7, 1, 8, 1])


async def test_it_is_answered_with_its_codes_when_its_desired_state_comes_first(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.want(1, id="stranger", codes={2: "1492"})
        answer = await line.hear()
        assert answer.startswith(b"ACon_V1.0\nID=stranger\nSEND=7\n")
        assert b"\nBOX_ENG=(2,1492," in answer
        await domain.say()
        await until(lambda: here.edge.domain_seen)
        assert await line.ask(worked(2)) == worked_answer(2)


async def test_only_the_last_of_its_reports_is_answered_late(here: Running, domain: Domain) -> None:
    async with here.line() as line:
        line.say(report(7, id="stranger") + report(8, id="stranger"))
        assert await line.ask(worked(1)) == worked_answer(1)
        await domain.say()
        assert await line.hear() == worked_answer(8, id="stranger")
        assert await line.ask(worked(2)) == worked_answer(2)


async def test_a_board_that_hung_up_meanwhile_is_forgotten(here: Running, domain: Domain) -> None:
    await unanswered(here, report(7, id="stranger"), 1)
    await until(lambda: here.server.connections == 0)
    await domain.say()
    await until(lambda: here.edge.domain_seen)
    assert await here.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")


async def test_an_online_that_was_retained_is_not_seen(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.say()
    await domain.want(1)
    async with running(make_bus(EDGE, announce=True), file) as here:
        await here.holds("1953", 1)
        await here.bus.wait_online(PATIENCE_S)
        await here.bus.publish("patchbay/after/all/retained", b"")
        await unanswered(here, report(7, id="stranger"), 1)
        assert not here.edge.domain_seen
        await domain.say()
        assert await here.ask(report(8, id="stranger")) == worked_answer(8, id="stranger")


@pytest.mark.parametrize(
    ("instance", "status"),
    [(DOMAIN, "offline"), ("allocator-domain-x", "online"), ("locker-edge-y", "online")],
)
async def test_only_an_online_of_the_locker_domain_counts(
    here: Running, domain: Domain, instance: str, status: str
) -> None:
    await domain.say(status, instance=instance)
    await domain.want(2)  # what comes after it has come
    await here.holds("1953", 2)
    await unanswered(here, report(7, id="stranger"), 1)


async def test_a_board_whose_desired_state_was_removed_is_a_stranger_again(
    here: Running, domain: Domain
) -> None:
    await domain.want(1, id="known")
    await domain.want(1, id="old", codes={2: "1492"})
    await here.holds("old", 1)
    await domain.bus.publish(TOPICS.desired("locker", "old"), b"", retain=True)
    board = here.edge.memory.board("old")
    await until(lambda: board.desired is None)
    await unanswered(here, report(7, id="old"), 1)
