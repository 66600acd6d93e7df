"""What dashboards see: a snapshot when they connect, then what changes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from websockets.asyncio.client import connect

from patchbay.messages import encode
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


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_dashboards_that_never_read_share_a_bound_and_one_that_reads_sees_on(
    house: House,
) -> None:
    house.replace(buffers_bytes=300_000)
    await house.start()
    await house.start_monitor()
    loop = asyncio.get_running_loop()
    deaf = []
    for _ in range(5):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", house.monitor_port))
        await loop.sock_sendall(client, UPGRADE)
        deaf.append(client)
    monitor = house.monitor
    await until(lambda: len(monitor._clients) == 5)
    worst = 0
    async with dashboard(house) as board:
        await until(lambda: len(monitor._clients) == 6)
        for number in range(200):
            robots = [{"id": number, "text": "x" * 60_000}]
            topic = house.watcher.topics.state("mesh", "robots")
            await house.watcher.publish(topic, encode({"robots": robots}), retain=True)
            await until(lambda: RobotStatus(tuple(robots)) in board.seen[-3:])  # noqa: B023
            worst = max(worst, sum(one.waiting_bytes for one in monitor._clients))
            if monitor.crowded >= 2:
                break
        assert monitor.crowded >= 2
        assert 60_000 < worst <= 300_000 + 61_000
        await house.report(5, GPS)
        await until(lambda: board.nodes.get("Node-5") == "normal")
    for client in deaf:
        client.close()


async def test_a_state_of_robots_that_no_json_holds_ends_no_dashboard(house: House) -> None:
    await house.start()
    await house.start_monitor()
    topic = house.watcher.topics.state("mesh", "robots")
    await house.watcher.publish(topic, b'{"robots": [{"id": 3}]}', retain=True)
    async with dashboard(house) as board:
        await until(lambda: RobotStatus(({"id": 3},)) in board.seen)
        deep = b'{"robots": [' + b"[" * 900 + b"]" * 900 + b"]}"
        await house.watcher.publish(topic, deep, retain=True)
        await house.report(5, GPS)
        await until(lambda: board.nodes.get("Node-5") == "normal")
    async with dashboard(house) as late:
        await until(lambda: late.nodes.get("Node-5") == "normal")
        assert house.monitor.server is not None
        assert house.monitor.server.crashes == 0
