"""Invented ids at the edge: they take no room without a bound, and put out no board in use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from patchbay.outbox import Outbox
from patchbay.testing import PATIENCE_S, MakeBus, until
from patchbay_locker.memory import Memory
from patchbay_locker.settings import LockerSettings
from tests.locker_edge import (
    EDGE,
    TOPICS,
    Domain,
    Running,
    running,
    worked,
    worked_answer,
)


def small(**settings: int) -> LockerSettings:
    return LockerSettings(**{"max_boards": 20, **settings})  # type: ignore[arg-type]


async def is_seen(domain: Domain, here: Running) -> None:
    """The domain says online while the edge listens."""
    await here.bus.wait_connected(PATIENCE_S)
    await domain.say()
    await until(lambda: here.edge.domain_seen)


async def invent(here: Running, number: int, *, start: int = 0) -> None:
    """So many boards report once each, over a few connections."""
    for first in range(start, start + number, 20):
        async with here.line() as line:
            for n in range(first, min(first + 20, start + number)):
                assert await line.ask(worked(1, id=f"invented-{n}"))


async def test_invented_ids_take_no_more_rows_than_there_may_be(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    await domain.want(1, codes={2: "1492"})
    async with running(make_bus(EDGE), file, settings=small()) as here:
        await here.holds("1953", 1)
        await is_seen(domain, here)
        await invent(here, 100)
        assert len(here.edge.memory) == 20
        assert b"\nBOX_ENG=(2,1492," in await here.ask(worked(5))
        await until(here.empty)
        names = {name for kind in ("last/", "desired/") for name, _ in here.outbox.notes(kind)}
        assert len(names) <= 21
    async with running(make_bus(EDGE), file, settings=small()) as here:
        assert len(here.edge.memory) <= 20
        assert b"\nBOX_ENG=(2,1492," in await here.ask(worked(6))


async def test_a_board_that_reports_often_keeps_its_row(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    async with running(make_bus(EDGE), file, settings=small()) as here:
        await is_seen(domain, here)
        async with here.line() as line:
            for send in range(1, 6):
                await line.ask(worked(send, id="honest").replace(b"RESET=1", b"RESET=0"))
            boot = here.edge.memory.board("honest").last
            await invent(here, 100)
            await line.ask(worked(6, id="honest").replace(b"RESET=1", b"RESET=0"))
        last = here.edge.memory.board("honest").last
        assert boot is not None
        assert last is not None
        assert (last.boot, last.send) == (boot.boot, 6)


async def test_a_new_board_is_closed_unanswered_when_none_makes_room(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    for number in range(3):
        await domain.want(1, id=f"used-{number}", codes={2: "1492"})
    async with running(make_bus(EDGE), file, settings=small(max_boards=3)) as here:
        for number in range(3):
            await here.holds(f"used-{number}", 1)
        await is_seen(domain, here)
        assert await here.ask(worked(1, id="new")) == b""
        await until(lambda: domain.letters)
        assert "max_boards" in domain.letters[0]["reason"]
        assert b"1492" in await here.ask(worked(1, id="used-2"))
        assert here.edge.boards_refused == 1


async def test_an_address_brings_few_new_boards_a_minute_and_the_known_ones_are_served(
    make_bus: MakeBus, domain: Domain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await domain.want(1)
    settings = small(max_boards=1000, new_boards_per_minute=5)
    async with running(make_bus(EDGE), file, settings=settings) as here:
        here.edge._newcomers._exempt = frozenset()  # as if loopback were any address
        await here.holds("1953", 1)
        await is_seen(domain, here)
        answers = [await here.ask(worked(1, id=f"invented-{n}")) for n in range(10)]
        assert [bool(one) for one in answers] == [True] * 5 + [False] * 5
        assert await here.ask(worked(7)) == worked_answer(7)
        assert await here.ask(worked(2, id="invented-3"))


async def test_desired_states_of_invented_boards_do_not_fill_the_edge(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    """Any MQTT client may publish them, where the broker has no passwords."""
    async with running(make_bus(EDGE), file, settings=small()) as here:
        for number in range(200):
            await domain.want(1, id=f"invented-{number}")
        await domain.want(1, id="last", codes={2: "1492"})
        await until(lambda: here.edge.memory.incomplete)
        assert len(here.edge.memory) == 80
        await is_seen(domain, here)
        assert await here.ask(worked(1, id="last")) == b""  # its list is not known: never empty


async def test_a_forgotten_board_leaves_nothing_in_the_edge(
    here: Running, domain: Domain, file: Path
) -> None:
    await domain.want(2, codes={2: "1492"}, reset_id=1)
    await here.holds("1953", 2)
    await is_seen(domain, here)
    assert b"1492" in await here.ask(worked(5).replace(b"RESET=1", b"RESET=0"))
    await until(here.empty)
    await domain.bus.publish(TOPICS.desired("locker", "1953"), b"", retain=True)
    await until(lambda: here.edge.memory.find("1953") is None)
    await until(lambda: not [*here.outbox.notes("desired/")])
    for kind in ("last/", "reset/", "told/", "prior/"):
        assert not [*here.outbox.notes(kind)], kind
    assert await here.ask(worked(6)) == worked_answer(6)  # a new board, without codes


async def test_a_file_with_more_boards_than_there_may_be_keeps_those_in_use(
    make_bus: MakeBus, file: Path
) -> None:
    async with Outbox(make_bus(EDGE), "locker", file) as outbox:
        memory = Memory(outbox)
        for number in range(50):
            memory.desire(f"stranger-{number}", b'{"rev":0,"board":"x"}')
        for number in range(8):
            memory.desire(f"used-{number}", b'{"rev":4,"board":"x"}')
        await asyncio.sleep(0.05)
    async with Outbox(make_bus(EDGE), "locker", file) as outbox:
        memory = Memory(outbox, 10)
        assert len(memory) == 10
        assert all(memory.find(f"used-{number}") for number in range(8))
