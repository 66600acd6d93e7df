"""The asking side of request and reply, over a real Mosquitto."""

from __future__ import annotations

import asyncio

import pytest

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.testing import PATIENCE_S, MakeBus, Part, until

ASKED = "patchbay/gate/7/cmd/open"


class Desk:
    """Keeps the requests that come, and answers when the test says so."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.asked: list[Message] = []
        bus.listen(ASKED, self._hear)

    def _hear(self, message: Message) -> None:
        message.ack()
        self.asked.append(message)

    async def answer(self, number: int, payload: bytes, correlation: bytes | None = None) -> None:
        message = self.asked[number]
        await self.bus.publish(
            message.response_topic,
            payload,
            correlation=message.correlation if correlation is None else correlation,
        )


@pytest.fixture
async def desk(make_bus: MakeBus) -> Desk:
    desk = Desk(make_bus("gate-domain-x"))
    desk.bus.start()
    await desk.bus.wait_connected(PATIENCE_S)
    return desk


@pytest.fixture
async def asker(make_bus: MakeBus) -> Bus:
    bus = make_bus("asker")
    bus.start()
    return bus


async def test_each_answer_finds_its_own_request_whatever_their_order(
    desk: Desk, asker: Bus
) -> None:
    first = asyncio.create_task(asker.request(ASKED, b"1", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 1)
    second = asyncio.create_task(asker.request(ASKED, b"2", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 2)
    await desk.answer(1, b"two")
    await desk.answer(0, b"one")
    assert [await first, await second] == [b"one", b"two"]


async def test_an_answer_to_nobody_and_a_second_one_are_dropped(desk: Desk, asker: Bus) -> None:
    asking = asyncio.create_task(asker.request(ASKED, b"1", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 1)
    await desk.answer(0, b"not yours", correlation=b"another")
    await desk.answer(0, b"yours")
    await desk.answer(0, b"again")
    assert await asking == b"yours"
    again = asyncio.create_task(asker.request(ASKED, b"2", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 2)
    await desk.answer(1, b"two")
    assert await again == b"two"
    assert asker.reconnects == 0


async def test_a_request_that_nobody_hears_is_known_at_once(asker: Bus) -> None:
    with pytest.raises(Unavailable, match=f"^nobody has subscribed to {ASKED}$"):
        await asker.request(ASKED, b"1", timeout_s=PATIENCE_S)


async def test_a_request_that_nobody_answers_ends_by_time_and_leaves_nothing(
    desk: Desk, asker: Bus
) -> None:
    await asker.wait_connected(PATIENCE_S)
    with pytest.raises(TimeoutError):
        await asker.request(ASKED, b"1", timeout_s=0.5)
    assert asker._requests is not None
    assert asker._requests._waiting == {}


async def test_without_a_broker_a_request_ends_by_time(mosquitto: Part, asker: Bus) -> None:
    await asker.wait_connected(PATIENCE_S)
    mosquitto.kill()
    await until(lambda: not asker.connected)
    with pytest.raises(TimeoutError):
        await asker.request(ASKED, b"1", timeout_s=0.2)


async def test_after_a_killed_broker_the_next_request_is_answered(
    desk: Desk, asker: Bus, mosquitto: Part
) -> None:
    under_way = asyncio.create_task(asker.request(ASKED, b"1", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 1)
    mosquitto.kill()
    await until(lambda: not (asker.connected or desk.bus.connected))
    mosquitto.start()
    await desk.bus.wait_connected(PATIENCE_S)
    again = asyncio.create_task(asker.request(ASKED, b"2", timeout_s=PATIENCE_S))
    await until(lambda: len(desk.asked) == 2)
    await desk.answer(1, b"two")
    assert await again == b"two"
    await desk.answer(0, b"one")  # its question was heard: it is answered late, and not lost
    assert await under_way == b"one"
