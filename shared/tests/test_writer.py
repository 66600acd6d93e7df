"""Where jobs on the outbox's file run, and in which order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from patchbay.outbox.writer import SLOW_S, Writer
from patchbay.testing import PATIENCE_S


class Gate:
    """A job that lasts until the test opens the gate."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.thread = 0

    def __call__(self) -> None:
        self.thread = threading.get_ident()
        assert self._open.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


class Ends:
    """Hears of the ends of jobs, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Exception | None]] = []

    def of(self, name: str) -> Callable[[Exception | None], None]:
        return lambda error: self.seen.append((name, error))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def fail() -> None:
    raise OSError("no room")


def slow() -> None:
    time.sleep(20 * SLOW_S)


async def test_a_quick_job_runs_in_the_loop_and_has_ended_at_once() -> None:
    writer, ends, ran = Writer(), Ends(), list[int]()
    writer.run(lambda: ran.append(threading.get_ident()), ends.of("one"))
    writer.run(fail, ends.of("two"))
    assert ran == [threading.get_ident()]
    assert ends.names == ["one", "two"]
    assert isinstance(ends.seen[1][1], OSError)
    assert not writer.busy


async def test_a_slow_disk_moves_jobs_to_a_thread_and_a_quick_one_brings_them_back() -> None:
    writer, ends = Writer(), Ends()
    writer.run(slow, ends.of("slow"))
    assert writer.threaded
    gate = Gate()
    writer.run(gate, ends.of("gate"))
    assert writer.busy
    await asyncio.sleep(0)  # the loop goes on while the job lasts
    assert ends.names == ["slow"]
    gate.open()
    await writer.idle()
    assert gate.thread != threading.get_ident()
    for _ in range(1000):
        writer.run(lambda: None, ends.of("quick"))
        await writer.idle()
        if not writer.threaded:
            break
    assert not writer.threaded
    writer.close()


async def test_jobs_run_one_after_another_and_those_who_read_come_in_between() -> None:
    writer, ends, gates = Writer(threaded=True), Ends(), [Gate(), Gate()]
    read: list[list[str]] = []

    def reader() -> None:
        assert not writer.busy
        read.append(list(ends.names))

    for number, gate in enumerate(gates):
        writer.run(gate, ends.of(str(number)))
    writer.when_idle(reader)
    writer.when_idle(reader)
    assert read == []
    gates[0].open()
    await asyncio.sleep(0.05)
    assert gates[1].thread in (0, gates[0].thread)
    gates[1].open()
    await writer.idle()
    assert ends.names == ["0", "1"]
    assert read == [["0"]]
    writer.when_idle(reader)
    assert read == [["0"], ["0", "1"]]
    writer.close()


async def test_what_cannot_wait_blocks_until_all_jobs_have_ended() -> None:
    writer, ends = Writer(threaded=True), Ends()
    for name in ("one", "two"):
        writer.run(slow, ends.of(name))
    writer.finish()
    assert ends.names == ["one", "two"]
    await asyncio.sleep(0.05)  # what the thread has asked the loop for comes to nothing
    assert ends.names == ["one", "two"]
    writer.close()


@pytest.mark.parametrize("threaded", [False, True])
async def test_an_error_of_a_job_reaches_who_asked_for_it_and_the_next_job_runs(
    threaded: bool,
) -> None:
    writer, ends = Writer(threaded=threaded), Ends()
    writer.run(fail, ends.of("bad"))
    writer.run(lambda: None, ends.of("good"))
    await writer.idle()
    assert [(name, type(error)) for name, error in ends.seen] == [
        ("bad", OSError),
        ("good", type(None)),
    ]
    writer.close()
