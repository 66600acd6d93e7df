"""The monitor's messages, as the dashboard in use reads them."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay_mesh.wire.monitor import (
    MAX_MESSAGE,
    ConnectionStatus,
    Decoder,
    Gps,
    NodeStatus,
    NodeView,
    RobotStatus,
    Shown,
    TrafficLog,
    WireError,
    encode,
)

NODE = NodeView("Node-5", "normal", 5, "0005", Gps(37.566, 126.978), "2026-01-02T03:04:05.678Z")
LOST = NodeView("Node-6", "error", 6, "ab" * 16, None, "2026-01-02T03:04:05.678Z")
VECTORS: list[tuple[Shown, object]] = [
    (TrafficLog("Node-5: hello"), {"type": "trafficLog", "message": "Node-5: hello"}),
    (
        ConnectionStatus(socket=True, uart=False),
        {
            "type": "networkStatus",
            "status": "connectionStatus",
            "socket": True,
            "uart": False,
        },
    ),
    (
        NodeStatus((NODE, LOST)),
        {
            "type": "networkStatus",
            "status": "nodeStatus",
            "nodes": [
                {
                    "name": "Node-5",
                    "status": "normal",
                    "address": 5,
                    "uuid": "0005",
                    "gps": {"lat": 37.566, "lon": 126.978},
                    "last_contact": "2026-01-02T03:04:05.678Z",
                },
                {
                    "name": "Node-6",
                    "status": "error",
                    "address": 6,
                    "uuid": "ab" * 16,
                    "gps": None,
                    "last_contact": "2026-01-02T03:04:05.678Z",
                },
            ],
        },
    ),
    (
        RobotStatus(({"id": 3},)),
        {"type": "networkStatus", "status": "robotStatus", "robots": [{"id": 3}]},
    ),
]


@pytest.mark.parametrize(("shown", "fields"), VECTORS)
def test_a_message_is_written_and_read(shown: Shown, fields: object) -> None:
    text = encode(shown)
    assert json.loads(text) == fields
    assert Decoder().feed(text) == [shown]
    assert Decoder().feed(text.encode()) == [shown]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "7",
        '{"type": "other"}',
        '{"type": "trafficLog"}',
        '{"type": "networkStatus", "status": "other"}',
        '{"type": "networkStatus", "status": "connectionStatus", "socket": 1, "uart": true}',
        "[" * 10_000,
        b"\xff\xfe",
        "x" * (MAX_MESSAGE + 1),
    ],
)
def test_what_is_no_message_is_refused(text: str | bytes) -> None:
    with pytest.raises(WireError):
        Decoder().feed(text)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_a_message_or_refused(text: str | bytes) -> None:
    shown: list[Shown] = []
    with contextlib.suppress(WireError):
        shown = Decoder().feed(text)
    assert len(shown) <= 1
