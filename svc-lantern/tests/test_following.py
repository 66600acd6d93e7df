"""How an edge follows the domain: by hand-made messages, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from patchbay.bus import Message
from patchbay.messages import encode, new_event
from patchbay.topics import Topics
from patchbay_lantern.edge.following import Follower
from patchbay_lantern.messages import Commanded, Order, State

RED, GREEN = Order("COLOR", "ff0000"), Order("COLOR", "00ff00")
ON, OFF = Order("ON"), Order("OFF")


class Ear:
    """A bus that is only listened to."""

    topics = Topics()
    client_id = "lantern-tlv-test"

    def __init__(self) -> None:
        self.heard: dict[str, Callable[[Message], None]] = {}
        self.letters: list[str] = []

    def listen(self, pattern: str, callback: Callable[[Message], None]) -> None:
        self.heard[pattern] = callback

    def dead_letter(self, service: str, reason: str, original: bytes, *, topic: str = "") -> None:
        self.letters.append(topic)


class Edge:
    """An edge that writes down what it is told to do."""

    def __init__(self) -> None:
        self.bus: Any = Ear()
        self.did: list[Order | str] = []
        self.follower = Follower(self.bus, self.did.append, lambda: self.did.append("catch up"))

    def command(self, rev: int, order: Order, epoch: str = "e") -> None:
        told = Commanded(command=order.command, value=order.value, by="me", epoch=epoch, rev=rev)
        event = new_event(id="1", source="d", type="patchbay.lantern.commanded", data=told)
        self.event(event)

    def event(self, payload: bytes) -> None:
        (callback,) = self.bus.heard.values()
        callback(Message(topic="commanded", payload=payload))

    def state(self, rev: int, *orders: Order, epoch: str = "e") -> None:
        state = State(
            on=None, color=None, since=None, by=None, epoch=epoch, rev=rev, orders=list(orders)
        )
        self.follower.state(Message(topic="state", payload=encode(state)))


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.state(0)
    return edge


def test_each_command_is_obeyed_once_and_in_order(edge: Edge) -> None:
    edge.command(1, RED)
    edge.state(1, RED)
    edge.command(2, ON)
    edge.command(2, ON)
    edge.command(1, RED)
    edge.state(2, RED, ON)
    assert edge.did == [RED, ON]
    assert edge.follower.present == [RED, ON]


def test_after_a_gap_the_state_says_what_was_missed(edge: Edge) -> None:
    edge.command(1, RED)
    edge.command(3, OFF)
    assert edge.did == [RED]
    edge.state(3, GREEN, OFF)
    edge.command(4, ON)
    assert edge.did == [RED, "catch up", ON]
    assert edge.follower.present == [GREEN, ON]


def test_a_domain_that_starts_again_counts_anew_and_nothing_is_told_twice(edge: Edge) -> None:
    edge.command(1, RED)
    edge.state(1, RED, epoch="second")
    edge.command(1, RED)  # the first domain's, published again
    edge.command(2, ON, epoch="second")
    assert edge.did == [RED, ON]


def test_a_store_that_was_put_back_counts_from_below(edge: Edge) -> None:
    for rev in range(1, 6):
        edge.command(rev, RED)
    edge.state(2, GREEN, epoch="second")
    edge.command(3, OFF, epoch="second")
    assert edge.did == [RED] * 5 + ["catch up", OFF]


def test_what_is_not_understood_becomes_a_dead_letter(edge: Edge) -> None:
    for payload in (b"", b"{", b"[]", encode({"specversion": "1.0"})):
        edge.event(payload)
    edge.follower.state(Message(topic="state", payload=b"{"))
    edge.follower.state(Message(topic="state", payload=b""))
    edge.command(1, RED)
    assert edge.did == [RED]
    assert edge.bus.letters == ["commanded"] * 4 + ["state"]


def test_a_command_of_a_newer_domain_is_left_out(edge: Edge) -> None:
    edge.command(1, Order("BRIGHTNESS", "9"))
    edge.command(2, RED)
    edge.state(7, RED, Order("BRIGHTNESS", "9"), ON)
    assert edge.did == [RED, "catch up"]
    assert edge.follower.present == [RED, ON]
