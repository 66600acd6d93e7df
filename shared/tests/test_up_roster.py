"""Against a real mosquitto: what is retained there is known before `settle` returns."""

from __future__ import annotations

from patchbay.messages import UnitInfo, encode
from patchbay.testing import PATIENCE_S, MakeBus, until
from patchbay.up.roster import OFFLINE, ONLINE, SHOWN_CHARS, Roster

UNITS = ("locker-edge-pi1", "locker-edge-pi2")


async def test_units_and_devices_are_known_by_what_is_retained(make_bus: MakeBus) -> None:
    unit = make_bus("locker-edge-pi1", announce=True)
    info = UnitInfo(unit="locker.edge", version="1", pid=4711, since="2026-01-01T00:00:00Z")
    unit.keep(unit.topics.unit_info("locker-edge-pi1"), encode(info))
    unit.keep(unit.topics.status("locker", "b1"), b"online")
    await unit.set_ready()
    unit.start()
    await unit.wait_online(PATIENCE_S)

    bus = make_bus("asks")
    roster = Roster(bus, UNITS)
    bus.start()
    await roster.settle()
    assert roster.status("locker-edge-pi1", 4711) == ONLINE
    assert roster.devices == {("locker", "b1"): "online"}


async def test_an_online_of_another_process_does_not_count(make_bus: MakeBus) -> None:
    unit = make_bus("speaks")
    unit.start()
    await unit.wait_connected(PATIENCE_S)
    info = UnitInfo(unit="locker.edge", version="1", pid=4711, since="2026-01-01T00:00:00Z")
    await unit.publish(unit.topics.unit_status("locker-edge-pi1"), b"online", retain=True)
    await unit.publish(unit.topics.unit_info("locker-edge-pi1"), encode(info), retain=True)
    await unit.publish(unit.topics.unit_info("locker-edge-pi2"), b"nonsense", retain=True)

    bus = make_bus("asks")
    roster = Roster(bus, UNITS)
    bus.start()
    await roster.settle()
    assert roster.status("locker-edge-pi1", 4711) == ONLINE
    assert roster.status("locker-edge-pi1", 4712) == OFFLINE
    assert roster.status("locker-edge-pi1", 0) == OFFLINE
    assert roster.status("locker-edge-pi2", 4711) == OFFLINE


async def test_a_device_whose_status_is_cleared_is_gone(make_bus: MakeBus) -> None:
    unit = make_bus("speaks")
    unit.start()
    await unit.wait_connected(PATIENCE_S)
    bus = make_bus("asks")
    roster = Roster(bus, UNITS)
    bus.start()
    await roster.settle()
    for device in ("b1", "b2"):
        await unit.publish(unit.topics.status("locker", device), b"online", retain=True)
    await until(lambda: len(roster.devices) == 2)
    await unit.publish(unit.topics.status("locker", "b1"), b"", retain=True)
    await until(lambda: roster.devices == {("locker", "b2"): "online"})


async def test_statuses_that_somebody_makes_up_take_no_room_without_bound(
    make_bus: MakeBus,
) -> None:
    speaks = make_bus("speaks")
    speaks.start()
    await speaks.wait_connected(PATIENCE_S)
    for number in range(30):
        await speaks.publish(speaks.topics.unit_status(f"x{number}"), b"online", retain=True)
        await speaks.publish(speaks.topics.unit_info(f"x{number}"), b"{}", retain=True)
        await speaks.publish(speaks.topics.status("x", f"d{number}"), b"x" * 9000, retain=True)
    await speaks.publish(speaks.topics.unit_status(UNITS[0]), b"online", retain=True)
    bus = make_bus("asks")
    roster = Roster(bus, UNITS, max_devices=10)
    bus.start()
    await roster.settle()
    assert len(roster.devices) == 10
    assert {len(status) for status in roster.devices.values()} == {SHOWN_CHARS}
    assert set(roster._statuses) == {UNITS[0]}
