"""Which subscription gets a message, and what happens to one that nobody can take."""

from __future__ import annotations

import pytest

from patchbay.bus import Message
from patchbay.bus import router as under_test
from patchbay.bus.router import Router
from patchbay.bus.subscription import Subscription


class Desk:
    """A router, what arrived where, and what was acknowledged or set aside."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, str, bool]] = []
        self.acknowledged: list[str] = []
        self.aside: list[tuple[str, str]] = []
        self.router = Router(self.set_aside)

    def set_aside(self, message: Message, error: Exception) -> None:
        self.aside.append((message.topic, str(error)))
        message.ack()

    def listen(self, pattern: str) -> None:
        def callback(message: Message) -> None:
            self.arrived.append((pattern, message.topic, message.late))
            if message.payload == b"bad":
                raise RuntimeError("cannot")

        self.router.add(Subscription.direct(pattern, callback))

    def send(self, topic: str, payload: bytes = b"") -> None:
        message = Message(topic=topic, payload=payload)
        message.acknowledge = lambda: self.acknowledged.append(topic)
        self.router.deliver(message)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_first_filter_that_matches_takes_the_message_alone(desk: Desk) -> None:
    desk.listen("a/+")
    desk.listen("a/#")
    desk.send("a/b")
    desk.send("a/b/c")
    assert desk.arrived == [("a/+", "a/b", False), ("a/#", "a/b/c", False)]
    assert desk.acknowledged == []  # that is theirs to do


def test_what_nobody_wants_is_acknowledged(desk: Desk) -> None:
    desk.listen("a/+")
    desk.send("b")
    assert (desk.arrived, desk.acknowledged) == ([], ["b"])


def test_a_filter_that_is_added_later_is_asked_too(desk: Desk) -> None:
    desk.send("b")
    desk.listen("b")
    desk.send("b")
    assert desk.arrived == [("b", "b", False)]


def test_a_callback_that_raises_has_its_message_set_aside_and_acknowledged(desk: Desk) -> None:
    desk.listen("a")
    desk.send("a", b"bad")
    desk.send("a")
    assert desk.aside == [("a", "cannot")]
    assert desk.acknowledged == ["a"]
    assert len(desk.arrived) == 2


def test_what_was_queued_while_we_were_away_is_late(desk: Desk) -> None:
    desk.listen("a")
    desk.router.late = True
    desk.send("a")
    desk.router.late = False
    desk.send("a")
    assert [late for _, _, late in desk.arrived] == [True, False]


def test_a_flood_of_topics_is_not_remembered_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "ROUTES_LIMIT", 10)
    desk.listen("a/#")
    for number in range(100):
        desk.send(f"a/{number}")
        assert len(desk.router._routes) <= 10
    assert len(desk.arrived) == 100


class Counts:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def sent(self, topic: str) -> None:
        self.told.append(("sent", topic))

    def received(self, topic: str) -> None:
        self.told.append(("received", topic))

    def handled(self, topic: str, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(("handled", topic))


async def test_a_meter_hears_of_the_message_and_then_that_it_is_safe() -> None:
    meter = Counts()
    waiting: list[Message] = []
    router = Router(lambda message, error: None, meter)
    router.add(Subscription.direct("a", waiting.append))
    acknowledged: list[str] = []
    message = Message(topic="a", payload=b"")
    message.acknowledge = lambda: acknowledged.append("a")
    router.deliver(message)
    assert meter.told == [("received", "a")]
    waiting[0].ack()
    assert meter.told == [("received", "a"), ("handled", "a")]
    assert acknowledged == ["a"]
