"""What dashboards see: a snapshot when they connect, then what changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from websockets.asyncio.client import connect

from patchbay.testing import until
from patchbay_mesh.simulator import uuid_of
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.monitor import (
    ConnectionStatus,
    Decoder,
    Gps,
    NodeStatus,
    RobotStatus,
    Shown,
    TrafficLog,
)

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")
Kind = TypeVar("Kind", TrafficLog, ConnectionStatus, NodeStatus, RobotStatus)


class Dashboard:
    """All that one dashboard has seen."""

    def __init__(self) -> None:
        self.seen: list[Shown] = []

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [one for one in self.seen if isinstance(one, kind)]

    @property
    def nodes(self) -> dict[str, str]:
        """The status of each node, as shown last."""
        return {view.name: view.status for one in self.of(NodeStatus) for view in one.nodes}

    @property
    def lines(self) -> list[str]:
        return [one.message for one in self.of(TrafficLog)]


@asynccontextmanager
async def dashboard(house: House) -> AsyncIterator[Dashboard]:
    async with connect(f"ws://127.0.0.1:{house.monitor_port}/", proxy=None) as connection:
        board = Dashboard()
        decoder = Decoder()

        async def read() -> None:
            async for message in connection:
                board.seen += decoder.feed(message)

        reading = asyncio.create_task(read())
        yield board
        reading.cancel()


async def test_a_dashboard_gets_a_snapshot_and_then_what_changes(house: House) -> None:
    await house.start()
    await house.start_monitor()
    await house.report(5, GPS)
    await until(lambda: 5 in house.monitor.nodes)
    async with dashboard(house) as board:
        await until(lambda: len(board.seen) >= 3)
        connection, nodes, robots = board.seen[:3]
        assert connection == ConnectionStatus(socket=True, uart=True)
        assert robots == RobotStatus(())
        assert isinstance(nodes, NodeStatus)
        (view,) = nodes.nodes
        assert (view.name, view.status, view.address) == ("Node-5", "normal", 5)
        assert (view.uuid, view.gps) == ("0005", Gps(37.566, 126.978))
        await house.root.join(6)
        await until(lambda: board.nodes.get("Node-6") == "normal")
        changed = board.of(NodeStatus)[-1]
        assert [one.name for one in changed.nodes] == ["Node-6"]
        assert changed.nodes[0].uuid == uuid_of(6).hex()


async def test_it_sees_nodes_leave_and_come_back_and_a_root_that_restarts(house: House) -> None:
    await house.start()
    await house.start_monitor()
    async with dashboard(house) as board:
        await house.report(5, GPS)
        await until(lambda: board.nodes.get("Node-5") == "normal")
        house.clock.now += 61
        await until(lambda: board.nodes["Node-5"] == "error")
        await until(lambda: "Node-5 has left: silent" in board.lines)
        await house.report(5, GPS)
        await until(lambda: board.nodes["Node-5"] == "normal")
        await house.root.restart()
        await until(lambda: board.nodes["Node-5"] == "error")
        await until(lambda: "Node-5 has left: root_restarted" in board.lines)


async def test_it_sees_the_port_and_the_socket_api_come_and_go(house: House) -> None:
    await house.start()
    await house.start_monitor()
    async with dashboard(house) as board:
        await until(lambda: house.monitor.connection == ConnectionStatus(socket=True, uart=True))
        house.root.unplug()
        await until(lambda: ConnectionStatus(socket=True, uart=False) in board.seen)
        house.root.plug()
        await until(lambda: board.seen[-1] == ConnectionStatus(socket=True, uart=True))
        await house.stop("api")
        await until(lambda: ConnectionStatus(socket=False, uart=True) in board.seen)


async def test_it_sees_the_traffic_and_what_clients_want_it_to_see(house: House) -> None:
    await house.start()
    await house.start_monitor()
    async with dashboard(house) as board:
        await until(lambda: len(board.seen) >= 3)
        await house.root.report(5, Value(b"GPS", GPS))
        await house.root.say(5, b"hello")
        await house.root.say(5, b"\xff\x00")
        await house.root.join(6)
        await house.call(b"W-LOGrobot 3 is stuck")
        await house.call(b'W-RBT[{"id": 3}]')
        wanted = {
            "Node-5: GPS 02f001be9200",
            "Node-5 [M]: hello",
            "Node-5 [M]: ff00",
            "The root says: in the mesh are Node-6",
            "Node-5 has joined",
            "robot 3 is stuck",
        }
        await until(lambda: wanted <= set(board.lines))
        await until(lambda: RobotStatus(({"id": 3},)) in board.seen)
    async with dashboard(house) as late:
        await until(lambda: RobotStatus(({"id": 3},)) in late.seen)


async def test_more_lines_than_anybody_reads_are_counted(house: House) -> None:
    house.replace(traffic_lines_per_s=10)
    await house.start()
    await house.start_monitor()
    async with dashboard(house) as board:
        await until(lambda: len(board.seen) >= 3)
        for number in range(200):
            await house.root.report(5, Value(b"CNT", bytes([number])))
        await until(lambda: any(line.startswith("... and ") for line in board.lines))
        assert len([line for line in board.lines if "CNT" in line]) < 200


async def test_a_monitor_that_starts_later_knows_what_is(house: House) -> None:
    await house.start()
    await house.report(5, GPS)
    await until(lambda: "node-5" in house.states)
    await house.start_monitor()
    async with dashboard(house) as board:
        await until(lambda: board.nodes.get("Node-5") == "normal")
        await until(lambda: house.monitor.connection == ConnectionStatus(socket=True, uart=True))
