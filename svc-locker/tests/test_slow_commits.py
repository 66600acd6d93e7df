"""Reports on a slow disk: a report is answered after its own commit, and one that fails takes along
what has built on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.testing import MakeBus, eventually, until
from tests.locker_edge import EDGE, Domain, running, worked, worked_answer
from tests.slow_disk import SlowDisk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch, holds=bool)  # commits with events
    yield disk
    disk.free()


async def test_each_report_is_answered_after_its_own_commit(
    make_bus: MakeBus, domain: Domain, file: Path, disk: SlowDisk
) -> None:
    await domain.want(1)
    async with running(make_bus(EDGE), file, threaded=True) as here:
        await here.holds("1953", 1)
        async with here.line() as line:
            line.say(worked(1))
            await until(lambda: disk.begun == 1)
            line.say(worked(2))
            await until(lambda: here.outbox.waiting == 2)
            disk.go_on()
            assert await line.hear() == worked_answer(1)
            await until(lambda: disk.begun == 2)
            assert here.sessions[0].peer.waiting_bytes == 0
            disk.go_on()
            assert await line.hear() == worked_answer(2)
            disk.free()


async def test_a_failed_commit_undoes_the_reports_that_came_after_it(
    make_bus: MakeBus, domain: Domain, file: Path, disk: SlowDisk
) -> None:
    """The board's numbering goes back to the last report on disk, so its next try is no repeat."""
    await domain.want(1)
    async with running(make_bus(EDGE), file, threaded=True) as here:
        await here.holds("1953", 1)
        board = here.edge.memory.board("1953")
        async with here.line() as first, here.line() as second:
            first.say(worked(1))
            await until(lambda: disk.begun == 1)
            second.say(worked(2))
            await until(lambda: here.outbox.waiting == 2)
            assert board.last is not None
            assert board.last.send == 2
            disk.fail()
            assert await first.rest() == b""
            assert await second.rest() == b""
            assert board.last is None
        disk.free()

        async def taken() -> bool:  # the disk is tried again after a moment
            return await here.ask(worked(1) + worked(2)) == worked_answer(1)

        await eventually(taken)
        await until(lambda: [one.send for one in domain.reports] == [1, 2])
