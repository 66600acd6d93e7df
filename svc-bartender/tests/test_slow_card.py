"""Pumps and a memory card on which a commit does not end: nothing waits for it but a run's
beginning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from patchbay.messages import encode
from patchbay.testing import until
from patchbay_bartender.edge.pumps import _Current
from patchbay_bartender.messages import Run, Stop
from tests.bartender_bar import House, with_settings
from tests.slow_disk import SlowDisk

CLOCK = "the test's"
FINISHED = "bar-pumps/event/finished"
REFUSED = "bar-pumps/event/refused"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """Each commit that is not a run's beginning is held back."""
    card = SlowDisk(monkeypatch, lambda rows: any("/started" not in row.key for row in rows))
    yield card
    card.free()


async def begin(house: House, run_id: str, seconds: float) -> None:
    """Begin a run that is confirmed, and wait until its pump is on."""
    run = Run(run_id=run_id, ordered_at=time.monotonic(), clock=CLOCK, seconds={"0": seconds})
    house.pumps._begin(_Current(run, house.bank.clock()))
    await until(lambda: house.bank.on)


async def order(house: House, run_id: str, seconds: float) -> None:
    run = Run(run_id=run_id, ordered_at=time.monotonic(), clock=CLOCK, seconds={"0": seconds})
    await house.watcher.publish("patchbay/bartender/bar-pumps/cmd/run", encode(run))


@with_settings(watchdog_s=0.5)
async def test_a_refused_order_cuts_off_no_run_that_is_pouring(
    alone: House, card: SlowDisk
) -> None:
    await begin(alone, "r1", 2.0)
    await order(alone, "r2", 1.0)
    await until(lambda: card.begun)  # the refusal is being written
    await asyncio.sleep(1.0)  # twice as long as the watchdog waits for a loop that stands
    assert alone.pins.on == [0]
    card.free()
    await until(lambda: alone.heard.of(FINISHED))
    (finished,) = alone.heard.data(FINISHED)
    assert (finished["run_id"], finished["result"]) == ("r1", "done")
    assert [one["code"] for one in alone.heard.data(REFUSED)] == ["busy"]


async def test_a_stop_acts_while_a_commit_lasts(alone: House, card: SlowDisk) -> None:
    await begin(alone, "r1", 60.0)
    await order(alone, "r2", 1.0)
    await until(lambda: card.begun)
    await alone.watcher.publish("patchbay/bartender/bar-pumps/cmd/stop", encode(Stop()))
    await until(lambda: not alone.pins.on)
    assert card.begun == 1, "the commit still lasts"
    card.free()
    await until(lambda: alone.heard.of(FINISHED))
    assert alone.heard.data(FINISHED)[0]["result"] == "stopped"
