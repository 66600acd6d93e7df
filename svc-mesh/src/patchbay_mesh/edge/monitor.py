"""The unit of the monitor: dashboards get a snapshot when they connect, and then what changes."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import msgspec
import structlog

from patchbay.bus import Bus
from patchbay.bus import Message as BusMessage
from patchbay.forms import DataReader, decode_events
from patchbay.messages import Event, decode
from patchbay.runtime import Unit
from patchbay.websocket import Client, Limits, WebSocketServer
from patchbay_mesh.edge.cache import ACTIVE, BATCH, Once
from patchbay_mesh.edge.node_list import NodeList
from patchbay_mesh.messages import (
    DATA,
    JOINED,
    LEFT,
    LOG,
    MESSAGE,
    MONITOR,
    NETWORK,
    ROBOTS,
    ROOT,
    SERVICE,
    Data,
    Joined,
    Left,
    Log,
    Message,
    Network,
    Robots,
    State,
    node_address,
    type_bytes,
)
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.wire import monitor as wire
from patchbay_mesh.wire.content import said

API_PREFIX: Final = f"{SERVICE}-api-"
LINE_PERIOD_S: Final = 1.0

LINE_CHARACTERS: Final = 1000
"""Of a line of the log: a message of a node has 255 bytes, in hex twice as many."""

MAX_APIS: Final = 16
"""Instances of the socket API of which it is known that they are there."""

_state = msgspec.json.Decoder(State)
_robots = msgspec.json.Decoder(Robots)
_data = DataReader(Data)
_message = DataReader(Message)
_network = DataReader(Network)
_joined = DataReader(Joined)
_left = DataReader(Left)
_log = DataReader(Log)


async def run(unit: Unit) -> None:
    """The unit ``mesh.monitor``."""
    settings = unit.settings(MeshSettings)
    monitor = Monitor(unit.bus, settings)
    server = WebSocketServer(
        monitor.connected,
        host=unit.listen_host,
        port=unit.config.port(settings.monitor_port),
        limits=Limits(
            max_connections=settings.max_connections,
        ),
        log=unit.log,
    )
    monitor.server = server
    async with server:
        unit.info_sources["connections"] = lambda: server.connections
        unit.info_sources["dropped"] = lambda: server.dropped
        unit.info_sources["nodes"] = lambda: len(monitor.nodes)
        unit.info_sources["crowded_out"] = lambda: monitor.crowded
        unit.info_sources["not_admitted"] = lambda: monitor.refused
        unit.spawn(monitor.count_lines(), "lines")
        if monitor.list is not None:
            unit.spawn(monitor.send_list(), "list")
        await unit.serving()


class Watching:
    """One dashboard. What it says means nothing to us."""

    def __init__(self, clients: set[Client], client: Client) -> None:
        self._clients = clients
        self._client = client
        clients.add(client)

    def received(self, message: str | bytes) -> None:
        """Dashboards only look."""

    def lost(self) -> None:
        self._clients.discard(self._client)


class Monitor:
    """Follows the bus and tells all dashboards."""

    def __init__(self, bus: Bus, settings: MeshSettings) -> None:
        self.server: WebSocketServer | None = None
        self.nodes: dict[int, wire.NodeView] = {}
        self.list: NodeList | None = None
        if settings.monitor_format == "v2":
            self.list = NodeList(settings, asyncio.get_running_loop().time)
        self.refused = 0
        """States of nodes that there was no room for."""
        self.connection = wire.ConnectionStatus(socket=False, uart=False)
        self._robots = wire.encode(wire.RobotStatus(()))
        self._bus = bus
        self._clients: set[Client] = set()
        self.crowded = 0
        """Dashboards that were dropped because too much waited for all together."""
        self._buffers_bytes = settings.buffers_bytes
        self._max_nodes = settings.max_nodes
        self._list_interval_s = settings.monitor_interval_s
        self._lines_allowed = settings.traffic_lines_per_s
        self._lines = self._not_shown = 0
        self._apis: set[str] = set()
        self._once = Once()
        self._structlog = structlog.get_logger("monitor").bind(instance=bus.client_id)
        topics = bus.topics
        bus.listen(topics.unit_status("+"), self._api_status)
        bus.listen(topics.status(SERVICE, ROOT), self._root_status)
        bus.listen(topics.state(SERVICE, "+"), self._stated)
        for name in (DATA, MESSAGE, BATCH, JOINED, LEFT):
            bus.listen(topics.event(SERVICE, "+", name), self._told)
        bus.listen(topics.event(SERVICE, ROOT, NETWORK), self._told)
        bus.listen(topics.event(SERVICE, MONITOR, LOG), self._told)

    def connected(self, client: Client) -> Watching:
        """A dashboard has connected: it gets a snapshot."""
        watching = Watching(self._clients, client)
        if self.list is not None:
            client.send(self.list.text())
        else:
            nodes = tuple(view for _, view in sorted(self.nodes.items()))
            client.send(wire.encode(self.connection))
            client.send(wire.encode(wire.NodeStatus(nodes)))
            client.send(self._robots)
        self._bound()
        return watching

    async def send_list(self) -> None:
        """Send the whole list whenever it has changed, not too often."""
        nodes = self.list
        while nodes is not None:
            await asyncio.sleep(self._list_interval_s)
            nodes.tick()
            if nodes.changed and self.server is not None:
                self.server.broadcast(nodes.text())
                self._bound()

    async def count_lines(self) -> None:
        """Say once a second how many lines were not shown."""
        while True:
            await asyncio.sleep(LINE_PERIOD_S)
            not_shown, self._lines, self._not_shown = self._not_shown, 0, 0
            if not_shown:
                self._show(wire.TrafficLog(f"... and {not_shown} more"))

    # What the bus says

    def _api_status(self, message: BusMessage) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if not instance.startswith(API_PREFIX):
            return
        if message.payload != b"online":
            self._apis.discard(instance)
        elif len(self._apis) < MAX_APIS:
            self._apis.add(instance)
        self._connection(socket=bool(self._apis), uart=self.connection.uart)

    def _root_status(self, message: BusMessage) -> None:
        message.ack()
        self._connection(socket=self.connection.socket, uart=message.payload == b"online")

    def _connection(self, *, socket: bool, uart: bool) -> None:
        status = wire.ConnectionStatus(socket, uart)
        if status != self.connection:
            self.connection = status
            self._show(status)

    def _stated(self, message: BusMessage) -> None:
        message.ack()
        address = self._bus.topics.address(message.topic)
        if address is None:
            return
        try:
            if address.device == ROBOTS:
                robots = decode(_robots, message.payload).robots if message.payload else []
                self._robots = wire.encode(wire.RobotStatus(tuple(robots)))
                self._send(self._robots)
            elif (node := node_address(address.device)) is not None:
                self._node(node, decode(_state, message.payload) if message.payload else None)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            self._misunderstood(message, error)

    def _node(self, address: int, state: State | None) -> None:
        if state is None:
            self._forget(address)
            return
        if address not in self.nodes and len(self.nodes) >= self._max_nodes:
            away = next((node for node, one in self.nodes.items() if one.status == "error"), None)
            if away is None:
                self.refused += 1
                return
            self._forget(away)
        view = _view(state)
        if self.list is not None:
            self.list.put(state, view)
        if self.nodes.get(address) != view:
            self.nodes[address] = view
            self._show(wire.NodeStatus((view,)))

    def _forget(self, node: int) -> None:
        self.nodes.pop(node, None)
        if self.list is not None:
            self.list.remove(node)

    def _told(self, message: BusMessage) -> None:
        message.ack()
        try:
            for event in decode_events(message.payload, message.content_type):
                if self._once.is_new(event):
                    self._line(event)
        except (msgspec.DecodeError, ValueError) as error:
            self._misunderstood(message, error)

    def _line(self, event: Event) -> None:
        """A line of the log, if there is room for one."""
        if self._lines >= self._lines_allowed:
            self._not_shown += 1
            return
        self._lines += 1
        self._show(wire.TrafficLog(_text(event)[:LINE_CHARACTERS]))

    def _show(self, shown: wire.Shown) -> None:
        if self.server is not None and self.server.connections and self.list is None:
            self._send(wire.encode(shown))

    def _send(self, text: str) -> None:
        """To all dashboards of v1: those of v2 read the list, and nothing else."""
        if self.server is not None and self.list is None:
            self.server.broadcast(text)
            self._bound()

    def _bound(self) -> None:
        """While too much waits for all dashboards together, drop the one that lets most wait."""
        waiting = {client: client.waiting_bytes for client in self._clients}
        total = sum(waiting.values())
        while total > self._buffers_bytes:
            worst = max(waiting, key=waiting.__getitem__)
            total -= waiting.pop(worst)
            self._clients.discard(worst)
            self.crowded += 1
            worst.abort()

    def _misunderstood(self, message: BusMessage, error: Exception) -> None:
        self._structlog.warning("not understood", topic=message.topic, error=str(error))


def _view(state: State) -> wire.NodeView:
    status: Literal["normal", "error"] = "normal" if state.status == ACTIVE else "error"
    gps = state.gps
    return wire.NodeView(
        name=f"Node-{state.node}",
        status=status,
        address=state.node,
        uuid=state.uuid or f"{state.node:04x}",
        gps=wire.Gps(gps.latitude, gps.longitude) if gps else None,
        last_contact=state.last_contact,
    )


def _text(event: Event) -> str:
    """An event as a line for people."""
    name = event.type.rpartition(".")[2]
    match name:
        case "data":
            data = _data.read(event)
            values = ", ".join(f"{one.type} {one.data.hex()}" for one in data.values)
            return f"Node-{data.node}: {values}"
        case "message":
            message = _message.read(event)
            content = said(type_bytes(message.type), message.payload)
            kind = _shown(type_bytes(message.type))
            return f"Node-{message.node} {kind}: {_shown(content)}"
        case "network":
            nodes = ", ".join(f"Node-{one.node}" for one in _network.read(event).nodes)
            return f"The root says: in the mesh are {nodes}"
        case "joined":
            return f"Node-{_joined.read(event).node} has joined"
        case "left":
            left = _left.read(event)
            return f"Node-{left.node} has left: {left.reason}"
        case "log":
            return _log.read(event).text
    return f"{event.subject}: {name}"


def _shown(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content.hex()
    return text if text.isprintable() else content.hex()
