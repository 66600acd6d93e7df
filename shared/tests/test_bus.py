"""The bus against a real Mosquitto."""

from __future__ import annotations

import asyncio
import json

import pytest

from patchbay.bus import Message
from patchbay.errors import TooLarge, Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, pub, until


async def test_publish_reports_the_puback_and_whether_anybody_listens(make_bus: MakeBus) -> None:
    bus = make_bus("a")
    seen = Seen()
    bus.subscribe("x/heard", seen.take)
    bus.start()
    await bus.wait_connected(5)
    assert await bus.publish("x/heard", b"1") == 0
    assert await bus.publish("x/unheard", b"1") == 0x10
    await until(lambda: seen.payloads == [b"1"])


async def test_publishing_without_a_connection_is_unavailable(make_bus: MakeBus) -> None:
    bus = make_bus("a")
    with pytest.raises(Unavailable):
        await bus.publish("x", b"1")


async def test_a_packet_over_the_brokers_maximum_is_refused_before_it_is_sent(
    make_bus: MakeBus,
) -> None:
    bus = make_bus("a")
    bus.start()
    await bus.wait_connected(5)
    with pytest.raises(TooLarge):
        await bus.publish("x", b"x" * 262_144)
    assert await bus.publish("x", b"x" * 262_000) == 0x10


async def test_a_message_is_acknowledged_only_after_its_handler_has_returned(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    first = make_bus("domain", durable=True)
    stuck = asyncio.Event()

    async def hang(message: Message) -> None:
        stuck.set()
        await asyncio.Event().wait()

    first.subscribe("x/+", hang)
    first.start()
    await first.wait_connected(5)
    pub(mosquitto, "x/1", "a", "-q", "1")
    await stuck.wait()
    await first.stop()

    second = make_bus("domain", durable=True)
    seen = Seen()
    second.subscribe("x/+", seen.take)
    second.start()
    await until(lambda: seen.payloads == [b"a"])
    assert seen[0].dup


async def test_a_poison_message_is_set_aside_and_the_next_is_handled(make_bus: MakeBus) -> None:
    bus = make_bus("locker-domain-x")
    handled: list[bytes] = []
    letters = Seen()

    async def handle(message: Message) -> None:
        if message.payload == b"poison":
            raise ValueError("bad payload")
        handled.append(message.payload)

    bus.subscribe("patchbay/locker/+/event/x", handle)
    bus.subscribe("patchbay/dead/+", letters.take)
    bus.start()
    await bus.wait_connected(5)
    await bus.publish("patchbay/locker/1/event/x", b"poison")
    await bus.publish("patchbay/locker/1/event/x", b"good")
    await until(lambda: handled == [b"good"] and len(letters) == 1)
    letter = json.loads(letters[0].payload)
    assert letters[0].topic == "patchbay/dead/locker"
    assert letter["reason"] == "ValueError: bad payload"
    assert bytes.fromhex(letter["hex"]) == b"poison"
    assert letter["topic"] == "patchbay/locker/1/event/x"


async def test_what_is_unavailable_for_the_handler_is_tried_again_and_not_lost(
    make_bus: MakeBus,
) -> None:
    bus = make_bus("a")
    tries: list[bytes] = []

    async def handle(message: Message) -> None:
        tries.append(message.payload)
        if len(tries) < 3:
            raise Unavailable("the store is away")

    bus.subscribe("x", handle)
    bus.start()
    await bus.wait_connected(5)
    await bus.publish("x", b"1")
    await bus.publish("x", b"2")
    await until(lambda: tries == [b"1", b"1", b"1", b"2"])


async def test_after_a_killed_broker_it_subscribes_again_and_republishes_what_it_keeps(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    bus = make_bus("locker-edge-x", announce=True)
    seen = Seen()
    hooks: list[int] = []

    async def hook() -> None:
        hooks.append(len(hooks))

    bus.subscribe("y", seen.take)
    bus.on_connect(hook)
    bus.start()
    await bus.set_ready()
    await bus.wait_online(5)
    bus.keep("x/kept", b"still here")
    mosquitto.kill()
    await until(lambda: not bus.connected)
    mosquitto.start()
    await bus.wait_online(PATIENCE_S)
    assert hooks == [0, 1]
    assert bus.reconnects == 1
    other = make_bus("b")
    retained = Seen()
    other.subscribe("x/kept", retained.take)
    other.subscribe("patchbay/status/#", retained.take)
    other.start()
    await until(lambda: sorted(retained.payloads) == [b"online", b"still here"])
    await bus.publish("y", b"1")
    await until(lambda: seen.payloads == [b"1"])


async def test_what_was_queued_while_away_is_late_and_what_comes_after_the_nonce_is_not(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    first = make_bus("domain", durable=True)
    first.subscribe("x", Seen().take)
    first.start()
    await first.wait_connected(5)
    await first.stop()
    pub(mosquitto, "x", "queued", "-q", "1")

    second = make_bus("domain", durable=True)
    seen = Seen()
    second.subscribe("x", seen.take)
    second.start()
    await until(lambda: len(seen) == 1)
    await until(lambda: not second._router.late)
    pub(mosquitto, "x", "fresh", "-q", "1")
    await until(lambda: len(seen) == 2)
    assert [(m.payload, m.late) for m in seen] == [(b"queued", True), (b"fresh", False)]


async def test_a_listener_that_crashes_costs_its_message_and_not_the_connection(
    make_bus: MakeBus,
) -> None:
    bus = make_bus("locker-domain-x", durable=True)
    letters = Seen()
    heard: list[bytes] = []

    def listen(message: Message) -> None:
        if message.payload == b"poison":
            raise ValueError("a mistake in a listener")
        message.ack()
        heard.append(message.payload)

    bus.listen("x", listen)
    bus.subscribe("patchbay/dead/locker", letters.take)
    bus.start()
    await bus.wait_connected(5)
    await bus.publish("x", b"poison")
    await bus.publish("x", b"good")
    await until(lambda: heard == [b"good"] and len(letters) == 1)
    assert bus.reconnects == 0
    assert json.loads(letters[0].payload)["reason"] == "ValueError: a mistake in a listener"


async def test_a_callback_that_fails_keeps_no_other_from_its_end(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    bus = make_bus("edge")
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    codes: list[int | None] = []

    def mistake(code: int | None) -> None:
        raise ValueError("a mistake in a callback")

    bus.post("x", b"1", on_ack=mistake)
    bus.post("x", b"2", on_ack=codes.append)
    await until(lambda: len(codes) == 1)
    assert bus.reconnects == 0
    with mosquitto.frozen():
        bus.post("x", b"3", on_ack=mistake)
        bus.post("x", b"4", on_ack=codes.append)
        assert bus._connection is not None
        bus._connection.abort("the test ends it")
        await until(lambda: codes[1:] == [None])
    await until(lambda: bus.reconnects == 1 and bus.connected)
    await bus.publish("x", b"5")
