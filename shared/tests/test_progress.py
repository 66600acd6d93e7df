"""Whether a unit gets on, and who keeps it from that."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.errors import Unavailable
from patchbay.progress import (
    BROKER,
    DOMAIN,
    OK,
    STORE,
    STUCK,
    WAITING,
    Progress,
    Ticks,
    Verdict,
    Work,
)
from patchbay.restarts import Restarts

AFTER_S = 180.0


class Unit:
    """Its clock goes two seconds at a time, as often as it looks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = Progress(lambda: self.now)

    def work(self, name: str = "outbox", *, pending: bool = True, cause: str = "") -> Work:
        return self.progress.watch(name, lambda: pending, lambda: cause)

    def after(self, seconds: float) -> Verdict:
        end = self.now + seconds
        verdict = self.progress.look(AFTER_S)
        while self.now < end:
            self.now += 2.0
            verdict = self.progress.look(AFTER_S)
        return verdict


@pytest.fixture
def unit() -> Unit:
    return Unit()


def test_who_has_nothing_to_do_gets_on(unit: Unit) -> None:
    unit.work(pending=False)
    assert unit.after(3600) == Verdict(OK, "", "")


def test_work_that_gets_on_now_and_then_is_not_stuck(unit: Unit) -> None:
    work = unit.work()
    for _ in range(10):
        assert unit.after(AFTER_S - 4).state == OK
        work.moved()


def test_work_that_nobody_outside_keeps_from_getting_on_is_stuck(unit: Unit) -> None:
    unit.work()
    assert unit.after(AFTER_S - 2).state == OK
    assert unit.after(2) == Verdict(STUCK, "", "outbox")
    assert str(unit.after(2)) == "stuck: outbox"


@pytest.mark.parametrize("cause", [BROKER, STORE, DOMAIN])
def test_work_that_waits_for_somebody_is_not_stuck_however_long(unit: Unit, cause: str) -> None:
    unit.work(cause=cause)
    assert unit.after(3600) == Verdict(WAITING, cause, "outbox")


def test_what_is_stuck_counts_before_what_waits(unit: Unit) -> None:
    unit.work("connection", cause=BROKER)
    unit.work("ticker")
    assert unit.after(AFTER_S) == Verdict(STUCK, "", "ticker")


def test_a_tick_that_fails_for_the_store_waits_and_one_that_fails_otherwise_is_stuck(
    unit: Unit,
) -> None:
    ticks = Ticks(unit.progress, "ticker", lambda: True)
    ticks.failed(Unavailable("the store is away"))
    assert unit.after(3600) == Verdict(WAITING, STORE, "ticker")
    ticks.good()
    assert unit.after(AFTER_S - 2).state == OK
    ticks.failed(ValueError("a mistake"))
    assert unit.after(4) == Verdict(STUCK, "", "ticker")


def test_a_tick_behind_work_that_waits_for_the_store_waits_too(unit: Unit) -> None:
    Ticks(unit.progress, "ticker", lambda: True)
    unit.work("inbox", cause=STORE)
    assert unit.after(3600).state == WAITING


def test_time_in_which_the_process_was_stopped_is_nobodys_fault(unit: Unit) -> None:
    unit.work()
    unit.after(10)
    unit.now += 3600.0
    assert unit.after(AFTER_S - 20).state == OK
    assert unit.after(20).state == STUCK


def test_restarts_that_heal_nothing_come_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    file = tmp_path / "restarts"
    pauses = []
    for _ in range(7):
        restarts = Restarts(file)
        pauses.append(restarts.pause_s)
        restarts.add()
    assert pauses == [0, 60, 120, 240, 480, 600, 600]
    Restarts(file).healed()
    assert Restarts(file).pause_s == 0
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"-5", b"\xff\xfe", b"9" * 10_000])
def test_a_damaged_count_of_restarts_keeps_nobody_from_starting(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "restarts"
    file.write_bytes(content)
    assert Restarts(file).pause_s in (0.0, 600.0)


def test_a_count_that_cannot_be_written_is_counted_all_the_same(tmp_path: Path) -> None:
    restarts = Restarts(tmp_path / "nowhere" / "restarts")
    restarts.add()
    assert restarts.pause_s == 60
