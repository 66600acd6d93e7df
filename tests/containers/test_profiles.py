"""The profiles: simulated devices beside the units; replicas that share the allocator's work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from patchbay.testing import eventually
from tests.containers.composed import System
from tests.containers.honest import order
from tests.containers.load import Load

LANTERNS = ("lantern-1", "lantern-2", "lantern-3")
DEVICES = (
    *LANTERNS,
    "mixer-1",
    "mixer-2",
    "allocator-demo",
    "bartender-demo",
    "locker-demo",
    "mesh-demo",
)
REPLICAS = ("allocator-domain-2", "allocator-domain-3", "allocator-domain-4")
WAIT_S = 60.0


async def start(system: System, profile: str, *services: str) -> None:
    up = ("--profile", profile, "up", "--detach", "--no-deps", *services)
    await asyncio.to_thread(system.compose, *up)


async def stop(system: System, *services: str) -> None:
    await asyncio.to_thread(system.compose, "rm", "--stop", "--force", *services)


@pytest.fixture
async def demo(system: System) -> AsyncIterator[System]:
    await start(system, "demo", *DEVICES)
    yield system
    await stop(system, *DEVICES)


def said(system: System, service: str) -> list[str]:
    return system.container(service).logs().decode().splitlines()


async def test_simulated_devices_find_their_units(demo: System) -> None:
    async def all_have_been_heard() -> bool:
        chromebook = {"ClientName": {"$regex": "CHROMEBOOK"}}
        boards = await asyncio.to_thread(demo.documents, "boards", {"_id": "demo-1"})
        jobs = await asyncio.to_thread(demo.documents, "jobs", chromebook)
        blends = await asyncio.to_thread(demo.documents, "blends", {})
        nodes = await asyncio.to_thread(demo.documents, "nodes", {})
        return bool(boards and jobs and blends and nodes)

    await eventually(all_have_been_heard, WAIT_S)


async def test_lanterns_obey_and_come_back_when_their_server_does(demo: System) -> None:
    """They try each second; what they say is a line a change."""

    async def all_say(text: str, times: int = 1) -> bool:
        lines = [await asyncio.to_thread(said, demo, one) for one in LANTERNS]
        return all(sum(text in line for line in found) >= times for found in lines)

    await eventually(lambda: all_say("connected to"), WAIT_S)
    await asyncio.to_thread(order, demo.ports["lantern-api"], "COLOR", "12ab34")
    await eventually(lambda: all_say("12ab34"), WAIT_S)
    server = demo.container("lantern-tlv")
    await asyncio.to_thread(server.stop, timeout=10)
    await eventually(lambda: all_say("the server closed the connection"), WAIT_S)
    await asyncio.to_thread(server.start)
    await eventually(lambda: all_say("connected to", 2), WAIT_S)
    await eventually(lambda: all_say("12ab34", 2), WAIT_S)
    await asyncio.to_thread(demo.healthy)


async def test_four_replicas_share_the_jobs_and_one_that_dies_loses_none(system: System) -> None:
    await start(system, "scale", *REPLICAS)
    try:
        await asyncio.to_thread(system.healthy)
        load = Load(system, "shared")
        async with load.running():
            for one in REPLICAS:
                await asyncio.to_thread(system.crash, one)
        await load.all_kept()
    finally:
        await stop(system, *REPLICAS)
