"""Units as processes that are killed, stopped and started again: which pins are on, and for how
long they were."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from patchbay.bus import Bus
from patchbay.messages import now
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import (
    PATIENCE_S,
    Lateness,
    Part,
    broker_settings,
    free_port,
    pub,
    start_s,
    until,
)
from patchbay.topics import Topics
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Blend, Error, Stop
from tests.bartender_bar import PATIENT, Heard, Pins, with_settings
from tests.house import UnitPart, house_environ

PUMPS_MODULES = ("patchbay.runtime", "patchbay_bartender.edge.pumps")
"""What the pumps' unit imports before it can switch anything off."""


class Units:
    """The three units of a bar, each a process. A litre takes 20 s."""

    def __init__(self, directory: Path, broker: Part, store: Part, wanted: dict[str, Any]) -> None:
        self.broker = broker
        self.gui_port = free_port()
        self.database = f"kills_{os.getpid()}_{self.gui_port}"
        self.uri = f"mongodb://127.0.0.1:{store.port}"
        environ = house_environ(
            RUNTIME__STATE_DIR=directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=broker.port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=self.uri,
            STORE__DATABASE=self.database,
            BARTENDER__PORT=self.gui_port,
            BARTENDER__SEC_PER_LITER=20,
            BARTENDER__MAX_CUP_SIZE=10,
            **{f"BARTENDER__{name.upper()}": one for name, one in {**PATIENT, **wanted}.items()},
        )
        self.gui = UnitPart("bartender.gui", directory, self.gui_port, environ)
        self.pumps = UnitPart("bartender.pumps", directory, 0, environ)
        self.domain = UnitPart("bartender.domain", directory, 0, environ)
        self.pins = Pins(directory / "state" / "units" / self.pumps.instance / "pins")
        self.bus = Bus(
            broker_settings(broker.port), client_id="watcher", topics=Topics(), announce=False
        )
        self.heard = Heard(self.bus)

    async def start(self) -> None:
        """Start all and wait until the bar is open."""
        self.bus.start()
        await self.bus.wait_connected(PATIENCE_S)
        self.pumps.spawn()
        self.domain.spawn()
        await asyncio.to_thread(self.gui.start)
        await until(self.open)

    def open(self) -> bool:
        """The bar has said last that it is idle and that its pumps are there."""
        states = self.heard.of("bar/state")
        return bool(states) and states[-1]["pumps_online"] and states[-1]["state"] == "idle"

    async def pouring(self, gui: Gui, seconds: float) -> None:
        """Have this GUI order so many seconds of pump 0, and wait until it pours."""
        await gui.say(Blend(seconds / 20, {"0": 1.0}))
        await until(lambda: self.pins.begun(0))
        await until(lambda: self.heard.of("bar/event/started"))

    async def ended(self, how: str) -> dict[str, Any]:
        """The data of the one event with which the run ends."""
        await until(lambda: self.heard.of(f"bar/event/{how}"))
        (data,) = self.heard.data(f"bar/event/{how}")
        return dict(data)

    async def blends(self) -> list[dict[str, Any]]:
        """The history, when nothing in it is open any more."""
        async with Store(StoreSettings(database=self.database), self.uri) as store:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                found = await store.find("blends", {}, sort=[("_id", 1)])
                if found and all(one["ended_at"] for one in found):
                    return found
                assert time.monotonic() < deadline, found
                await asyncio.sleep(0.05)

    async def millilitres(self) -> float:
        """What pump 0 has pumped, as the store says."""
        async with Store(StoreSettings(database=self.database), self.uri) as store:
            (bar,) = await store.find("pumps", {})
            return float(bar["pumps"][0]["millilitres"])

    async def end(self) -> None:
        await self.bus.stop()
        for unit in (self.gui, self.pumps, self.domain):
            unit.kill()


@pytest.fixture
async def units(
    tmp_path: Path, mosquitto: Part, store_server: Part, wanted: dict[str, Any]
) -> AsyncIterator[Units]:
    units = Units(tmp_path, mosquitto, store_server, wanted)
    try:
        await units.start()
        yield units
    finally:
        await units.end()


def counted_down(gui: Gui, start: int) -> bool:
    """Every second was said once, in order, and 0 at the end, whoever was killed meanwhile."""
    return gui.statuses == list(range(start, -1, -1))


def heard_zero(gui: Gui) -> bool:
    return gui.statuses[-1:] == [0]


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal; whoever ignored it for the tests, as a shell does for what it puts into the
    background, does not for the units that follow."""
    number: signal.Signals = request.param
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


async def test_a_signal_to_end_switches_everything_off(
    number: signal.Signals, units: Units, lateness: Lateness
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 200)
        told_at = time.monotonic()
        os.kill(units.pumps.pid, number)
        await until(lambda: units.pins.on == [])
        await until(lambda: heard_zero(gui))
    ((_, _, off_at),) = units.pins.spans()
    assert off_at - told_at < 0.1 + lateness.worst_s
    assert (await units.ended("failed"))["reason"] == "the pumps' process was stopped"


async def test_a_kill_leaves_pins_as_they_are_and_the_next_start_switches_them_off(
    units: Units, lateness: Lateness
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        said_at = time.monotonic()
        await units.pouring(gui, 200)
        units.pumps.kill()
        assert units.pins.on == [0]  # as the pins of a Pi would be
        bare_s = start_s(*PUMPS_MODULES)
        began = time.monotonic()
        units.pumps.spawn()
        await until(lambda: units.pins.on == [])
        ((_, on_at, off_at),) = units.pins.spans()
        off_s = off_at - began
        assert off_s < max(2.0, 4 * max(bare_s, start_s(*PUMPS_MODULES)))
        failed = await units.ended("failed")
        await until(lambda: heard_zero(gui))
        await until(lambda: Error("the pumps' process was killed") in gui.heard)
    assert failed["code"] == "pumps_failed"
    # It counts from when the run was written down, after the order and before the pins.
    too_much_s = failed["millilitres"]["0"] / 1000 * 20 - (off_at - on_at)
    assert -0.001 <= too_much_s <= (on_at - said_at) + 0.01 + lateness.worst_s
    (record,) = await units.blends()
    assert record["status"] == "failed"
    assert await units.millilitres() == pytest.approx(failed["millilitres"]["0"])
    await until(units.open)


@with_settings(lost_after_s=1)
async def test_pumps_that_do_not_come_back_are_lost_and_counted_when_they_do(
    units: Units,
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 200)
        units.pumps.kill()
        failed = await units.ended("failed")
        assert failed["code"] == "pumps_lost"
        await until(lambda: heard_zero(gui))
        assert await units.millilitres() == 0
        units.pumps.spawn()
        await until(lambda: units.pins.on == [])
        await until(units.open)
        await until(lambda: units.heard.of("bar-pumps/event/finished"))
        deadline = time.monotonic() + PATIENCE_S
        while not await units.millilitres():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    (record,) = await units.blends()
    assert record["status"] == "failed"
    assert record["millilitres"]["0"] == pytest.approx(await units.millilitres())


async def test_a_scheduler_that_is_killed_takes_the_run_up_again_and_finishes_the_count(
    units: Units, lateness: Lateness
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 8)
        units.domain.kill()
        said = len(units.heard.of("bar/event/progress"))
        units.domain.spawn()
        await until(  # the second only if it takes longer to start than the rest of the run
            lambda: (
                len(units.heard.of("bar/event/progress")) > said
                or units.heard.of("bar/event/finished")
            )
        )
        finished = await units.ended("finished")
        await until(lambda: heard_zero(gui))
        assert counted_down(gui, 8)
    assert units.pins.ran() == {0: pytest.approx(8, abs=0.1 + lateness.worst_s)}
    assert finished["millilitres"] == {"0": pytest.approx(400, abs=5)}
    (record,) = await units.blends()
    assert record["status"] == "done"
    assert await units.millilitres() == pytest.approx(400, abs=5)


async def test_a_scheduler_that_comes_back_after_the_end_still_says_how_it_was(
    units: Units, lateness: Lateness
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 1)
        units.domain.kill()
        await until(lambda: heard_zero(gui), PATIENCE_S)  # nobody has told it: it counts itself
        assert units.pins.ran() == {0: pytest.approx(1, abs=0.1 + lateness.worst_s)}
        units.domain.spawn()
        await units.ended("finished")
    (record,) = await units.blends()
    assert record["status"] == "done"
    assert await units.millilitres() == pytest.approx(50, abs=5)


async def test_a_blend_that_was_published_while_the_scheduler_was_down_is_never_poured(
    units: Units,
) -> None:
    units.domain.kill()
    pub(
        units.broker,
        "patchbay/bartender/bar/cmd/blend",
        '{"cup_size": 0.2, "ratios": {"0": 1.0}}',
        "-q",
        "1",  # or the broker keeps it for nobody
    )
    units.domain.spawn()
    await until(lambda: units.heard.of("bar/event/rejected"))
    (rejected,) = units.heard.data("bar/event/rejected")
    assert (rejected["command"], rejected["code"]) == ("blend", "too_late")
    assert units.heard.of("bar-pumps/cmd/run") == []
    assert units.pins.ran() == {}


async def test_the_broker_may_go_in_the_middle_of_a_blend(units: Units, lateness: Lateness) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 3)
        units.broker.kill()
        await until(units.pins.times)
        assert units.pins.ran() == {0: pytest.approx(3, abs=0.1 + lateness.worst_s)}
        await until(lambda: heard_zero(gui))
        units.broker.start()
        (record,) = await units.blends()  # the event may have come before we were back
        assert counted_down(gui, 3)
    assert record["status"] == "done"


async def test_the_edge_of_the_guis_may_go_and_who_comes_back_hears_the_rest(
    units: Units,
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 200)
        units.gui.kill()
    await asyncio.to_thread(units.gui.start)
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await until(lambda: len(gui.statuses) == 3)
        assert units.pins.on == [0]
        await gui.say(Stop())
        await until(lambda: heard_zero(gui))
        first, *rest, zero = gui.statuses
        assert rest == list(range(first - 1, first - 1 - len(rest), -1))
        assert 0 < first <= 200
        assert zero == 0
    assert (await units.ended("failed"))["code"] == "stopped"


async def test_a_stop_reaches_the_pumps_though_there_is_no_scheduler(
    units: Units, lateness: Lateness
) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await units.pouring(gui, 200)
        units.domain.kill()
        said_at = time.monotonic()
        await gui.say(Stop())
        await until(lambda: units.pins.on == [])
        units.domain.spawn()
        assert (await units.ended("failed"))["code"] == "stopped"
        await until(lambda: heard_zero(gui))
    ((_, _, off_at),) = units.pins.spans()
    # GUI, its edge, the broker, the pumps: each may wake late.
    assert off_at - said_at < 0.1 + 4 * lateness.worst_s
    (record,) = await units.blends()
    assert record["status"] == "stopped"


async def test_a_run_that_was_never_ordered_ends_as_failed(
    units: Units,
) -> None:
    """The scheduler is killed between the save and the order."""
    await asyncio.to_thread(units.domain.terminate)
    async with Store(StoreSettings(database=units.database), units.uri) as store:
        (bar,) = await store.find("pumps", {})
        run = {
            "id": "bar:0000000000001-x",
            "kind": "blend",
            "by": "",
            "ordered_at": now(),
            "seconds": {"0": 2.0},
            "millilitres": {"0": 100.0},
        }
        await store.save("pumps", [{**bar, "v": bar["v"] + 1, "run": run}])
    units.domain.spawn()
    failed = await units.ended("failed")
    assert failed["code"] == "not_started"
    (record,) = await units.blends()
    assert record["status"] == "failed"
    await until(units.open)
    assert units.pins.ran() == {}


async def test_blends_and_millilitres_survive_every_restart(units: Units) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        await gui.pour(Blend(0.02, {"0": 1.0}))
        for unit in (units.domain, units.pumps):
            unit.kill()
            said = len(units.heard.of("bar/state"))
            unit.spawn()
            await until(lambda said=said: len(units.heard.of("bar/state")) > said)
            await until(units.open)
        await gui.pour(Blend(0.02, {"0": 1.0}))
    assert [one["status"] for one in await units.blends()] == ["done", "done"]
    assert await units.millilitres() == pytest.approx(40, abs=1)


async def test_a_scheduler_that_people_wait_for_does_not_step_back(units: Units) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, units.domain.pid) == ours


@with_settings(start_deadline_s=2)
async def test_a_frozen_pumps_process_does_not_begin_late(units: Units) -> None:
    async with Gui(units.gui_port, patience_s=PATIENCE_S) as gui:
        with units.pumps.frozen():
            await gui.say(Blend(0.5, {"0": 1.0}))
            assert await gui.hear(Error) == Error("the pumps have not begun it")
        await until(lambda: units.heard.of("bar-pumps/event/refused"))
        assert (await units.ended("failed"))["code"] == "not_started"
    assert units.pins.ran() == {}
    assert units.heard.of("bar-pumps/event/started") == []
    (refused,) = units.heard.data("bar-pumps/event/refused")
    assert refused["code"] in ("late", "unsure", "stopped")
