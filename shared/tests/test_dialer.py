"""Connecting again and again, and detecting a twin."""

from __future__ import annotations

import asyncio

import pytest

from patchbay.bus import Bus
from patchbay.bus.connection import TAKEN_OVER, Connection
from patchbay.bus.dialer import TAKEOVERS_LIMIT, Dialer
from patchbay.errors import Unavailable
from patchbay.log import get_logger
from patchbay.settings import BrokerSettings
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, broker_settings, until
from patchbay.topics import Topics

TAKEN = "taken over"
QUICK = BrokerSettings(backoff_initial_s=0.001, backoff_max_s=0.004)


def a_connection() -> Connection:
    """One that nobody opens: a dialer only looks at how it ends."""
    return Connection(QUICK, "u", lambda message: None, lambda topic, why: None)


class Calls:
    """What a dialer asks of its owner; ``answers`` are what becomes of each connection. The broker
    gives the reason "taken over" to those that end with `TAKEN`."""

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
        connection.reason = TAKEN_OVER if answer == TAKEN else None
        connection.established = True
        connection.established_at = asyncio.get_running_loop().time()
        connection.ended.set_result(answer)

    def ended(self) -> None:
        self.over += 1


async def test_who_cannot_connect_tries_again_with_a_fresh_connection_whatever_the_reason() -> None:
    reasons = [Unavailable("no broker"), RuntimeError("a mistake in a hook")] * 5
    calls = Calls(*reasons, *[TAKEN] * TAKEOVERS_LIMIT)
    dialer = calls.dialer()
    await asyncio.wait_for(dialer.dial(), PATIENCE_S)
    assert len(set(calls.made)) == calls.over == len(reasons) + TAKEOVERS_LIMIT
    assert dialer.reconnects == TAKEOVERS_LIMIT


async def test_a_failure_between_two_takeovers_begins_the_count_anew() -> None:
    almost = [TAKEN] * (TAKEOVERS_LIMIT - 1)
    calls = Calls(*almost, Unavailable("no broker"), *almost, "cut", *almost, TAKEN)
    await asyncio.wait_for(calls.dialer().dial(), PATIENCE_S)
    assert calls.answers == []


async def test_each_pause_is_twice_the_last_up_to_the_longest_and_never_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("patchbay.bus.dialer.asyncio.sleep", sleep)
    monkeypatch.setattr("patchbay.bus.dialer.STABLE_S", 0.0)
    calls = Calls(*[Unavailable("no broker")] * 6, *[TAKEN] * TAKEOVERS_LIMIT)
    await calls.dialer().dial()
    for pause, longest in zip(pauses, [0.001, 0.002, 0.004, 0.004, 0.004, 0.004], strict=False):
        assert longest / 2 <= pause <= longest
    assert 0.0005 <= pauses[6] <= 0.001  # it was connected in between: it begins anew


async def test_a_connection_that_ends_at_once_is_retried_with_longer_and_longer_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("patchbay.bus.dialer.asyncio.sleep", sleep)
    monkeypatch.setattr("patchbay.bus.dialer.STABLE_S", PATIENCE_S)
    await Calls(*["cut"] * 4, *[TAKEN] * TAKEOVERS_LIMIT).dialer().dial()
    assert all(pause >= 0.002 for pause in pauses[2:])


async def test_two_clients_with_one_id_end_with_a_clear_error(mosquitto: Part) -> None:
    settings = broker_settings(mosquitto.port)
    twins = [Bus(settings, client_id="twin", topics=Topics()) for _ in range(2)]
    for twin in twins:
        twin.start()
        await twin.set_ready()
    try:
        ends = [twin.failed for twin in twins if twin.failed is not None]
        done, _ = await asyncio.wait(ends, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        assert "instance id twin" in next(iter(done)).result()
    finally:
        for twin in twins:
            await twin.stop()


async def test_a_unit_that_follows_a_killed_one_is_no_twin(mosquitto: Part) -> None:
    settings = broker_settings(mosquitto.port)
    for _ in range(3):
        await _live_and_be_killed(Bus(settings, client_id="again", topics=Topics()))


async def _live_and_be_killed(bus: Bus) -> None:
    """Connect three times, then leave as a kill -9 does: the broker publishes the Last Will."""
    bus.start()
    await bus.set_ready()
    await bus.wait_online(PATIENCE_S)
    assert bus.connection is not None
    for reconnects in range(1, 4):
        bus.connection.abort("cut by the test")
        await until(lambda wanted=reconnects: bus.reconnects == wanted and bus.online)
    assert not bus._presence.twin
    assert bus._task is not None
    bus._task.cancel()
    bus.connection.abort("killed by the test")


async def test_a_connect_hook_that_fails_is_retried_and_no_other_client_is_blamed(
    mosquitto: Part,
) -> None:
    bus = Bus(broker_settings(mosquitto.port), client_id="u", topics=Topics())
    calls = 0

    async def hook() -> None:
        nonlocal calls
        calls += 1
        if calls <= TAKEOVERS_LIMIT + 2:
            raise ValueError("a mistake in a hook")

    bus.on_connect(hook)
    bus.start()
    await bus.set_ready()
    try:
        await bus.wait_online(PATIENCE_S)
        assert bus.failed is not None
        assert not bus.failed.done()
        assert calls == TAKEOVERS_LIMIT + 3
        assert bus.reconnects == 0  # at each attempt the broker would publish the Last Will
    finally:
        await bus.stop()


async def test_a_connect_hook_that_waits_for_the_store_keeps_the_connection(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    watcher, seen = make_bus("w"), Seen()
    watcher.subscribe("patchbay/status/u", seen.take)
    watcher.start()
    await watcher.wait_connected(PATIENCE_S)
    bus = make_bus("u", announce=True)
    calls = 0

    async def hook() -> None:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise Unavailable("the store is away")

    bus.on_connect(hook)
    bus.start()
    await bus.set_ready()
    await until(lambda: seen.payloads == [b"online"])
    assert (calls, bus.reconnects) == (5, 0)


async def test_a_connect_hook_that_waits_starts_again_when_the_connection_ends(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    bus = make_bus("u", announce=True)
    calls: list[int] = []
    there = asyncio.Event()

    async def hook() -> None:
        calls.append(bus.reconnects)
        if not there.is_set():
            raise Unavailable("the store is away")

    bus.on_connect(hook)
    bus.start()
    await bus.set_ready()
    await until(lambda: len(calls) > 1)
    assert bus.connection is not None
    bus.connection.abort("cut by the test")
    await until(lambda: calls[-1] == 1)
    there.set()
    await bus.wait_online(PATIENCE_S)
