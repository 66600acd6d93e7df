"""The watchdog: by hand where time matters, and once with a loop that is really blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from patchbay.testing import PATIENCE_S, Lateness, until
from patchbay_bartender.edge.bank import Bank
from patchbay_bartender.edge.simulated import SimulatedGpio
from patchbay_bartender.edge.watchdog import BEAT_S, LOOK_S, Watchdog
from patchbay_bartender.settings import BOARD_PINS
from patchbay_bartender.wire.gui import Blend, Error, Status
from tests.bartender_bar import Hand, House, Levels, bank, on, with_settings


def test_a_loop_that_turns_is_left_alone(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        dog = Watchdog(pumps, 0.5, print)
        dog.beat()
        pumps.start({4: 100})
        for _ in range(100):
            hand.now += 0.4
            dog.beat()
            assert dog.look() == ""
        assert on(gpio) == [4]


def test_a_loop_that_is_blocked_loses_its_pumps(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        dog = Watchdog(pumps, 0.5, print)
        dog.beat()
        pumps.start({4: 100, 6: 100})
        hand.now += 0.51
        assert "blocked" in dog.look()
        assert on(gpio) == []
        assert pumps.ran == {4: pytest.approx(0.51), 6: pytest.approx(0.51)}
        assert dog.look() == ""  # said once


def test_a_pump_past_its_time_goes_off_though_the_loop_still_turns(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        dog = Watchdog(pumps, 0.5, print)
        dog.beat()
        pumps.start({4: 0.2, 6: 100})
        hand.now += 0.3
        assert dog.look() == ""
        assert on(gpio) == [6]


def test_the_thread_does_it_by_itself_while_this_one_is_blocked(tmp_path: Path) -> None:
    barked: list[str] = []
    said = threading.Event()

    def bark(reason: str) -> None:
        barked.append(reason)
        said.set()

    gpio = SimulatedGpio(tmp_path / "pins")
    with (
        Bank(gpio, BOARD_PINS, active_low=True, max_run_s=300) as pumps,
        Watchdog(pumps, 0.2, bark) as dog,
    ):
        for _ in range(2):  # it sleeps in between, and wakes again
            dog.beat()
            pumps.start({0: 100})
            dog.arm()
            assert said.wait(PATIENCE_S)
            said.clear()
            assert pumps.on == []
        assert len(barked) == 2
    assert not dog.alive


@with_settings(watchdog_s=0.5)
async def test_a_blocked_event_loop_ends_the_run_and_everybody_hears_why(
    house: House, lateness: Lateness
) -> None:
    async with house.connect() as gui:
        await gui.say(Blend(0.5, {"2": 1.0}))
        await gui.hear(Status)
        await until(lambda: house.pins.on == [2])
        blocked_at = time.monotonic()
        deadline = blocked_at + PATIENCE_S
        while house.pins.on:  # nothing in this loop turns meanwhile
            assert time.monotonic() < deadline
            time.sleep(0.01)  # noqa: ASYNC251 - that is the point
        await gui.hear(Status, lambda one: one.remaining_time == 0)
        await until(lambda: any(isinstance(one, Error) for one in gui.heard))
    (error,) = [one for one in gui.heard if isinstance(one, Error)]
    assert "the event loop was blocked" in error.msg
    ((_, on_at, off_at),) = house.pins.spans()
    ran = off_at - on_at
    assert house.settings.watchdog_s <= ran
    # The last sign of life came before it was blocked; the thread looks every so often.
    limit_s = house.settings.watchdog_s + LOOK_S + BEAT_S + lateness.worst_s
    assert off_at - blocked_at < limit_s
    (failed,) = house.heard.data("bar/event/failed")
    assert failed["code"] == "pumps_failed"
    assert failed["millilitres"]["2"] == pytest.approx(ran / 20 * 1000, rel=0.05)
    await asyncio.sleep(0)
