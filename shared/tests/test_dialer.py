"""Connecting for ever."""

from __future__ import annotations

import asyncio

import pytest

from patchbay.bus import Bus
from patchbay.bus.connection import Connection
from patchbay.bus.dialer import TAKEOVERS_LIMIT, Dialer
from patchbay.errors import Unavailable
from patchbay.log import get_logger
from patchbay.settings import BrokerSettings
from patchbay.testing import PATIENCE_S, Part, broker_settings
from patchbay.topics import Topics

QUICK = BrokerSettings(backoff_initial_s=0.001, backoff_max_s=0.004)


def a_connection() -> Connection:
    """One that nobody opens: a dialer only looks at how it ends."""
    return Connection(QUICK, "u", lambda message: None, lambda topic, why: None)


class Calls:
    """What a dialer asks of its owner; ``answers`` are what becomes of each connection."""

    def __init__(self, *answers: Exception | str) -> None:
        self.answers = list(answers)
        self.made: list[Connection] = []
        self.over = 0

    def dialer(self) -> Dialer:
        return Dialer(QUICK, self.make, self.opened, self.ended, get_logger("test"))

    def make(self) -> Connection:
        self.made.append(a_connection())
        return self.made[-1]

    async def opened(self, connection: Connection) -> None:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        connection.established = True
        connection.established_at = asyncio.get_running_loop().time()
        connection.ended.set_result(answer)

    def ended(self) -> None:
        self.over += 1


async def test_who_cannot_connect_tries_again_with_a_fresh_connection_whatever_the_reason() -> None:
    reasons = [Unavailable("no broker"), RuntimeError("a mistake in a hook")] * 5
    calls = Calls(*reasons, *["thrown out"] * TAKEOVERS_LIMIT)
    dialer = calls.dialer()
    await asyncio.wait_for(dialer.dial(), PATIENCE_S)
    assert len(set(calls.made)) == calls.over == len(reasons) + TAKEOVERS_LIMIT
    assert dialer.reconnects == TAKEOVERS_LIMIT


async def test_a_failure_between_two_takeovers_begins_the_count_anew() -> None:
    almost = ["thrown out"] * (TAKEOVERS_LIMIT - 1)
    calls = Calls(*almost, Unavailable("no broker"), *almost, "thrown out")
    await asyncio.wait_for(calls.dialer().dial(), PATIENCE_S)
    assert calls.answers == []


async def test_each_pause_is_twice_the_last_up_to_the_longest_and_never_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("patchbay.bus.dialer.asyncio.sleep", sleep)
    calls = Calls(*[Unavailable("no broker")] * 6, *["thrown out"] * TAKEOVERS_LIMIT)
    await calls.dialer().dial()
    for pause, longest in zip(pauses, [0.001, 0.002, 0.004, 0.004, 0.004, 0.004], strict=False):
        assert longest / 2 <= pause <= longest
    assert 0.0005 <= pauses[6] <= 0.002  # it was connected in between: it begins anew


async def test_two_clients_with_one_id_end_with_a_clear_error(mosquitto: Part) -> None:
    settings = broker_settings(mosquitto.port)
    twins = [Bus(settings, client_id="twin", topics=Topics(), announce=False) for _ in range(2)]
    for twin in twins:
        twin.start()
    try:
        ends = [twin.failed for twin in twins if twin.failed is not None]
        done, _ = await asyncio.wait(ends, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        assert "instance id twin" in next(iter(done)).result()
    finally:
        for twin in twins:
            await twin.stop()
