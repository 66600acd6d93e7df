"""How many lanterns there are, as edges say it on the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patchbay.bus import Message
from patchbay.messages import encode
from patchbay.topics import Topics
from patchbay_lantern.census import Census
from patchbay_lantern.messages import EdgeState


class Bus:
    """A bus whose messages the test makes up; ``connection`` names the one that brings them."""

    topics = Topics()
    client_id = "lantern-domain-test"

    def __init__(self) -> None:
        self.connection = object()
        self._heard: dict[str, Callable[[Message], None]] = {}

    def listen(self, pattern: str, callback: Callable[[Message], None]) -> None:
        self._heard[pattern] = callback

    def state(self, edge: str, payload: bytes) -> None:
        message = Message(topic=f"patchbay/lantern/{edge}/state", payload=payload)
        message.connection = self.connection
        self._heard["patchbay/lantern/+/state"](message)

    def lanterns(self, edge: str, count: int) -> None:
        self.state(edge, encode(EdgeState(edge=edge, lanterns=count)))

    def status(self, instance: str, word: bytes) -> None:
        message = Message(topic=f"patchbay/status/{instance}", payload=word)
        message.connection = self.connection
        self._heard["patchbay/status/+"](message)


def census(*, changed: Callable[[], None] | None = None) -> tuple[Any, Census]:
    bus: Any = Bus()
    return bus, Census(bus, changed)


def test_lanterns_of_all_edges_that_are_online_count() -> None:
    bus, found = census()
    bus.lanterns("lantern-tlv-a", 3)
    assert found.lanterns == 0
    bus.status("lantern-tlv-a", b"online")
    bus.status("lantern-tlv-b", b"online")
    bus.lanterns("lantern-tlv-b", 4)
    assert found.lanterns == 7
    bus.status("lantern-tlv-a", b"offline")
    assert found.lanterns == 4
    bus.lanterns("lantern-tlv-a", 0)
    bus.status("lantern-tlv-a", b"online")
    assert found.lanterns == 4


def test_others_do_not_count() -> None:
    bus, found = census()
    bus.status("lantern-domain-a", b"online")
    bus.status("locker-edge-a", b"online")
    bus.status("lantern-tlv-a", b"online")
    for payload in (b"", b"{", encode({"edge": 1})):
        bus.state("lantern-tlv-a", payload)
    bus.state("all", b"{}")
    assert found.lanterns == 0


def test_after_a_new_connection_only_what_is_said_there_counts() -> None:
    bus, found = census()
    for edge in ("lantern-tlv-a", "lantern-tlv-b"):
        bus.status(edge, b"online")
        bus.lanterns(edge, 5)
    bus.connection = object()
    bus.status("lantern-tlv-a", b"online")
    bus.lanterns("lantern-tlv-a", 2)
    assert found.lanterns == 2


def test_who_wants_to_know_is_told() -> None:
    told = []
    bus, found = census(changed=lambda: told.append(found.lanterns))
    bus.lanterns("lantern-tlv-a", 3)
    bus.status("lantern-tlv-a", b"online")
    assert told == [0, 3]
