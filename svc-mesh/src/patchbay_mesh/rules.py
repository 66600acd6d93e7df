"""What is known of a node, and how it changes: pure, with no I/O and no clock of its own.

data, message, network  ->  heard: the node is active
silence, a restarted root  ->  left
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct

from patchbay.messages import parse_time
from patchbay_mesh.data_types import DATA_TYPES, readings
from patchbay_mesh.messages import (
    Joined,
    Latest,
    Left,
    Position,
    Rejected,
    State,
    Value,
    from_hex,
    type_bytes,
)

ACTIVE: Final = "active"
AWAY: Final = "away"
SILENT: Final = "silent"
ROOT_RESTARTED: Final = "root_restarted"

VALUE_BYTES: Final = 260
"""What a latest value takes beside its own bytes, in CPython 3.11."""

ESTABLISHED: Final = timedelta(hours=24)
"""A node that has reported for so long is one of the mesh: it never makes room for another."""


class Kept(Struct):
    """The latest value of a type: its bytes, and when they were captured."""

    type: str
    data: bytes
    time: str


class Node(Struct):
    """A node. ``values`` stand in the order of their types' last reports."""

    node: int
    uuid: str | None = None
    active: bool = False
    since: str = ""
    """When it was first heard; empty in documents of before."""
    last_contact: str = ""
    readings: int = 0
    messages: int = 0
    values: list[Kept] = []


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an event for everybody."""

    name: str
    data: Joined | Left


def heard(node: Node, time: str) -> list[Publish]:
    """The node has said something, or the root has said that it is there. ``time`` is RFC 3339."""
    if not node.since:
        node.since = node.last_contact or time
    if time > node.last_contact:
        node.last_contact = time
    if node.active:
        return []
    node.active = True
    return [Publish("joined", Joined(node.node))]


def size(node: Node) -> int:
    """Bytes that its values take in memory, as far as we can tell."""
    return sum(VALUE_BYTES + len(one.data) for one in node.values)


def shrink(node: Node, bytes: int) -> None:
    """Forget the values that were reported longest ago, until the others take no more than this; of
    one type the value stays."""
    excess = size(node) - bytes
    for old in sorted(node.values, key=lambda one: one.time)[:-1]:
        if excess <= 0:
            break
        node.values.remove(old)
        excess -= VALUE_BYTES + len(old.data)


def established(node: Node) -> bool:
    """Has it reported for a day, from its first report to its last?"""
    if not node.since or not node.last_contact:
        return False
    return parse_time(node.last_contact) - parse_time(node.since) >= ESTABLISHED


def report(node: Node, values: Iterable[Value], time: str, max_types: int) -> list[Publish]:
    """The node has reported these values."""
    latest = node.values
    for value in values:
        node.readings += 1
        for kept in latest:
            if kept.type == value.type:
                kept.data, kept.time = value.data, time
                break
        else:
            latest.append(Kept(value.type, value.data, time))
            if len(latest) > max_types:
                latest.remove(min(latest, key=lambda one: one.time))
    return heard(node, time)


def message(node: Node, time: str) -> list[Publish]:
    """The node has said something that is not for us."""
    node.messages += 1
    return heard(node, time)


def left(node: Node, reason: str) -> list[Publish]:
    """The node is away: it was silent for too long, or its root has restarted."""
    if not node.active:
        return []
    node.active = False
    return [Publish("left", Left(node.node, reason, node.last_contact))]


def updated(node: Node, type: str, hex: str, time: str, max_types: int) -> bytes:
    """Somebody puts a value in the place of a node's: no word of the node itself.

    Returns its bytes. Raises Rejected: bad_hex, bad_type, too_long, bad_length.
    """
    data = from_hex(hex)
    try:
        type_bytes(type)
    except UnicodeEncodeError as error:
        raise Rejected("bad_type", f"{type!r} is no type of three bytes") from error
    if len(data) > 255:
        raise Rejected("too_long", f"{len(data)} bytes: a value has at most 255")
    known = DATA_TYPES.get(type)
    if known is not None and len(data) not in known.lengths:
        accepted = " or ".join(map(str, known.lengths))
        raise Rejected("bad_length", f"{len(data)} bytes: {type} has {accepted}")
    contact, active = node.last_contact, node.active
    report(node, [Value(type, data)], time, max_types)
    node.last_contact, node.active = contact, active
    return data


def state(node: Node) -> State:
    """A node as everybody may see it."""
    shown: dict[str, Any] = {}
    for kept in node.values:
        shown.update(readings(kept.type, kept.data))
    return State(
        node=node.node,
        uuid=node.uuid,
        status=ACTIVE if node.active else AWAY,
        last_contact=node.last_contact,
        readings=node.readings,
        messages=node.messages,
        values={kept.type: Latest(kept.data.hex(), kept.time) for kept in node.values},
        gps=msgspec.convert(shown.pop("gps"), Position) if "gps" in shown else None,
        read=shown,
    )
