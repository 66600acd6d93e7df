"""Hostile input for every service, as data: what a peer may publish, and send to a device port.

Another service adds its own with one more entry in `INPUTS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from patchbay.messages import EVENT_MSGPACK

SOURCE: Final = "hostile-source"
CONTROL: Final = chr(1)

EVENTS: Final = {
    "allocator": ("x", "requested"),
    "bartender": ("bar-pumps", "started"),
    "locker": ("z", "report"),
    "mesh": ("node-5", "data"),
}
"""The device and the name of an event that each domain takes from its edges."""

COMMANDS: Final = {
    "allocator": ("queue", ("submit", "assign", "cancel", "delete", "recolor", "retry", "list")),
    "bartender": ("bar", ("configure", "history", "state")),
    "lantern": ("all", ("history", "state")),
    "locker": ("demo-1", ("assign", "revoke", "extend", "rentals", "accesses", "boards")),
    "mesh": ("nodes", ("history", "list")),
}
"""Commands that move nothing, so that they may be given at random."""


@dataclass(frozen=True)
class Message:
    """A message to publish."""

    topic: str
    payload: bytes
    content_type: str = ""


@dataclass(frozen=True)
class Frame:
    """Bytes for a device port: the name of its setting, as ``<service>.<key>``."""

    port: str
    data: bytes


@dataclass(frozen=True)
class Input:
    """Something hostile. ``service`` is the one that it is meant for."""

    name: str
    service: str
    parts: tuple[Message | Frame, ...]


def envelope(service: str, **fields: Any) -> dict[str, Any]:
    """A CloudEvent for a service's domain."""
    device, name = EVENTS[service]
    return {
        "specversion": "1.0",
        "id": "hostile",
        "source": SOURCE,
        "type": f"patchbay.{service}.{name}",
        "subject": device,
        "time": "2026-11-20T14:04:49.566Z",
        "data": {},
        **fields,
    }


ENVELOPES: Final[dict[str, dict[str, Any]]] = {
    "source with wildcards": {"source": "a/+/#", "sequence": 1, "epoch": "e"},
    "source with NUL": {"source": "a\0b", "sequence": 5, "epoch": "e"},
    "source of an operator": {"source": "$where", "sequence": 1, "epoch": "e"},
    "endless source": {"source": "s" * 100_000, "sequence": 1, "epoch": "e"},
    "epoch of control characters": {"sequence": 9, "epoch": CONTROL * 30_000},
    "sequence above 2^64": {"sequence": 2**70, "epoch": "e"},
    "sequence below 0": {"sequence": -(2**63), "epoch": "e"},
    "endless id": {"id": "x" * 100_000},
    "endless subject": {"subject": "x" * 100_000},
    "time out of range": {"time": "0001-01-01T00:00:00+23:59", "sequence": 1, "epoch": "t"},
    "no time": {"time": "garbage", "sequence": 1, "epoch": "g"},
    "data of another kind": {"data": [1, None, {"$gt": 0}], "sequence": 1, "epoch": "d"},
    "no data": {"data": None, "sequence": 1, "epoch": "n"},
    "another type": {"type": "patchbay.x.y.z", "sequence": 1, "epoch": "y"},
}

DATA: Final[dict[str, bytes]] = {
    "text that is not UTF-8": b"\x82\xa4node\x05\xa6val\xff\xff\xff\x90",
    "an extension type": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "keys that are no texts": msgpack.packb({1: 2, b"k": 3}),
    "nested deep": b"\x91" * 900 + b"\xc0",
}

PAYLOADS: Final[dict[str, bytes]] = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00garbage",
    "brackets": b"[" * 50_000,
    "a number": b"1e999",
    "a list": b"[[], null, 7]",
    "a rev above all": b'{"rev":1e999,"sequence":"x"}',
}

BODIES: Final[dict[str, Any]] = {
    "numbers above 2^63": {
        "skip": 2**63,
        "limit": 2**70,
        "cell": 2**63,
        "minutes": 2**70,
        "device": 2**63,
        "node": 2**70,
        "pump": 2**70,
    },
    "skip of 2^63": {"skip": 2**63},
    "skip of 2^53": {"skip": 2**53},
    "skip of 2^70": {"skip": 2**70},
    "skip below 0": {"skip": -1},
    "operators": {"job": {"$gt": ""}, "cell": {"$gt": 0}, "node": {"$gt": 0}, "type": {"$ne": 1}},
    "texts without end": {
        "job": "x" * 50_000,
        "holder": "x" * 50_000,
        "ClientName": "x" * 50_000,
        "CustomerName": "a\0b",
        "ColorCode": "0" * 50_000,
    },
    "a long holder": {"cell": "auto", "minutes": 5, "holder": "x" * 200_000},
    "an endless id": {"specversion": "1.0", "id": "q" * 200_000, "source": "s", "data": {}},
    "no object": [1, 2, 3],
}


def _events() -> Iterator[Input]:
    for service, (device, name) in EVENTS.items():
        topic = f"patchbay/{service}/{device}/event/{name}"
        batch = f"patchbay/{service}/{SOURCE}/event/batch"
        for what, fields in ENVELOPES.items():
            payload = json.dumps(envelope(service, **fields)).encode()
            parts = (Message(topic, payload), Message(batch, b"[" + payload + b"]"))
            yield Input(f"event: {what}", service, parts)
        for what, data in DATA.items():
            head = msgpack.packb(envelope(service, data=None))
            packed = head.replace(b"\xa4data\xc0", b"\xa4data" + data)
            yield Input(f"data: {what}", service, (Message(topic, packed, EVENT_MSGPACK),))
        for what, payload in PAYLOADS.items():
            topics = (topic, batch, f"patchbay/dead/{service}")
            parts = tuple(Message(one, payload) for one in topics)
            yield Input(f"payload: {what}", service, parts)


def _commands() -> Iterator[Input]:
    for service, (device, names) in COMMANDS.items():
        for what, body in BODIES.items():
            payload = json.dumps(body).encode()
            topics = (f"patchbay/{service}/{device}/cmd/{name}" for name in names)
            parts = tuple(Message(topic, payload) for topic in topics)
            yield Input(f"command: {what}", service, parts)


def _locker() -> Iterator[Input]:
    topic = "patchbay/locker/z/event/report"
    for what, report in {
        "endless board": {"board": "a" * 70_000, "boot": 1, "send": 1},
        "rev above all": {"board": "demo-1", "boot": 1, "send": 1, "rev": 2**63 - 1},
        "numbers above all": {"board": "z", "boot": 2**70, "send": 2**63},
        "cells without end": {"board": "z", "boot": 1, "send": 1, "cols": 2**31, "rows": 2**31},
    }.items():
        yield Input(f"report: {what}", "locker", (Message(topic, json.dumps(report).encode()),))
    desired = {"rev": 2**63 - 1, "board": "forged", "rentals": []}
    forged = Message("patchbay/locker/forged/desired", json.dumps(desired).encode())
    yield Input("desired: rev above all", "locker", (forged,))
    for what, data in {
        "no end": b"ACon_V1.0\rID=" + b"9" * 70_000,
        "no board": b"ACon_V1.0\rCLOSE",
        "binary": bytes(range(256)) * 50,
    }.items():
        yield Input(f"port: {what}", "locker", (Frame("locker.port", data),))


def _allocator() -> Iterator[Input]:
    for what, data in {
        "empty objects": b"{}" * 20_000,
        "brackets": b"[" * 70_000,
        "half an object": b'{"ClientName": "a", "data": {',
        "no UTF-8": b'{"ClientName":"\xff","data":{"CustomerName":"\xed\xa0\xbd","ColorCode":"1"}}',
        "numbers without end": b'{"t":' + b"9" * 5_000 + b"}",
        "depth": b'{"a":' * 200,
    }.items():
        yield Input(f"port: {what}", "allocator", (Frame("allocator.port", data),))
    for what, state in {
        "a combinator's state": ("combinator-1/state", {"combinator": 2**70, "rev": 2**70}),
        "a combinator's answer": ("combinator-1/event/finished", {"combinator": 2**70}),
        "the queue's state": ("queue/state", {"waiting": 2**70}),
    }.items():
        topic, fields = state
        message = Message(f"patchbay/allocator/{topic}", json.dumps(fields).encode())
        yield Input(f"state: {what}", "allocator", (message,))


def _acknowledgements() -> Iterator[Input]:
    for what, ack in {
        "upto below 0": {"epoch": "x", "upto": -(2**63), "nak": True},
        "upto above all": {"epoch": "x", "upto": 2**70},
        "ranges from below": {"epoch": "x", "ranges": [[-(10**11), 0]]},
        "ranges without end": {"epoch": "x", "ranges": [[0, 2**53]]},
        "many ranges": {"epoch": "x", "ranges": [[n, n] for n in range(15_000)]},
    }.items():
        yield Input(f"ack: {what}", "", (Message("patchbay/ack/{edge}", json.dumps(ack).encode()),))


def _ports() -> Iterator[Input]:
    noise = bytes(range(256)) * 20
    for port in ("bartender.port", "lantern.port", "lantern.api_port", "lantern.page_port"):
        yield Input(f"port: noise on {port}", port.partition(".")[0], (Frame(port, noise),))
    yield Input("port: noise on mesh.port", "mesh", (Frame("mesh.port", noise),))


INPUTS: Final[tuple[Input, ...]] = (
    *_events(),
    *_commands(),
    *_locker(),
    *_allocator(),
    *_acknowledgements(),
    *_ports(),
)
