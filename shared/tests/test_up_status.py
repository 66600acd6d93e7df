"""What `status` finds where not all answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchbay.bus import Bus
from patchbay.messages import UnitInfo, encode
from patchbay.settings import Config
from patchbay.testing import PATIENCE_S, MakeBus, Part, free_port
from patchbay.up.record import Record, UnitRecord
from patchbay.up.status import DeviceStatus, ask

SETTINGS = Config.read(None, {}, {})
UNIT = UnitRecord("gate.edge", "gate-edge-x")


def record_of(place: Path, port: int, *, ours: bool = True) -> Record:
    """An `up` that has ended without a word: nobody answers at its socket."""
    return Record(
        pid=os.getpid(),
        socket=str(place / "supervisor.sock"),
        root_topic="patchbay",
        mqtt_host="127.0.0.1",
        mqtt_port=port,
        broker=ours,
        store=ours,
        units=[UNIT],
        addresses={"mqtt": f"127.0.0.1:{port}"},
    )


@pytest.fixture
async def bus(make_bus: MakeBus) -> Bus:
    """The unit, as its messages on the bus have it."""
    bus = make_bus(UNIT.instance, announce=True)
    bus.start()
    await bus.set_ready()
    await bus.wait_online(PATIENCE_S)
    info = UnitInfo(
        unit=UNIT.unit,
        version="0",
        pid=os.getpid(),
        since="",
        backlog=0,
        connections=0,
        reconnects=0,
        dead_letters=0,
    )
    await bus.publish("patchbay/status/gate-edge-x/info", encode(info), retain=True)
    await bus.publish("patchbay/gate/front/status", b"online", retain=True)
    return bus


async def test_devices_are_shown_though_nobody_knows_the_processes(
    tmp_path: Path, mosquitto: Part, bus: Bus
) -> None:
    record = record_of(tmp_path, mosquitto.port)
    status, devices = await ask(record, SETTINGS)
    assert devices == [DeviceStatus("gate", "front", "online")]
    assert not status.ready
    (unit,) = status.units
    assert (unit.unit, unit.status, unit.pid) == ("gate.edge", "offline", None)
    assert (status.broker.pid, status.store.pid) == (None, None)
    assert status.addresses == record.addresses


async def test_without_broker_and_processes_all_is_offline_and_no_error(tmp_path: Path) -> None:
    status, devices = await ask(record_of(tmp_path, free_port()), SETTINGS)
    assert (status.ready, devices) == (False, [])
    assert [unit.status for unit in status.units] == ["offline"]
