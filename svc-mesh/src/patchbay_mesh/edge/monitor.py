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
        limits=Limits(max_connections=settings.max_connections),
        log=unit.log,
    )
    monitor.server = server
    async with server:
        unit.info_sources["connections"] = lambda: server.connections
        unit.info_sources["dropped"] = lambda: server.dropped
        unit.info_sources["nodes"] = lambda: len(monitor.nodes)
        unit.spawn(monitor.count_lines(), "lines")
        await unit.serving()


class Watching:
    """One dashboard. What it says means nothing to us."""

    def received(self, message: str | bytes) -> None:
        """Dashboards only look."""

    def lost(self) -> None:
        """Nothing is owed to who has gone."""


class Monitor:
    """Follows the bus and tells all dashboards."""

    def __init__(self, bus: Bus, settings: MeshSettings) -> None:
        self.server: WebSocketServer | None = None
        self.nodes: dict[int, wire.NodeView] = {}
        self.connection = wire.ConnectionStatus(socket=False, uart=False)
        self.robots = wire.RobotStatus(())
        self._bus = bus
        self._lines_allowed = settings.traffic_lines_per_s
        self._lines = self._not_shown = 0
        self._apis: dict[str, bool] = {}
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
        nodes = tuple(view for _, view in sorted(self.nodes.items()))
        for shown in (self.connection, wire.NodeStatus(nodes), self.robots):
            client.send(wire.encode(shown))
        return Watching()

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
        if instance.startswith(API_PREFIX):
            self._apis[instance] = message.payload == b"online"
            self._connection(socket=any(self._apis.values()), uart=self.connection.uart)

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
                self.robots = wire.RobotStatus(tuple(robots))
                self._show(self.robots)
            elif (node := node_address(address.device)) is not None:
                self._node(node, decode(_state, message.payload) if message.payload else None)
        except msgspec.DecodeError as error:
            self._misunderstood(message, error)

    def _node(self, address: int, state: State | None) -> None:
        if state is None:
            self.nodes.pop(address, None)
            return
        view = _view(state)
        if self.nodes.get(address) != view:
            self.nodes[address] = view
            self._show(wire.NodeStatus((view,)))

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
        self._show(wire.TrafficLog(_text(event)))

    def _show(self, shown: wire.Shown) -> None:
        if self.server is not None and self.server.connections:
            self.server.broadcast(wire.encode(shown))

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
            return f"Node-{message.node} {message.type}: {_shown(content)}"
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
