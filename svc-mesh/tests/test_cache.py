"""What the socket API knows, of what the bus says and in which order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, cast

import pytest

from patchbay.bus import Bus
from patchbay.bus import Message as BusMessage
from patchbay.messages import encode, new_event
from patchbay.topics import Topics, matches
from patchbay_mesh.edge.cache import Cache
from patchbay_mesh.messages import Message


class Air:
    """A bus that says what the test says."""

    client_id = "mesh-api-test"
    topics = Topics()

    def __init__(self) -> None:
        self._ears: list[tuple[str, Callable[[BusMessage], None]]] = []

    def listen(self, pattern: str, callback: Callable[[BusMessage], None]) -> None:
        self._ears.append((pattern, callback))

    def say(self, topic: str, payload: bytes) -> None:
        for pattern, callback in self._ears:
            if matches(pattern, topic):
                callback(BusMessage(topic, payload))

    def event(self, device: str, name: str, time: str, data: dict[str, Any]) -> None:
        event = new_event(id="x", source="", type=f"patchbay.mesh.{name}", time=time, data=data)
        self.say(self.topics.event("mesh", device, name), event)

    def data(self, time: str, text: str, type: str = "GPS", node: int = 5) -> None:
        """A node reports; ``text`` is base64."""
        values = [{"type": type, "data": text}]
        self.event(f"node-{node}", "data", time, {"node": node, "values": values})

    def state(self, status: str, time: str, values: dict[str, str]) -> None:
        """The domain says of node 5: since when, and the hex of its values."""
        state = {
            "node": 5,
            "uuid": None,
            "status": status,
            "last_contact": time,
            "readings": 1,
            "messages": 0,
            "values": {type: {"hex": hex, "time": time} for type, hex in values.items()},
        }
        self.say(self.topics.state("mesh", "node-5"), encode(state))


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
def messages() -> list[Message]:
    return []


@pytest.fixture
def cache(air: Air, messages: list[Message]) -> Cache:
    return Cache(cast("Bus", air), messages.append, max_types=3)


def restart(air: Air, time: str) -> None:
    air.event("node-0", "message", time, {"node": 0, "type": "RST", "payload": ""})


def test_who_is_heard_in_the_millisecond_of_a_restart_is_active(cache: Cache, air: Air) -> None:
    restart(air, "12:00:00.001")
    air.state("active", "12:00:00.001", {})
    assert cache.active == 1


def test_who_was_heard_before_a_restart_only_is_not_active(cache: Cache, air: Air) -> None:
    restart(air, "12:00:00.002")
    air.state("active", "12:00:00.001", {})
    assert cache.active == 0


def test_what_a_node_says_counts_also_after_its_clock_was_set_back(cache: Cache, air: Air) -> None:
    air.data("12:00", "AQ==")
    restart(air, "12:00")
    air.data("11:00", "Ag==")
    assert cache.latest(5, b"GPS") == b"\x02"
    assert cache.active == 1
    restart(air, "11:01")
    air.state("active", "11:02", {})
    assert cache.active == 1


def test_a_state_counts_where_it_is_as_new(cache: Cache, air: Air) -> None:
    air.data("12:00", "AQ==")
    air.state("active", "11:00", {"GPS": "ff", "TMP": "15"})
    assert cache.latest(5, b"GPS") == b"\x01"
    assert cache.latest(5, b"TMP") == b"\x15"
    air.state("active", "12:00", {"GPS": "02"})
    assert cache.latest(5, b"GPS") == b"\x02"


def test_of_each_node_so_many_types_are_known_and_the_oldest_goes(cache: Cache, air: Air) -> None:
    for type in ("AAA", "BBB", "CCC", "AAA", "DDD"):
        air.data("12:00", "AQ==", type)
    assert [cache.latest(5, type) is None for type in (b"AAA", b"BBB", b"CCC", b"DDD")] == [
        False,
        True,
        False,
        False,
    ]


def test_what_no_frame_can_say_is_not_known(
    cache: Cache, air: Air, messages: list[Message]
) -> None:
    air.data("12:00", "AQ==")
    air.data("12:00", base64.b64encode(bytes(256)).decode())
    air.data("12:00", "AQ==", node=65_536)
    air.data("12:00", "AQ==", "GP")
    air.data("12:00", "AQ==", "\uac00GP")
    air.event("node-5", "message", "12:00", {"node": -1, "type": "[M]", "payload": ""})
    air.event("node-5", "message", "12:00", {"node": 5, "type": "\uac00", "payload": ""})
    air.event("root", "network", "12:00", {"nodes": [{"node": 65_536, "uuid": ""}]})
    air.state("active", "13:00", {"GPS": "00" * 256})
    air.state("active", "13:00", {"GPSX": "00"})
    assert cache.not_understood == 9
    assert list(cache.nodes) == [5]
    assert cache.latest(5, b"GPS") == b"\x01"
    assert messages == []
    air.data("12:00", base64.b64encode(bytes(255)).decode(), "\n\xff\0")
    assert cache.latest(5, b"\n\xff\0") == bytes(255)


def test_all_values_together_have_a_bound(air: Air) -> None:
    cache = Cache(cast("Bus", air), lambda _: None, max_types=3, max_bytes=20_000)
    for number in range(300):
        text = base64.b64encode(b"x" * (number % 256)).decode()
        for type in ("GPS", "CNT", "TMP", "HUM"):
            air.data(f"2026-01-02T03:{number // 60:02}:{number % 60:02}.000Z", text, type, number)
        assert cache._bytes <= 20_000
        assert number in cache.nodes
        assert len(cache.nodes[number].values) == 3
    assert cache._bytes == sum(node.size for node in cache.nodes.values())
    assert min(cache.nodes) > 280
    for number in list(cache.nodes):
        air.say(f"patchbay/mesh/node-{number}/state", b"")
    assert (cache._bytes, cache.nodes) == (0, {})


def confirmed(air: Air, cache: Cache, *nodes: int) -> None:
    """The domain says of these that they are active."""
    for node in nodes:
        state = {"node": node, "uuid": None, "status": "active", "last_contact": "12:00"}
        state |= {"readings": 1, "messages": 0, "values": {}}
        air.say(f"patchbay/mesh/node-{node}/state", encode(state))
        assert node in cache.nodes


def test_an_invented_node_takes_no_place_of_one_that_the_domain_knows(air: Air) -> None:
    cache = Cache(cast("Bus", air), lambda _: None, max_types=3, max_nodes=20)
    confirmed(air, cache, *range(10))
    for number in range(1000, 3000):
        air.event("root", "network", "13:00", {"nodes": [{"node": number, "uuid": ""}]})
        assert len(cache.nodes) <= 20
    assert set(range(10)) <= set(cache.nodes)
    confirmed(air, cache, *range(10, 20))
    assert set(cache.nodes) == set(range(20))
    air.data("14:00", "AQ==", node=99)
    assert (99 in cache.nodes, cache.refused) == (False, 1)


def test_a_source_that_somebody_invents_takes_no_room_without_a_bound(air: Air) -> None:
    cache = Cache(cast("Bus", air), lambda _: None, max_types=3)
    for number in range(1000):
        event = new_event(
            id="x", source=f"s{number}", type="patchbay.mesh.message", time="12:00", data=None,
            epoch="e", sequence=1,
        )  # fmt: skip
        air.say("patchbay/mesh/node-5/event/message", event)
    assert len(cache._once._seen) <= 64
