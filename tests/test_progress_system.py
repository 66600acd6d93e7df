"""Units that wait are left alone, and one that is stuck by itself ends: with real processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from patchbay.health import check
from patchbay.messages import Ack, encode
from patchbay.testing import PATIENCE_S, until
from tests.house import HOST, House, UnitPart

STUCK_AFTER_S = 6
"""More than an operation of the store takes to fail."""
AN_HOUR = 3600 / 180
"""An hour without the store, in units of the default of ``stuck_after_s``."""


def health(house: House, unit: UnitPart, *, ready: bool = False) -> tuple[bool, str]:
    return check(unit.name, house.directory / "state", HOST, ready=ready)


@pytest.mark.parametrize("periods", [2, pytest.param(AN_HOUR, marks=pytest.mark.long)])
async def test_without_the_store_nothing_is_started_again_and_devices_are_answered(
    tmp_path: Path, periods: float
) -> None:
    house = House(tmp_path)
    for unit in (house.edge, house.domain):
        unit.environ["PATCHBAY_RUNTIME__STUCK_AFTER_S"] = str(STUCK_AFTER_S)
    async with house:
        board = house.board("1953")
        await board.report()
        await house.persisted([board])
        pids = (house.edge.pid, house.domain.pid)
        await house.kill(house.store)
        waited = False
        end = time.monotonic() + periods * STUCK_AFTER_S
        while time.monotonic() < end or not waited:
            await board.report()
            assert (house.edge.pid, house.domain.pid) == pids
            assert house.edge.running
            assert house.domain.running
            for unit in (house.edge, house.domain):
                assert health(house, unit).ok
            found = health(house, house.domain, ready=True)
            waited = waited or found == (False, "waiting: store")
            await asyncio.sleep(0.2)
        await house.start(house.store)
        await house.persisted([board])
        await until(lambda: health(house, house.domain, ready=True).ok)
        assert house.edge.running
        assert house.domain.running


async def test_an_edge_whose_events_do_not_get_on_though_they_are_acknowledged_ends(
    tmp_path: Path,
) -> None:
    """The domain service is there and answers, and nothing helps: the cause is in the edge."""
    house = House(tmp_path)
    house.edge.environ["PATCHBAY_RUNTIME__STUCK_AFTER_S"] = str(STUCK_AFTER_S)
    async with house:
        board = house.board("1953")
        await board.report()
        await house.persisted([board])
        await house.kill(house.domain)
        await asyncio.to_thread(house.edge.kill)
        await house.start(house.edge)
        reporting = asyncio.create_task(board.report())
        topic = house.topics.ack(house.edge.instance)
        end = time.monotonic() + PATIENCE_S
        while house.edge.running:
            assert time.monotonic() < end, "the edge ends by itself"
            house.bus.post(topic, encode(Ack("an-epoch-of-nobody", 0)))
            await asyncio.sleep(0.2)
        assert "stuck: no progress of outbox: starting again" in house.edge.log.read_text()
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        await house.start(house.domain, house.edge)  # as its supervisor does
        await board.report()
        await house.persisted([board])
