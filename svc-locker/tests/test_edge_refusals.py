"""What the locker edge does not take: bad input, and what its outbox has no room for."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from patchbay.outbox import Journal, Row
from patchbay.testing import MakeBus, Part, eventually, until
from tests.locker_edge import (
    EDGE,
    Domain,
    Running,
    report,
    running,
    said_reset,
    worked,
    worked_answer,
)

# Bad input

LONG = b"X" * 4097
BAD = {
    "no ID": worked().replace(b"ID=1953\r\n", b""),
    "an ID that is empty": worked().replace(b"ID=1953", b"ID="),
    "no SEND": worked().replace(b"SEND=141349\r\n", b""),
    "a header of another protocol": worked().replace(b"ACon_V1.0", b"BCon_V1.0"),
    "a request of the web": b"GET / HTTP/1.1\r\nHost: lockers\r\n\r\n",
    "a SEND that is no number": worked().replace(b"141349", b"14x349"),
    "a cell that is no number": worked().replace(b"BOX_TO=33,34", b"BOX_TO=33,-4"),
    "a message over 64 KiB": worked()[:-5] + b"K=" + b"\r\nK=".join([b"x" * 1000] * 66) + b"\r\n",
    "a line over 4 KiB": worked().replace(b"STATE=0\r\nCOLS", b"K=" + LONG + b"\r\nCOLS"),
    "a line over 4 KiB that does not end": worked()[:-5] + LONG,
    "bytes that are not UTF-8": worked().replace(b"STATE=0\r\nCOLS", b"K=\xff\xfe\r\nCOLS"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_bad_input_closes_that_connection_only_and_becomes_a_dead_letter(
    here: Running, domain: Domain, bad: bytes
) -> None:
    async with here.line() as other, here.line() as line:
        assert await other.ask(worked(1)) == worked_answer(1)
        line.say(bad)
        assert await line.rest() == b""
        assert await other.ask(worked(2)) == worked_answer(2)
    await until(lambda: domain.letters)
    [letter] = domain.letters
    assert bytes.fromhex(letter["hex"]) == bad[:1024]
    assert letter["reason"]
    assert letter["source"] == EDGE
    assert letter["peer"].startswith("127.0.0.1:")
    assert here.edge.bad_input == 1
    await until(lambda: [one.send for one in domain.reports] == [1, 2])


async def test_a_dead_letter_says_why(here: Running, domain: Domain) -> None:
    for number, name in enumerate(("no ID", "no SEND", "bytes that are not UTF-8"), start=1):
        assert await here.ask(BAD[name]) == b""
        await until(lambda: len(domain.letters) == number)  # noqa: B023 - awaited at once
        assert domain.letters[-1]["reason"] == name


async def test_good_reports_before_a_bad_one_in_the_same_write_are_answered(
    here: Running, domain: Domain
) -> None:
    async with here.line() as line:
        line.say(worked(1) + worked(2) + BAD["no ID"] + worked(3))
        assert await line.rest() == worked_answer(1) + worked_answer(2)
    await until(lambda: domain.letters)
    await until(here.empty)
    assert [one.send for one in domain.reports] == [1, 2]
    assert bytes.fromhex(domain.letters[0]["hex"]).startswith(BAD["no ID"])


async def test_what_comes_behind_bad_input_is_no_second_one(here: Running, domain: Domain) -> None:
    async with here.line() as line:
        assert await line.ask(worked(1)) == worked_answer(1)
        [session] = here.sessions
        session.received(BAD["no ID"])
        session.received(b"and more of it, before the connection is closed")
        assert await line.rest() == b""
    assert await here.ask(BAD["no SEND"]) == b""
    await until(lambda: [one["reason"] for one in domain.letters][-1:] == ["no SEND"])
    assert [one["reason"] for one in domain.letters] == ["no ID", "no SEND"]
    assert here.edge.bad_input == 2


# What is in the way


async def test_boards_are_answered_while_the_broker_is_down_and_nothing_is_lost(
    here: Running, domain: Domain, mosquitto: Part
) -> None:
    await domain.want(2, codes={2: "1492"})
    await here.holds("1953", 2)
    mosquitto.kill()
    for send in range(1, 31):
        assert b"\nBOX_ENG=(2,1492," in await here.ask(report(send))
    assert here.outbox.waiting == 30
    mosquitto.start()
    await until(here.empty)
    assert [one.send for one in domain.reports] == list(range(1, 31))


async def test_a_full_outbox_closes_unanswered_and_reads_nobody_until_there_is_room(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    domain.acknowledges = False
    async with running(make_bus(EDGE), file, max_rows=3) as here:
        await here.holds("1953", 1)
        async with here.line() as other:
            assert [await here.ask(worked(send)) for send in (1, 2)] == [
                worked_answer(1),
                worked_answer(2),
            ]
            async with here.line() as line:
                line.say(worked(3) + worked(4) + worked(5))
                assert await line.rest() == worked_answer(3)
            assert here.server.paused
            other.say(worked(6))
            await until(lambda: len(domain.events) == 3)
            assert here.server.paused
            domain.acknowledges = True
            domain.acknowledge()
            assert await other.hear() == worked_answer(6)
        assert not here.server.paused
        await until(here.empty)
    assert [one.send for one in domain.reports] == [1, 2, 3, 6]


async def test_a_repeat_is_answered_though_the_outbox_is_full(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1)
    domain.acknowledges = False
    async with running(make_bus(EDGE), file, max_rows=1) as here:
        await here.holds("1953", 1)
        async with here.line() as line:
            line.say(worked(1) + worked(1) + worked(2))
            assert await line.rest() == worked_answer(1) * 2


class FullDisk:
    """Stands in the place of `Journal.commit`: fails once for events, when armed."""

    def __init__(self) -> None:
        self.armed = False
        self._commit = Journal.commit

    def __call__(self, journal: Journal, rows: list[Row], *more: Any) -> None:
        if self.armed and rows:
            self.armed = False
            raise sqlite3.OperationalError("database or disk is full")
        self._commit(journal, rows, *more)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    disk = FullDisk()
    monkeypatch.setattr(Journal, "commit", lambda *what: disk(*what))
    return disk


async def test_what_could_not_be_written_is_not_answered_and_its_next_try_is_taken(
    here: Running, domain: Domain, disk: FullDisk
) -> None:
    assert await here.ask(worked(1)) == worked_answer(1)
    await until(here.empty)
    disk.armed = True
    async with here.line() as line:
        line.say(worked(2) + worked(3))
        assert await line.rest() == b""
    assert not disk.armed

    async def taken() -> bool:  # the disk is tried again after a moment
        return await here.ask(worked(2)) == worked_answer(2)

    await eventually(taken)
    await until(lambda: [one.send for one in domain.reports] == [1, 2])


async def test_a_reboot_that_could_not_be_written_is_done_with_the_next_try(
    make_bus: MakeBus, domain: Domain, file: Path, disk: FullDisk
) -> None:
    await domain.want(1, reset_id=1)
    async with running(make_bus(EDGE), file) as here:
        await here.holds("1953", 1)
        assert said_reset([await here.ask(report(500))]) == [True]
        disk.armed = True
        assert await here.ask(report(1, reset=True)) == b""

        async def taken() -> bool:
            return await here.ask(report(2, reset=True)) == worked_answer(2)

        await eventually(taken)
    async with running(make_bus(EDGE), file) as here:
        assert said_reset([await here.ask(report(3))]) == [False]
