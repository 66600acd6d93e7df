"""Commits that take their time: the loop goes on, and a failure takes along what built on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.bus import Bus, Message
from patchbay.messages import Ack, decode_events, encode
from patchbay.outbox import Journal, Outbox, OutboxFull, room
from patchbay.testing import PATIENCE_S, MakeBus, broker_settings, until
from patchbay.topics import Topics
from tests.slow_disk import SlowDisk

INSTANCE = "tiny-edge-1"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.free()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def alone() -> Bus:
    """A bus that never connects."""
    return Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)


def say(outbox: Outbox, number: int) -> None:
    outbox.add("d1", "said", key=f"k{number}", subject="D1", time="t", data=number)


def keys(outbox: Outbox) -> list[str]:
    return [row.key for row in outbox._journal.after(0, 1000)]


async def test_the_loop_goes_on_while_a_commit_lasts(
    alone: Bus, path: Path, disk: SlowDisk
) -> None:
    async with Outbox(alone, "tiny", path, threaded=True) as outbox:
        answers: list[bool] = []
        say(outbox, 1)
        outbox.after_commit(answers.append)
        await until(lambda: disk.begun)  # this would never return if the loop waited for the disk
        assert answers == []
        disk.go_on()
        await until(lambda: answers)
        assert (answers, keys(outbox)) == ([True], ["k1"])
        disk.free()


async def test_what_comes_during_a_commit_is_in_the_next_one(
    alone: Bus, path: Path, disk: SlowDisk
) -> None:
    async with Outbox(alone, "tiny", path, threaded=True) as outbox:
        order: list[tuple[int, bool]] = []
        for number in (1, 2, 3):
            say(outbox, number)
            outbox.after_commit(lambda ok, number=number: order.append((number, ok)))  # type: ignore[misc]
            await until(lambda: disk.begun)
        assert (disk.begun, outbox.waiting) == (1, 3)
        disk.go_on()
        await until(lambda: disk.begun == 2)
        assert order == [(1, True)]
        disk.go_on()
        await until(lambda: len(order) == 3)
        assert order == [(1, True), (2, True), (3, True)]
        assert (keys(outbox), outbox.waiting) == (["k1", "k2", "k3"], 3)
        disk.free()


async def test_a_commit_that_fails_takes_along_what_has_come_since(
    alone: Bus, path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.0)
    async with Outbox(alone, "tiny", path, threaded=True) as outbox:
        order: list[tuple[int, bool]] = []
        for number in (1, 2):
            say(outbox, number)
            outbox.note("n", str(number).encode())
            outbox.after_commit(lambda ok, number=number: order.append((number, ok)))  # type: ignore[misc]
            await until(lambda: disk.begun)
        disk.fail()
        await until(lambda: order)
        assert order == [(2, False), (1, False)], "the latest is undone first"
        assert (keys(outbox), dict(outbox.notes("n")), outbox.waiting) == ([], {}, 0)
        disk.free()
        await until(lambda: not outbox.full)
        say(outbox, 3)
        done: list[bool] = []
        outbox.after_commit(done.append)
        await until(lambda: done)
        assert done == [True]
        assert [(row.seq, row.key) for row in outbox._journal.after(0, 9)] == [(1, "k3")]


async def test_what_is_in_a_commit_counts_towards_the_bound(
    alone: Bus, path: Path, disk: SlowDisk
) -> None:
    async with Outbox(alone, "tiny", path, threaded=True, max_rows=2) as outbox:
        say(outbox, 1)
        await until(lambda: disk.begun)
        say(outbox, 2)
        with pytest.raises(OutboxFull):
            say(outbox, 3)
        disk.free()
        await until(lambda: len(keys(outbox)) == 2 if not outbox._writer.busy else False)


async def test_all_that_was_taken_in_is_on_disk_at_the_end(
    alone: Bus, path: Path, disk: SlowDisk
) -> None:
    answers: list[bool] = []
    async with Outbox(alone, "tiny", path, threaded=True) as outbox:
        for number in (1, 2):
            say(outbox, number)
            outbox.after_commit(answers.append)
            await until(lambda: disk.begun)
        asyncio.get_running_loop().call_later(0.05, disk.free)
    assert answers == [True, True]
    again = Bus(broker_settings(1), client_id=INSTANCE, topics=Topics(), announce=False)
    async with Outbox(again, "tiny", path) as outbox:
        assert keys(outbox) == ["k1", "k2"]


@pytest.mark.parametrize("in_order", [True, False])
async def test_events_are_sent_from_the_file_though_commits_are_always_in_progress(
    make_bus: MakeBus, path: Path, in_order: bool
) -> None:
    bus, domain = make_bus(INSTANCE), make_bus("tiny-domain-1")
    got: list[str] = []

    def heard(message: Message) -> None:
        message.ack()
        got.extend(event.id for event in decode_events(message.payload))

    for topic in (bus.topics.event("tiny", "+", "+"), bus.topics.batch("tiny", INSTANCE)):
        domain.listen(topic, heard)
    async with (
        domain,
        Outbox(bus, "tiny", path, threaded=True, in_order=in_order) as outbox,
        bus,
    ):
        for number in range(300):  # more than is held ready in memory
            say(outbox, number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: {f"k{number}" for number in range(300)} <= set(got))
        if in_order:
            assert sorted(set(got), key=got.index) == [f"k{number}" for number in range(300)]


async def test_a_new_epoch_is_written_without_holding_up_the_loop(
    make_bus: MakeBus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let = threading.Event()
    begin = Journal.begin_epoch
    begun: list[int] = []

    def wait(journal: Journal, first: int) -> None:
        begun.append(threading.get_ident())
        assert let.wait(PATIENCE_S)
        begin(journal, first)

    monkeypatch.setattr(Journal, "begin_epoch", wait)
    bus, domain = make_bus(INSTANCE), make_bus("tiny-domain-1")
    async with domain, Outbox(bus, "tiny", path, threaded=True) as outbox, bus:
        say(outbox, 1)
        await until(lambda: outbox._journal.rows == 1)
        before = outbox.epoch
        ack = Ack(before, 0, nak=True, over=True)
        await domain.publish(bus.topics.ack(INSTANCE), encode(ack))
        await until(lambda: begun)
        assert begun[0] != threading.get_ident()
        assert outbox.epoch == before
        let.set()
        await until(lambda: outbox.epoch != before)
