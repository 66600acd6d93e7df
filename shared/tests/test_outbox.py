"""The outbox as an edge sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.messages import Ack, Event, decode_events, encode
from patchbay.outbox import Outbox, OutboxFull, room
from patchbay.outbox import outbox as outbox_module
from patchbay.testing import MakeBus, broker_settings, until
from patchbay.topics import Topics

INSTANCE = "tiny-edge-1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def alone() -> Bus:
    """A bus that never connects."""
    return Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)


def say(outbox: Outbox, number: int, text: str = "") -> None:
    outbox.add("d1", "said", key=f"k{number}", subject="D1", time="t", data=[number, text])


class Commits:
    """Hears of the commits of each turn, and counts those that SQLite made."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.made = 0
        outbox._journal._db.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        self.made += statement == "COMMIT"

    async def next(self) -> bool:
        """Did this turn's commit succeed?"""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._outbox.after_commit(future.set_result)
        return await future


def on_disk(outbox: Outbox) -> list[str]:
    """The keys that are in the file."""
    return [row.key for row in outbox._journal.after(0, 1000)]


def out_of_order(outbox: Outbox, broken: bool = True) -> None:
    """Make the disk refuse what is written, or take it again."""
    outbox._journal._db.execute(f"PRAGMA query_only={'ON' if broken else 'OFF'}")


async def test_all_that_one_turn_takes_in_is_one_commit_and_then_the_answers_go_out(
    alone: Bus, path: Path
) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        seen: list[tuple[bool, list[str]]] = []
        for number in range(1, 4):
            say(outbox, number)
            outbox.note("last/d1", str(number).encode())
            outbox.after_commit(lambda ok: seen.append((ok, on_disk(outbox))))
        assert (seen, on_disk(outbox), outbox.waiting) == ([], [], 3)
        assert await commits.next()
        assert seen == [(True, ["k1", "k2", "k3"])] * 3
        assert dict(outbox.notes("last/")) == {"d1": b"3"}
        assert (commits.made, outbox.waiting) == (1, 3)


async def test_a_turn_that_took_nothing_in_commits_nothing_and_answers_all_the_same(
    alone: Bus, path: Path
) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        assert await commits.next()
        assert commits.made == 0


async def test_what_was_taken_in_before_the_end_is_in_the_file(alone: Bus, path: Path) -> None:
    answers: list[bool] = []
    async with Outbox(alone, "tiny", path) as outbox:
        say(outbox, 1)
        outbox.after_commit(answers.append)
        epoch = outbox.epoch
    assert answers == [True]
    again = Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)
    async with Outbox(again, "tiny", path) as outbox:
        assert (outbox.waiting, outbox.epoch, on_disk(outbox)) == (1, epoch, ["k1"])


async def test_a_failed_commit_takes_nothing_and_says_so_and_heals(
    alone: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 3600.0)
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        say(outbox, 1)
        outbox.note("n", b"old")
        assert await commits.next()

        out_of_order(outbox)
        say(outbox, 2)
        outbox.note("n", b"new")
        assert not await commits.next()
        assert (on_disk(outbox), outbox.waiting) == (["k1"], 1)
        assert dict(outbox.notes("n")) == {"": b"old"}
        assert outbox.full
        with pytest.raises(OutboxFull):
            say(outbox, 2)

        out_of_order(outbox, broken=False)
        outbox._room.retry_at = 0.0
        assert not outbox.full
        say(outbox, 2)
        assert await commits.next()
        assert [row.seq for row in outbox._journal.after(0, 9)] == [1, 2]
        assert not outbox.full


async def test_a_file_that_may_not_grow_takes_nothing_and_heals(
    alone: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.0)
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        db = outbox._journal._db
        [pages] = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages + 5}")
        taken = 0
        while True:
            say(outbox, taken + 1, "x" * 1000)
            if not await commits.next():
                break
            taken += 1
        assert 0 < taken < 50
        assert on_disk(outbox) == [f"k{number}" for number in range(1, taken + 1)]
        db.execute("PRAGMA max_page_count=100000")
        say(outbox, taken + 1)
        assert await commits.next()
        assert outbox.waiting == taken + 1


async def test_full_by_rows_it_refuses(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path, max_rows=3) as outbox:
        commits = Commits(outbox)
        say(outbox, 1)
        assert await commits.next()
        say(outbox, 2)
        say(outbox, 3)
        with pytest.raises(OutboxFull):
            say(outbox, 4)
        assert await commits.next()
        assert outbox.full
        assert on_disk(outbox) == ["k1", "k2", "k3"]


async def test_full_by_bytes_it_refuses_also_within_one_turn(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path, max_bytes=1000) as outbox:
        commits = Commits(outbox)
        say(outbox, 1, "x" * 600)
        assert not outbox.full
        say(outbox, 2, "x" * 600)
        with pytest.raises(OutboxFull):
            say(outbox, 3, "x" * 600)
        assert await commits.next()
        with pytest.raises(OutboxFull):
            say(outbox, 3)
        assert on_disk(outbox) == ["k1", "k2"]


async def test_refusing_is_being_unavailable() -> None:
    assert issubclass(OutboxFull, Unavailable)


@pytest.mark.parametrize("where", ["key", "subject", "time", "data"])
async def test_text_that_cannot_be_written_is_refused_and_spoils_nothing_else(
    alone: Bus, path: Path, where: str
) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        bad: dict[str, Any] = {"key": "k", "subject": "s", "time": "t", "data": "d"}
        say(outbox, 1)
        with pytest.raises(ValueError, match="surrogate"):
            outbox.add("d1", "said", **{**bad, where: "\ud800"})
        say(outbox, 2)
        assert await commits.next()
        assert [row.seq for row in outbox._journal.after(0, 9)] == [1, 2]


async def test_a_note_that_cannot_be_written_leaves_no_hole_in_the_numbers(
    alone: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.0)
    async with Outbox(alone, "tiny", path) as outbox:
        commits = Commits(outbox)
        say(outbox, 1)
        outbox.note("\ud800", b"")
        assert not await commits.next()
        say(outbox, 2)
        assert await commits.next()
        assert [(row.seq, row.key) for row in outbox._journal.after(0, 9)] == [(1, "k2")]


async def test_an_answer_that_crashes_keeps_nobody_else_from_theirs(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        answers: list[bool] = []

        def crash(ok: bool) -> None:
            raise RuntimeError("a mistake in an edge")

        say(outbox, 1)
        outbox.after_commit(crash)
        outbox.after_commit(answers.append)
        assert await Commits(outbox).next()
        assert answers == [True]


async def test_a_second_unit_on_the_same_file_is_told_so(
    alone: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay.outbox.file.LOCK_WAIT_S", 0.1)
    async with Outbox(alone, "tiny", path):
        with pytest.raises(Unavailable, match=str(path)):
            Outbox(alone, "tiny", path)


class Domain:
    """Takes what comes and acknowledges it when told to."""

    def __init__(self, bus: Bus, *, acknowledges: bool) -> None:
        self.bus = bus
        self.acknowledges = acknowledges
        self.events: list[Event] = []
        bus.listen("patchbay/tiny/+/event/+", self._hear)

    def _hear(self, message: Message) -> None:
        message.ack()
        events = decode_events(message.payload)
        self.events += events
        if self.acknowledges:
            ack = Ack(events[-1].epoch, events[-1].sequence)
            self.bus.post(self.bus.topics.ack(INSTANCE), encode(ack))

    @property
    def numbers(self) -> list[int]:
        return [event.sequence for event in self.events]


async def test_what_is_taken_in_arrives_and_is_forgotten_when_it_is_acknowledged(
    make_bus: MakeBus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FORGET_AFTER_S", 0.05)
    domain = Domain(make_bus("tiny-domain-1"), acknowledges=True)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    bus = make_bus(INSTANCE)
    async with Outbox(bus, "tiny", path) as outbox, bus:
        await bus.wait_connected(5)
        for number in range(1, 31):
            say(outbox, number)
        await until(lambda: domain.numbers == list(range(1, 31)) and outbox.waiting == 0)
        assert [event.id for event in domain.events] == [f"k{n}" for n in range(1, 31)]
        assert domain.events[0].type == "patchbay.tiny.said"
        await until(lambda: on_disk(outbox) == [])


async def test_a_number_whose_commit_failed_is_used_again_so_that_no_gap_shows(
    make_bus: MakeBus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.0)
    domain = Domain(make_bus("tiny-domain-1"), acknowledges=True)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    bus = make_bus(INSTANCE)
    async with Outbox(bus, "tiny", path) as outbox, bus:
        commits = Commits(outbox)
        await bus.wait_connected(5)
        say(outbox, 1)
        assert await commits.next()
        await until(lambda: outbox.waiting == 0)
        out_of_order(outbox)
        for number in (2, 3):
            say(outbox, number)
        assert not await commits.next()
        out_of_order(outbox, broken=False)
        say(outbox, 4)
        await until(lambda: outbox.waiting == 0 and len(domain.events) == 2)
        assert [(one.id, one.sequence) for one in domain.events] == [("k1", 1), ("k4", 2)]


async def test_what_was_not_acknowledged_is_sent_again_after_a_restart_with_its_own_number(
    make_bus: MakeBus, path: Path
) -> None:
    domain = Domain(make_bus("tiny-domain-1"), acknowledges=False)
    domain.bus.start()
    await domain.bus.wait_connected(5)
    first = make_bus(INSTANCE)
    async with Outbox(first, "tiny", path) as outbox, first:
        say(outbox, 1)
        say(outbox, 2)
        await until(lambda: domain.numbers == [1, 2])
    second = make_bus(INSTANCE)
    domain.acknowledges = True
    async with Outbox(second, "tiny", path) as outbox, second:
        assert outbox.waiting == 2
        say(outbox, 3)
        await until(lambda: domain.numbers[2:] == [1, 2, 1] and outbox.waiting == 0)
    assert len({event.epoch for event in domain.events[:-1]}) == 1
    assert domain.events[-1].epoch != domain.events[0].epoch
    assert [event.id for event in domain.events[2:]] == ["k1", "k2", "k3"]


async def test_a_file_that_is_gone_means_a_new_epoch(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        epoch = outbox.epoch
    path.unlink()
    again = Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)
    async with Outbox(again, "tiny", path) as outbox:
        assert outbox.epoch != epoch


async def test_after_the_end_nothing_is_taken_in_and_it_is_said(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        pass
    answers: list[bool] = []
    say(outbox, 1)
    outbox.after_commit(answers.append)
    await until(lambda: answers == [False])
    with pytest.raises(sqlite3.ProgrammingError):
        outbox._journal.after(0, 1)


async def test_a_full_outbox_gives_up_the_oldest_of_what_it_may_and_no_other(
    alone: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "WINDOW", 4)
    async with Outbox(alone, "tiny", path, max_rows=8, sheds=("said",)) as outbox:
        commits = Commits(outbox)
        outbox.add("d1", "kept", key="first", subject="D1", time="t", data=1)
        for number in range(7):
            say(outbox, number)
        assert await commits.next()
        epoch = outbox.epoch
        say(outbox, 7)
        assert await commits.next()
        assert outbox.shed == 4
        assert on_disk(outbox) == ["first", "k4", "k5", "k6", "k7"]
        assert outbox.epoch != epoch
        assert outbox.waiting == 5


async def test_an_outbox_full_of_what_must_be_kept_refuses(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path, max_rows=3, sheds=("said",)) as outbox:
        for number in range(3):
            outbox.add("d1", "kept", key=f"m{number}", subject="D1", time="t", data=1)
        assert await Commits(outbox).next()
        with pytest.raises(OutboxFull):
            say(outbox, 1)
        assert outbox.shed == 0


async def test_a_fact_without_a_name_is_named_by_its_place(alone: Bus, path: Path) -> None:
    async with Outbox(alone, "tiny", path) as outbox:
        for _ in range(2):
            outbox.add("d1", "said", subject="D1", time="t", data=1)
        assert await Commits(outbox).next()
        wanted = [f"{outbox.epoch}/000000000001", f"{outbox.epoch}/000000000002"]
        assert on_disk(outbox) == wanted


async def test_what_is_taken_in_any_order_cannot_be_given_up(alone: Bus, path: Path) -> None:
    with pytest.raises(ValueError, match="in order"):
        Outbox(alone, "tiny", path, in_order=False, sheds=("said",))


async def test_damage_stops_the_unit_once_it_is_idle_and_nothing_is_taken_in_before(
    alone: Bus, path: Path
) -> None:
    busy = True
    async with Outbox(alone, "tiny", path, busy=lambda: busy) as outbox:
        commits = Commits(outbox)
        say(outbox, 1)
        assert await commits.next()
        path.unlink()
        say(outbox, 2)
        assert not await commits.next()
        with pytest.raises(OutboxFull):
            say(outbox, 3)
        await asyncio.sleep(2 * outbox_module.BUSY_POLL_S)
        assert alone.failed is None
        busy = False
        await until(lambda: alone.failed is not None and alone.failed.done())
        assert alone.failed is not None
        assert str(path) in alone.failed.result()
    again = Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)
    async with Outbox(again, "tiny", path) as outbox:
        assert on_disk(outbox) == ["k1"]
