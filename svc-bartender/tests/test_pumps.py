"""The pumps' edge, with the test as the scheduler: what it begins, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchbay.bus import Message
from patchbay.messages import encode
from patchbay.outbox import Outbox
from patchbay.outbox import outbox as outbox_module
from patchbay.outbox.journal import Row
from patchbay.testing import Lateness, MakeBus, Part, pub, until
from patchbay_bartender.edge.pumps import _Current
from patchbay_bartender.messages import Asked, Confirm, Run, Stop
from tests.bartender_bar import House, with_settings

CLOCK = "the test's"
ASKED = "bar-pumps/event/asked"
REFUSED = "bar-pumps/event/refused"
FINISHED = "bar-pumps/event/finished"
STATE = "bar-pumps/state"


class Scheduler:
    """Orders runs, and confirms them when it is told to."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.bus = house.watcher

    async def order(self, run_id: str, **seconds: float) -> None:
        """Order a run: ``p0=1.5``."""
        run = Run(
            run_id=run_id,
            ordered_at=time.monotonic(),
            clock=CLOCK,
            seconds={pump.removeprefix("p"): wanted for pump, wanted in seconds.items()},
        )
        await self.tell("run", run)

    async def tell(self, name: str, body: msgspec.Struct) -> None:
        await self.bus.publish(f"patchbay/bartender/bar-pumps/cmd/{name}", encode(body))

    async def confirm(self, number: int = 0, clock: str = CLOCK, **changed: str) -> None:
        """Confirm what was asked."""
        await until(lambda: len(self.house.heard.of(ASKED)) > number)
        asked = msgspec.convert(self.house.heard.of(ASKED)[number], Asked)
        said = {"run_id": asked.run_id, "nonce": asked.nonce, **changed}
        await self.tell("confirm", Confirm(**said, clock=clock, now=time.monotonic()))


@pytest.fixture
def scheduler(alone: House) -> Scheduler:
    return Scheduler(alone)


async def refusal(house: House) -> dict[str, Any]:
    """The refusal that comes."""
    await until(lambda: house.heard.of(REFUSED))
    (data,) = house.heard.data(REFUSED)
    return dict(data)


async def test_an_order_that_is_confirmed_runs_for_its_time(
    alone: House, scheduler: Scheduler, lateness: Lateness
) -> None:
    await scheduler.order("r1", p0=0.2, p5=0.5)
    await scheduler.confirm()
    await until(lambda: alone.heard.of(FINISHED))
    (finished,) = alone.heard.data(FINISHED)
    assert (finished["run_id"], finished["result"]) == ("r1", "done")
    ran = alone.pins.ran()
    assert ran == {
        0: pytest.approx(0.2, abs=0.1 + lateness.worst_s),
        5: pytest.approx(0.5, abs=0.1 + lateness.worst_s),
    }
    assert finished["ran"]["5"] == pytest.approx(ran[5], abs=0.01)
    (started,) = alone.heard.data("bar-pumps/event/started")
    assert started == {"run_id": "r1", "seconds": {"0": 0.2, "5": 0.5}}
    states = [(one["run_id"], one["on"]) for one in alone.heard.of(STATE)]
    assert states[0] == (None, [])
    assert ("r1", [0, 5]) in states
    assert states[-1] == (None, [])
    assert alone.heard.of(STATE)[-1]["last_run"] == "r1"


@with_settings(start_deadline_s=2)
async def test_an_order_that_nobody_confirms_is_refused(alone: House, scheduler: Scheduler) -> None:
    await scheduler.order("r1", p0=5)
    assert (await refusal(alone))["code"] == "unsure"
    assert alone.pins.ran() == {}


@with_settings(start_deadline_s=3)
async def test_a_confirmation_that_comes_late_begins_nothing(
    alone: House, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is looked at before the timer that is due as well: as after a freeze."""
    await scheduler.order("r1", p0=5)
    await until(lambda: alone.pumps._pending)
    pending = alone.pumps._pending
    assert pending is not None
    pending.timer.cancel()
    await asyncio.sleep(3.1)
    await scheduler.confirm()
    assert (await refusal(alone))["code"] == "late"
    assert alone.pins.ran() == {}


@with_settings(start_deadline_s=3)
async def test_a_run_that_takes_too_long_to_be_written_down_is_not_begun(
    alone: House, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = alone.pumps._outbox._journal
    commit = journal.commit

    def slow(rows: list[Row], *rest: Any) -> None:
        if any(row.key == "r1/started" for row in rows):
            time.sleep(3.1)
        commit(rows, *rest)

    monkeypatch.setattr(journal, "commit", slow)
    await scheduler.order("r1", p0=5)
    await scheduler.confirm()
    await until(lambda: alone.heard.of(FINISHED))
    assert alone.heard.data(FINISHED)[0]["reason"] == "writing it down took too long"
    assert alone.pins.ran() == {}


@with_settings(start_deadline_s=2)
async def test_a_confirmation_of_something_else_does_not_count(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p0=5)
    await scheduler.confirm(nonce="another")
    await scheduler.confirm(run_id="r2")
    assert (await refusal(alone))["code"] == "unsure"
    assert alone.pins.ran() == {}


async def test_a_repeat_runs_nothing(
    alone: House, scheduler: Scheduler, lateness: Lateness
) -> None:
    await scheduler.order("r1", p0=0.1)
    await scheduler.confirm()
    await until(lambda: alone.heard.of(FINISHED))
    said = len(alone.heard.of(STATE))
    await scheduler.order("r1", p0=0.1)
    await until(lambda: len(alone.heard.of(STATE)) > said)  # what it says instead
    assert len(alone.heard.of(ASKED)) == 1
    assert alone.pins.ran() == {0: pytest.approx(0.1, abs=0.1 + lateness.worst_s)}


async def test_a_repeat_after_a_restart_runs_nothing(alone: House, scheduler: Scheduler) -> None:
    await scheduler.order("r1", p0=0.1)
    await scheduler.confirm()
    await until(lambda: alone.heard.of(FINISHED))
    await alone.stop("pumps")
    await alone.start_pumps()
    said = len(alone.heard.of(STATE))
    await scheduler.order("r1", p0=0.1)
    await until(lambda: len(alone.heard.of(STATE)) > said)
    assert len(alone.heard.of(ASKED)) == 1
    assert len(alone.pins.times()) == 1


async def test_a_second_order_while_one_runs_is_refused(alone: House, scheduler: Scheduler) -> None:
    await scheduler.order("r1", p0=3)
    await scheduler.confirm()
    await until(lambda: alone.pins.on == [0])
    await scheduler.order("r2", p1=1)
    assert (await refusal(alone))["run_id"] == "r2"
    assert alone.heard.data(REFUSED)[0]["code"] == "busy"
    assert alone.pins.on == [0]
    await scheduler.tell("stop", Stop())
    await until(lambda: alone.heard.of(FINISHED))


async def test_an_order_over_the_longest_run_is_refused(alone: House, scheduler: Scheduler) -> None:
    await scheduler.order("r1", p0=300.5)
    assert (await refusal(alone))["code"] == "bad_order"
    assert alone.pins.ran() == {}


async def test_what_is_no_order_is_set_aside(alone: House, mosquitto: Part) -> None:
    topic = "patchbay/bartender/bar-pumps/cmd/run"
    dead: list[Message] = []
    subscribed = alone.watcher.listen("patchbay/dead/bartender", dead.append).adding
    assert subscribed is not None
    await subscribed
    for nonsense in ("pour!", '{"run_id": "x"}', '{"run_id": "x", "seconds": {"0": 1}}'):
        pub(mosquitto, topic, nonsense)
    await until(lambda: len(dead) == 3)
    assert alone.pins.ran() == {}


async def test_a_retained_order_is_ignored(alone: House, mosquitto: Part) -> None:
    order = Run(run_id="r1", ordered_at=time.monotonic(), clock=CLOCK, seconds={"0": 5.0})
    await alone.stop("pumps")
    pub(mosquitto, "patchbay/bartender/bar-pumps/cmd/run", encode(order).decode(), "-r")
    await alone.start_pumps()
    said = len(alone.heard.of(STATE))
    pub(mosquitto, "patchbay/bartender/bar-pumps/cmd/report", "{}")
    await until(lambda: len(alone.heard.of(STATE)) > said)
    assert alone.heard.of(ASKED) == []


@pytest.mark.parametrize("payload", ["{}", "", "STOP!", '{"run_id": "r1"}', '{"run_id": 7}'])
async def test_a_stop_stops_however_it_is_said(
    alone: House, scheduler: Scheduler, payload: str
) -> None:
    await scheduler.order("r1", p0=30, p7=30)
    await scheduler.confirm()
    await until(lambda: alone.pins.on == [0, 7])
    await scheduler.bus.publish("patchbay/bartender/bar-pumps/cmd/stop", payload.encode())
    await until(lambda: alone.heard.of(FINISHED))
    assert alone.heard.data(FINISHED)[0]["result"] == "stopped"
    assert alone.pins.on == []


async def test_a_stop_of_another_run_is_not_for_this_one(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p0=0.6)
    await scheduler.confirm()
    await until(lambda: alone.pins.begun(0))
    await scheduler.tell("stop", Stop(run_id="r0"))
    await until(lambda: alone.heard.of(FINISHED))
    assert alone.heard.data(FINISHED)[0]["result"] == "done"


async def test_a_stop_before_the_confirmation_ends_the_order(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p0=30)
    await until(lambda: alone.heard.of(ASKED))
    await scheduler.tell("stop", Stop())
    await scheduler.confirm()
    assert (await refusal(alone))["code"] == "stopped"
    assert alone.pins.ran() == {}


async def test_an_order_that_waits_when_the_pumps_end_has_failed_and_was_stopped_by_nobody(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p0=30)
    await until(lambda: alone.heard.of(ASKED))
    await alone.stop("pumps")
    await alone.start_pumps()
    await until(lambda: alone.heard.of(REFUSED))
    refused = alone.heard.data(REFUSED)[0]  # said again: nobody has acknowledged it
    assert (refused["code"], refused["reason"]) == ("failed", "the pumps' process was stopped")
    assert alone.pins.ran() == {}


async def test_a_pin_that_fails_ends_the_unit_with_everything_off(
    alone: House, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scheduler.order("r1", p0=30)
    await scheduler.confirm()
    await until(lambda: alone.pins.on == [0])

    def broken() -> list[int]:
        raise OSError("a mistake in the logic")

    monkeypatch.setattr(alone.bank, "sweep", broken)
    alone.pumps._turn()
    await until(lambda: alone.failures)
    assert alone.pins.on == []
    await until(lambda: alone.heard.of(FINISHED))
    assert "a mistake in the logic" in alone.heard.data(FINISHED)[0]["reason"]


async def test_a_run_that_the_watchdog_has_cut_off_has_failed_whoever_looks_first(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p0=30)
    await scheduler.confirm()
    await until(lambda: alone.pins.on == [0])
    alone.bank.stop("the event loop was blocked")  # as the watchdog's thread does
    alone.pumps._turn()  # a timer that was due before the loop hears of it
    alone.pumps._cut_off("r0", "another run's bark")
    await until(lambda: alone.heard.of(FINISHED))
    (finished,) = alone.heard.data(FINISHED)
    assert (finished["result"], finished["reason"]) == ("failed", "the event loop was blocked")


async def test_an_end_that_could_not_be_written_is_written_later(
    alone: House, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = alone.pumps._outbox._journal
    commit = journal.commit

    def full(rows: list[Row], *rest: Any) -> None:
        if any(row.key == "r1/finished" for row in rows):
            monkeypatch.undo()
            raise sqlite3.OperationalError("database or disk is full")
        commit(rows, *rest)

    monkeypatch.setattr(journal, "commit", full)
    await scheduler.order("r1", p0=0.1)
    await scheduler.confirm()
    await until(lambda: alone.heard.of(FINISHED))
    assert alone.heard.data(FINISHED)[0]["result"] == "done"
    assert journal.commit == commit


async def test_a_run_that_takes_the_place_of_a_stopped_one_is_begun_once(alone: House) -> None:
    pumps = alone.pumps
    for run_id in ("r1", "r2"):  # both within one commit
        pumps._end("stopped", "stopped")
        at = time.monotonic()
        run = Run(run_id=run_id, ordered_at=at, clock=CLOCK, seconds={"0": 0.1})
        pumps._begin(_Current(run, at))
    await until(lambda: len(alone.heard.of(FINISHED)) == 2)
    ended = [(one["run_id"], one["result"]) for one in alone.heard.data(FINISHED)]
    assert ended == [("r1", "stopped"), ("r2", "done")]
    assert len(alone.pins.times()) == pumps.begun == 1
    assert alone.failures == []


async def test_nothing_is_forgotten_on_disk_while_pumps_are_on(
    make_bus: MakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FORGET_AFTER_S", 0.01)
    looked: list[bool] = []
    on = [True]

    def busy() -> bool:
        looked.append(on[0])
        return on[0]

    async with Outbox(make_bus("a"), "bartender", tmp_path / "outbox.sqlite", busy=busy) as outbox:
        outbox.add("bar-pumps", "started", key="r1", subject="bar-pumps", time="t", data={})
        await until(lambda: outbox._journal.rows == 1)
        outbox._sender.acked = 1  # the scheduler has it
        outbox._forget_soon()
        await until(lambda: len(looked) > 2)
        assert outbox._journal.rows == 1
        on[0] = False
        await until(lambda: outbox._journal.rows == 0)


async def test_the_broker_may_go_in_the_middle_of_a_run(
    alone: House, scheduler: Scheduler, mosquitto: Part, lateness: Lateness
) -> None:
    await scheduler.order("r1", p3=1.0)
    await scheduler.confirm()
    await until(lambda: alone.pins.begun(3))
    await asyncio.to_thread(mosquitto.kill)
    await until(lambda: alone.pins.on == [])
    assert alone.pins.ran() == {3: pytest.approx(1.0, abs=0.1 + lateness.worst_s)}
    await asyncio.to_thread(mosquitto.start)
    await until(lambda: alone.heard.of(FINISHED))  # it stood in the outbox
    assert alone.heard.data(FINISHED)[0]["result"] == "done"


async def test_who_says_offline_for_pumps_that_are_there_is_corrected(
    alone: House, mosquitto: Part
) -> None:
    pub(mosquitto, "patchbay/bartender/bar-pumps/status", "offline", "-r")
    await until(lambda: alone.heard.of("bar-pumps/status")[-2:] == ["offline", "online"])


async def test_an_end_without_a_stop_is_said_while_it_can_be(
    alone: House, scheduler: Scheduler
) -> None:
    await scheduler.order("r1", p3=30)
    await scheduler.confirm()
    await until(lambda: alone.pins.on == [3])
    await alone.stop("pumps")
    assert alone.pins.on == []
    await alone.start_pumps()
    await until(lambda: alone.heard.of(FINISHED))
    finished = alone.heard.data(FINISHED)[0]
    assert (finished["result"], finished["reason"]) == ("failed", "the pumps' process was stopped")
    assert json.dumps(finished["ran"]).startswith('{"3"')
