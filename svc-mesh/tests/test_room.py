"""Nodes that are forgotten: by command, to make room, and after a long time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchbay.bus import Message
from patchbay.messages import now, rfc3339
from patchbay.store import Document
from patchbay.testing import MakeBus, eventually, until
from patchbay_mesh.simulator import uuid_of
from patchbay_mesh.store import MESSAGES, READINGS, reading
from patchbay_mesh.wire.content import Value, network_frame
from patchbay_mesh.wire.uart import encode

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")


async def invent(house: House, *nodes: int) -> None:
    """The root names these nodes, and the domain has taken it in."""
    for start in range(0, len(nodes), 200):
        some = [(node, uuid_of(node)) for node in nodes[start : start + 200]]
        taken = house.domain.inbox.taken
        await house.root.send(encode(network_frame(0, some)))
        await until(lambda: house.domain.inbox.taken > taken)  # noqa: B023


async def silence(house: House) -> None:
    """Everybody is away."""
    house.clock.now += 61
    await house.domain.tick()


def known(house: House) -> set[int]:
    return {one.state.node for one in house.domain.kept.nodes}


async def retained(house: House, make_bus: MakeBus) -> set[str]:
    """The devices of which the broker holds a retained topic."""
    bus = make_bus("late")
    found: set[str] = set()
    ended = asyncio.Event()

    def heard(message: Message) -> None:
        message.ack()
        if message.retain and message.payload:
            found.add(message.topic.split("/")[2])

    def last(message: Message) -> None:
        message.ack()
        ended.set()

    bus.listen("patchbay/mesh/+/state", heard)
    bus.listen("patchbay/mesh/+/status", heard)
    bus.listen("patchbay/end", last)
    bus.start()
    await bus.wait_connected(10)
    await bus.publish("patchbay/end", b"end")
    await asyncio.wait_for(ended.wait(), 10)
    await bus.stop()
    return found


def stored(node: int) -> Document:
    """A node's document, as version 0.1.0 writes it."""
    return {
        "_id": f"node-{node}",
        "v": 1,
        "applied": {},
        "outgoing": "",
        "done": [],
        "node": node,
        "uuid": None,
        "active": False,
        "last_contact": rfc3339(now() - timedelta(days=1)),
        "readings": 1,
        "messages": 0,
        "values": [],
    }


async def test_a_node_that_is_forgotten_leaves_nothing_and_comes_back_as_new(
    house: House, make_bus: MakeBus
) -> None:
    await house.start()
    await house.report(5)
    await house.report(6)
    await until(lambda: house.statuses.get("node-6") == "online" and 5 in house.api.cache.nodes)
    answer = await house.ask("node-5", "forget")
    assert answer == {"ok": True, "node": 5, "known": True, "readings": 0, "messages": 0}
    await until(lambda: 5 not in house.api.cache.nodes)
    assert await house.call(b"[GET]GPS\x00\x05") == b"F\x0eNode Not Found"
    assert await retained(house, make_bus) == {"node-6", "root"}
    assert await house.store.count("nodes", {"_id": "node-5"}) == 0
    assert await house.store.count(READINGS, {"node": 5}) == 1
    assert await house.refusal("node-5", "show") == "unknown_node"
    await house.report(5)
    await until(lambda: house.states.get("node-5", {}).get("readings") == 1)
    assert house.named("joined") == [{"node": 5}, {"node": 6}, {"node": 5}]


async def test_what_a_node_has_reported_is_removed_by_choice_and_of_no_other(house: House) -> None:
    await house.start()
    await house.report(5)
    await house.report(6)
    await house.root.say(5, b"hello")
    await house.documents(MESSAGES, 1)
    old = [
        reading(f"old-{days}", 0, node, "GPS", now() - timedelta(days=days), GPS)
        for days in (1, 5, 29)
        for node in (5, 6)
    ]
    for one in old:
        one["_id"] += f"/{one['node']}"
    await house.store.insert_new(READINGS, old)
    answer = await house.ask("node-5", "forget", documents="remove")
    assert answer == {"ok": True, "node": 5, "known": True, "readings": 4, "messages": 1}
    assert await house.store.count(READINGS, {"node": 5}) == 0
    assert await house.store.count(READINGS, {"node": 6}) == 4
    assert (await house.ask("node-5", "forget"))["known"] is False


async def test_a_long_history_is_removed_a_piece_at_a_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay_mesh.desk.LOOK_S", 0.0)
    monkeypatch.setattr("patchbay_mesh.store.FIRST_LOOK", timedelta(days=6))
    await house.start()
    await house.report(5)
    await house.store.insert_new(
        READINGS,
        [
            reading(f"old-{hours}", 0, 5, "GPS", now() - timedelta(hours=hours), GPS)
            for hours in range(1, 601, 6)
        ],
    )
    removed = pieces = 0
    body = {"documents": "remove"}
    for _ in range(30):
        answer = await house.ask("node-5", "forget", **body)
        removed += answer["readings"]
        pieces += 1
        if "to" not in answer:
            break
        body["to"] = answer["to"]
    assert (removed, await house.store.count(READINGS, {})) == (101, 0)
    assert pieces >= 3


async def test_only_nodes_can_be_forgotten(house: House) -> None:
    await house.start()
    assert await house.refusal("nodes", "forget") == "unknown_node"
    assert await house.refusal("node-5", "forget", documents="some") == "bad_request"
    assert await house.refusal("node-5", "forget", documents="remove", to="x") == "bad_request"


async def test_invented_nodes_make_room_for_each_other_and_none_takes_the_place_of_an_active_one(
    house: House, make_bus: MakeBus
) -> None:
    house.replace(max_nodes=300)
    await house.start()
    await house.start_monitor()
    await invent(house, *range(1000, 1250))
    await silence(house)
    await house.report(5)
    await until(lambda: house.statuses.get("node-5") == "online")
    await invent(house, *range(2000, 2250))
    assert len(known(house)) == 300
    assert {5, *range(2000, 2250)} <= known(house)
    await invent(house, *range(3000, 3250))  # all are active now but for a few
    assert len(known(house)) == 300
    assert {5, *range(2000, 2250)} <= known(house)
    assert house.domain.room.refused == 201
    await house.report(77)
    assert 77 not in known(house)
    assert await house.store.count(READINGS, {"node": 77}) == 0
    await until(lambda: len(house.monitor.nodes) == 300)
    assert len(house.api.cache.nodes) <= 300
    assert await house.call(b"[GET]GPS\x00\x05") == b"SGPS\x06\x01\x00\x05" + GPS

    async def only_the_known() -> bool:
        return await retained(house, make_bus) == {
            "root",
            *(f"node-{node}" for node in known(house)),
        }

    await eventually(only_the_known)
    assert await house.store.count("nodes", {}) == 300


async def test_a_node_that_was_known_for_a_day_makes_no_room(house: House) -> None:
    house.replace(max_nodes=3)
    await house.start()
    await house.report(5)
    node = house.domain.kept.nodes.get("node-5")
    assert node is not None
    node.state.since = rfc3339(now() - timedelta(hours=25))
    await house.report(5)
    await invent(house, 10)
    await silence(house)
    await invent(house, 11, 12)
    assert known(house) == {5, 11, 12}


async def test_a_node_that_was_away_for_long_is_forgotten(house: House) -> None:
    house.replace(nodes_ttl_s=3600)
    await house.start()
    await house.store.insert_new("nodes", [stored(9)])
    await house.report(5)
    await house.stop("domain")
    await house.start_domain()
    await until(lambda: known(house) == {5})
    await until(lambda: "node-9" not in house.states or not house.states["node-9"])


async def test_more_nodes_than_there_is_room_for_are_read_in_pages_and_forgotten_a_piece_at_a_time(
    house: House, make_bus: MakeBus, tmp_path: Path
) -> None:
    house.replace(max_nodes=50)
    await house.watch()
    await house.store.insert_new("nodes", [stored(node) for node in range(1000, 2200)])
    late = make_bus("before")
    late.start()
    await late.wait_connected(10)
    for node in range(1000, 1020):
        await late.publish(f"patchbay/mesh/node-{node}/status", b"offline", retain=True)
    house.root.plug()
    await house.start_domain()
    assert len(known(house)) == 50
    await house.start_uart()
    await until(lambda: house.uart.ready)
    gone = next(iter(house.domain.room._trimmed))
    await invent(house, int(gone.removeprefix("node-")))
    assert int(gone.removeprefix("node-")) in known(house)

    async def as_many() -> bool:
        return await house.store.count("nodes", {}) == len(known(house)) <= 50

    await eventually(as_many)
    await late.stop()
    assert await retained(house, make_bus) == {
        "root",
        *(f"node-{node}" for node in known(house)),
    }


async def test_a_node_with_ever_new_types_leaves_the_values_of_others_alone(house: House) -> None:
    house.replace(values_bytes=10 * 300, max_nodes=10, max_types=64)
    await house.start()
    await house.report(5)
    for number in range(20):
        await house.root.report(6, Value(b"T" + number.to_bytes(2, "big"), bytes(100)))
    await house.documents(READINGS, 21)
    await house.report(5, b"\x01", b"CNT")
    await until(lambda: house.latest("node-5", "CNT") == "01")
    assert house.latest("node-5", "GPS") == GPS.hex()
    node = house.domain.kept.nodes.get("node-6")
    assert node is not None
    assert 1 <= len(node.state.values) < 10
