"""What a running `up` looks like from outside: what ``patchbay status`` shows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from patchbay.bus import Bus
from patchbay.bus.person import person
from patchbay.errors import Unavailable
from patchbay.health import Heartbeat, heartbeats
from patchbay.progress import OK
from patchbay.settings import Config
from patchbay.topics import Topics
from patchbay.up import supervisor
from patchbay.up.plan import BROKER, STORE
from patchbay.up.record import Record, UnitRecord
from patchbay.up.roster import ONLINE, Roster


class UnitStatus(Struct, frozen=True):
    """A unit: ``status`` is online or offline, ``pid`` null when it does not run.

    ``state`` is ok, waiting or stuck, and ``cause`` what it waits for or what does not get on: see
    `patchbay.progress`.
    """

    unit: str
    instance: str
    status: str
    pid: int | None
    state: str = "ok"
    cause: str = ""


class ProcessStatus(Struct, frozen=True):
    """The broker or the store: ``pid`` is null when it does not run, or is not ours.

    ``failing`` says why it does not work, if it runs and does not.
    """

    pid: int | None = None
    failing: str = ""


class DeviceStatus(Struct, frozen=True):
    """A device, by the name that it has in topics."""

    service: str
    device: str
    status: str


class Status(Struct, frozen=True, kw_only=True):
    """The whole system. ``ready``: every unit is online and gets on, and broker and store, if ours,
    work."""

    ready: bool = False
    units: list[UnitStatus] = []
    broker: ProcessStatus = ProcessStatus()
    store: ProcessStatus = ProcessStatus()
    addresses: dict[str, str] = {}


async def ask(record: Record, config: Config) -> tuple[Status, list[DeviceStatus]]:
    """Ask supervisord and the bus how it is. Who does not answer is shown as offline."""
    try:
        processes = await asyncio.to_thread(supervisor.processes, Path(record.socket))
    except Unavailable:
        processes = {}
    pids = {name: process.pid for name, process in processes.items() if process.pid}
    roster = await _roster(record, config)
    beats = heartbeats(config.runtime.state_dir)
    units = [
        _unit(one, roster, pids.get(one.unit, 0), beats.get(one.instance)) for one in record.units
    ]
    broker = ProcessStatus(pids.get(BROKER), record.failing.get(BROKER, ""))
    store = ProcessStatus(pids.get(STORE), record.failing.get(STORE, ""))
    status = Status(
        ready=all(one.status == ONLINE and one.state == OK for one in units)
        and (broker.pid is not None or not record.broker)
        and (store.pid is not None or not record.store)
        and not record.failing,
        units=units,
        broker=broker,
        store=store,
        addresses=record.addresses,
    )
    devices = [DeviceStatus(*name, said) for name, said in sorted(roster.devices.items())]
    return status, devices


def _unit(one: UnitRecord, roster: Roster, pid: int, beat: Heartbeat | None) -> UnitStatus:
    status = roster.status(one.instance, pid)
    if beat is None or beat.pid != pid:
        return UnitStatus(one.unit, one.instance, status, pid or None)
    return UnitStatus(one.unit, one.instance, status, pid, beat.state, beat.cause)


async def _roster(record: Record, config: Config) -> Roster:
    settings = msgspec.structs.replace(config.broker, host=record.mqtt_host, port=record.mqtt_port)
    settings, client_id = person(settings, "status")
    bus = Bus(
        settings,
        client_id=client_id,
        topics=Topics(record.root_topic),
        announce=False,
    )
    roster = Roster(bus, [one.instance for one in record.units])
    async with bus:
        # Without a broker, what it would tell stays offline.
        with suppress(TimeoutError, Unavailable):
            await roster.settle()
    return roster
