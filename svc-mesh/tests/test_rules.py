"""What is known of a node, and how it changes."""

from __future__ import annotations

import pytest

from patchbay_mesh.messages import (
    Joined,
    Left,
    Position,
    Rejected,
    Value,
    node_address,
    node_device,
    type_bytes,
    type_name,
)
from patchbay_mesh.rules import Node, Publish, heard, left, message, report, state, updated

EARLY = "2026-01-02T03:04:05.000Z"
LATER = "2026-01-02T03:04:06.000Z"


def test_a_first_word_joins_and_another_does_not() -> None:
    node = Node(5)
    assert report(node, [Value("CNT", b"\x01")], EARLY, 64) == [Publish("joined", Joined(5))]
    assert message(node, LATER) == []
    assert heard(node, EARLY) == []
    assert (node.last_contact, node.readings, node.messages) == (LATER, 1, 1)


def test_who_is_away_leaves_once_and_may_join_again() -> None:
    node = Node(5)
    heard(node, EARLY)
    assert left(node, "silent") == [Publish("left", Left(5, "silent", EARLY))]
    assert left(node, "silent") == []
    assert heard(node, LATER) == [Publish("joined", Joined(5))]


def test_types_can_be_mixed_and_the_last_of_each_is_known() -> None:
    node = Node(5)
    values = [Value("GPS", bytes.fromhex("02f001be9200")), Value("TMP", b"\x15")]
    report(node, values, EARLY, 64)
    report(node, [Value("TMP", b"\x16")], LATER, 64)
    shown = state(node)
    assert {type: (one.hex, one.time) for type, one in shown.values.items()} == {
        "GPS": ("02f001be9200", EARLY),
        "TMP": ("16", LATER),
    }
    assert shown.gps == Position(37.566, 126.978)
    assert (shown.status, shown.readings) == ("active", 3)


def test_of_too_many_types_the_one_reported_longest_ago_goes() -> None:
    node = Node(5)
    for number, type in enumerate(("AAA", "BBB", "AAA", "CCC")):
        report(node, [Value(type, b"x")], f"2026-01-02T03:04:0{number}.000Z", 2)
    assert [one.type for one in node.values] == ["AAA", "CCC"]


def test_an_update_is_a_value_and_no_word() -> None:
    node = Node(5)
    heard(node, EARLY)
    left(node, "silent")
    assert updated(node, "TMP", "15", LATER, 64) == b"\x15"
    assert (node.last_contact, node.active, node.readings) == (EARLY, False, 1)
    assert state(node).values["TMP"].time == LATER


@pytest.mark.parametrize(
    ("type", "hex", "code"),
    [
        ("TMP", "1", "bad_hex"),
        ("TMP", "00" * 256, "too_long"),
        ("GPS", "00", "bad_length"),
        ("日本語", "00", "bad_type"),
    ],
)
def test_an_update_that_makes_no_sense_changes_nothing(type: str, hex: str, code: str) -> None:
    node = Node(5)
    with pytest.raises(Rejected) as refused:
        updated(node, type, hex, EARLY, 64)
    assert refused.value.code == code
    assert node == Node(5)


@pytest.mark.parametrize("node", [0, 5, 0xFFFF])
def test_a_node_s_device_tells_its_address(node: int) -> None:
    assert node_address(node_device(node)) == node


@pytest.mark.parametrize("device", ["root", "nodes", "node-", "node-x", "node-65536", "node-05"])
def test_another_device_is_no_node(device: str) -> None:
    assert node_address(device) is None


def test_any_three_bytes_are_a_type() -> None:
    for byte in range(256):
        raw = bytes([byte, 0, 255])
        assert type_bytes(type_name(raw)) == raw
