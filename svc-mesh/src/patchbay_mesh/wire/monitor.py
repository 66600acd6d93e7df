"""What dashboards see: JSON messages over WebSocket, all of them from us.

    {"type": "trafficLog", "message": "..."}
    {"type": "networkStatus", "status": "connectionStatus", "socket": true, "uart": false}
    {"type": "networkStatus", "status": "nodeStatus", "nodes": [{"name": "Node-5",
        "status": "normal" | "error", "address": 5, "uuid": "0005",
        "gps": {"lat": 37.566, "lon": 126.978} | null, "last_contact": "..."}]}
    {"type": "networkStatus", "status": "robotStatus", "robots": [...]}

On connect a snapshot, then changes. That is v1. In v2 there is one message, on connect and after
each change, with the whole list:

    {"nodes": [{"address": 5, "status": "Active" | "Idle" | "Disconnect", "uuid": "0005",
        "gps": {"lat": 37.566, "lon": 126.978} | null, "data": {"475053": ["02f001be9200"]}}],
     "direct_forwarding_paths": []}

``data`` has the latest value of each type, as hex by the hex of the type. Source: the dashboard in
use, and the published code of its server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

MAX_MESSAGE: Final = 1_048_576
"""Bytes of one message: a thousand nodes are some 150 KB."""


class WireError(Exception):
    """This text is no message of ours. Close the connection."""


@dataclass(frozen=True, slots=True)
class Gps:
    """Where a node is, in degrees."""

    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as dashboards show it. ``uuid``: the address as four hex digits where unknown."""

    name: str
    status: Literal["normal", "error"]
    address: int
    uuid: str
    gps: Gps | None
    last_contact: str


@dataclass(frozen=True, slots=True)
class TrafficLog:
    """A line of the log."""

    message: str


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """Is the socket API there, and the root at its serial port?"""

    socket: bool
    uart: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Nodes: all of them in a snapshot, then those that have changed."""

    nodes: tuple[NodeView, ...]


@dataclass(frozen=True, slots=True)
class RobotStatus:
    """What robots have said of themselves, as they said it."""

    robots: tuple[Any, ...]


Shown: TypeAlias = TrafficLog | ConnectionStatus | NodeStatus | RobotStatus

NETWORK_STATUS: Final[dict[str, type[ConnectionStatus | NodeStatus | RobotStatus]]] = {
    "connectionStatus": ConnectionStatus,
    "nodeStatus": NodeStatus,
    "robotStatus": RobotStatus,
}
_names = {kind: name for name, kind in NETWORK_STATUS.items()}


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node in the list of v2. ``data``: the latest value of each type, all in hex."""

    address: int
    status: Literal["Active", "Idle", "Disconnect"]
    uuid: str
    gps: Gps | None
    data: dict[str, list[str]]


def encode_list(nodes: Iterable[NodeEntry]) -> str:
    """The message of v2. Routes are not known here: they go to who listens at the socket API."""
    return msgspec.json.encode({"nodes": list(nodes), "direct_forwarding_paths": []}).decode()


def encode(shown: Shown) -> str:
    """A message as text."""
    fields: dict[str, Any] = msgspec.to_builtins(shown)
    if isinstance(shown, TrafficLog):
        head = {"type": "trafficLog"}
    else:
        head = {"type": "networkStatus", "status": _names[type(shown)]}
    return msgspec.json.encode({**head, **fields}).decode()


class Decoder:
    """Text messages in, what they show out: for who looks at a monitor."""

    def feed(self, data: str | bytes) -> list[Shown]:
        """The message of one text. Raises WireError."""
        if len(data) > MAX_MESSAGE:
            raise WireError(f"a message of {len(data)}: at most {MAX_MESSAGE}")
        try:
            return [_read(msgspec.json.decode(data))]
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise WireError(f"no message: {error}") from error


def _read(fields: Any) -> Shown:
    match fields:
        case {"type": "trafficLog", **rest}:
            return msgspec.convert(rest, TrafficLog)
        case {"type": "networkStatus", "status": str(status), **rest} if status in NETWORK_STATUS:
            return msgspec.convert(rest, NETWORK_STATUS[status])
    raise WireError("neither a trafficLog nor a networkStatus that we know")
