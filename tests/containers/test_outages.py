"""What is taken in is kept, whichever container is killed and whichever network is cut."""

from __future__ import annotations

import asyncio
import io
import tarfile

from docker.models.containers import Container

from patchbay.testing import until
from tests.containers.composed import System
from tests.containers.load import Load

CUT_S = 20.0
"""How long a network is cut: that is the case, not a wait for something."""


async def test_each_container_is_killed_and_starts_again(system: System) -> None:
    load = Load(system, "killed", jobs=False)
    async with load.running():
        for service in sorted(system.containers()):
            await asyncio.to_thread(system.crash, service)
        await asyncio.to_thread(system.healthy)
    await load.all_kept()


async def test_with_the_broker_cut_off_nothing_is_lost(system: System) -> None:
    await nothing_is_lost_without("broker", ("bus", "devices"), system)


async def test_with_the_store_cut_off_nothing_is_lost(system: System) -> None:
    await nothing_is_lost_without("store", ("storage",), system)


async def test_a_broker_whose_file_a_power_cut_has_zeroed_starts(system: System) -> None:
    broker = system.container("broker")
    await asyncio.to_thread(broker.stop, timeout=10)
    await asyncio.to_thread(put_zeros, broker, "/mosquitto/data", "mosquitto.db")
    await asyncio.to_thread(broker.start)
    await asyncio.to_thread(system.healthy)
    assert "mosquitto.db.bad" in broker.exec_run(["ls", "/mosquitto/data"]).output.decode().split()


def put_zeros(container: Container, directory: str, name: str) -> None:
    """A file of zeros, owned as Mosquitto would own it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.uid, entry.gid, entry.mode = 4096, 1883, 1883, 0o600
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    assert container.put_archive(directory, packed.getvalue())


async def nothing_is_lost_without(service: str, networks: tuple[str, ...], system: System) -> None:
    """Cut it off under load, and mend it; boards are answered all the time. ``networks``: all that
    it is on, or some units would still reach it."""
    load = Load(system, f"{service}-cut")
    starts = system.starts()
    assert set(networks) == set(system.networks_of(service))
    async with load.running():
        await until(lambda: load.answered > len(load.boards))
        for network in networks:
            await asyncio.to_thread(system.cut, network, service)
        before = load.answered
        await asyncio.sleep(CUT_S)
        assert load.answered > before + len(load.boards)
        for network in networks:
            await asyncio.to_thread(system.mend, network, service)
        await asyncio.to_thread(system.healthy)
    await load.all_kept()
    assert system.starts() == starts, "nobody had to be started again for that"
