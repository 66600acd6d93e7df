"""A request that moves something has three answers: accepted, an error after which it never acts,
and an unknown outcome. Over a real Mosquitto."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.bus.confirmations import REMEMBERED
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.messages import encode
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, until

TOPIC = "patchbay/gate/7/cmd/open"
CANCEL = "patchbay/gate/7/cmd/cancel"


class Open(msgspec.Struct, forbid_unknown_fields=True):
    """Open a gate."""

    gate: int = 1


class Gates:
    """A tiny service. A request waits for ``ready`` before it asks, and for ``go`` after it was
    committed; then it acts."""

    def __init__(self, bus: Bus, within_s: float = PATIENCE_S, *, expires_s: float = 30) -> None:
        self.received: list[Request] = []
        self.committed: list[str] = []
        self.acted: list[int] = []
        self.raised: list[Exception] = []
        self.fails: list[Exception] = []
        self.done: dict[str, dict[str, int]] = {}
        self.ready, self.go = asyncio.Event(), asyncio.Event()
        self.ready.set()
        self.go.set()
        self._within_s = within_s
        self.commands = Commands(
            bus,
            "gate",
            {
                "open": Command(
                    Open,
                    self.open,
                    moves=True,
                    confirms=True,
                    expires_s=expires_s,
                    remembered=self.remembered,
                ),
                "lift": Command(Open, self.lift, moves=True),
                "look": Command(Open, self.lift),
            },
            cancels=True,
        )

    async def open(self, request: Request, body: Open) -> dict[str, Any]:
        self.received.append(request)
        if request.id in self.done:
            return self.done[request.id]
        await self.ready.wait()
        try:
            await request.confirm(self._within_s)
        except Rejected as error:
            self.raised.append(error)
            raise
        self.committed.append(request.envelope_id)
        await self.go.wait()
        self.acted.append(body.gate)
        self.done[request.id] = {"opened": len(self.acted)}
        return self.done[request.id]

    async def lift(self, request: Request, body: Open) -> dict[str, Any]:
        self.received.append(request)
        if self.fails:
            raise self.fails.pop(0)
        self.acted.append(body.gate)
        return {"lifted": body.gate}

    async def remembered(self, request: Request, _body: object) -> dict[str, Any] | None:
        return self.done.get(request.id)


async def started(bus: Bus) -> Bus:
    bus.start()
    await bus.wait_connected(PATIENCE_S)
    return bus


@pytest.fixture
async def gates(make_bus: MakeBus) -> Gates:
    bus = make_bus("gate-domain-x", durable=True)
    gates = Gates(bus)
    await started(bus)
    await until(lambda: not bus._router.late)
    return gates


@pytest.fixture
async def client(make_bus: MakeBus) -> Bus:
    return await started(make_bus("cli"))


async def order(client: Bus, body: object = None, **options: Any) -> Any:
    payload = encode({} if body is None else body)
    return json.loads(
        await client.request(TOPIC, payload, actuates=True, **{"timeout_s": PATIENCE_S, **options})
    )


def envelope(id: str, **fields: object) -> bytes:
    """A request as a program publishes it that cannot be asked."""
    return encode({"specversion": "1.0", "id": id, "source": "me", "data": {}, **fields})


async def test_an_open_request_is_confirmed_and_acts_once(gates: Gates, client: Bus) -> None:
    assert await order(client, id="r1") == {"ok": True, "opened": 1}
    assert gates.committed == ["r1"]
    assert await order(client, id="r1") == {"ok": True, "opened": 1}  # the same id: as it was
    assert gates.acted == [1]


async def test_a_request_whose_time_is_over_never_acts(gates: Gates, client: Bus) -> None:
    gates.ready.clear()
    with pytest.raises(TimeoutError):
        await order(client, timeout_s=0.3)
    gates.ready.set()
    await until(lambda: gates.raised)
    assert str(gates.raised[0]).startswith("cancelled")
    assert (await order(client))["opened"] == 1  # the next one does, and it alone
    assert len(gates.acted) == 1


async def test_a_request_whose_sender_was_cancelled_never_acts(gates: Gates, client: Bus) -> None:
    gates.ready.clear()
    asking = asyncio.create_task(order(client))
    await until(lambda: gates.received)
    asking.cancel()
    await asyncio.wait([asking])
    gates.ready.set()
    await until(lambda: gates.raised)
    assert gates.acted == []


async def test_a_request_whose_sender_is_gone_never_acts(gates: Gates, make_bus: MakeBus) -> None:
    gates.ready.clear()
    gates._within_s = 1.0  # the broker may not have noticed yet that it is gone
    client = await started(make_bus("cli"))
    asking = asyncio.create_task(order(client))
    await until(lambda: gates.received)
    await client.stop()
    asking.cancel()
    gates.ready.set()
    await until(lambda: gates.raised)
    assert gates.acted == []


async def test_after_a_confirmation_a_timeout_is_an_unknown_outcome(
    gates: Gates, client: Bus
) -> None:
    gates.go.clear()
    with pytest.raises(OutcomeUnknown) as unknown:
        await order(client, timeout_s=3, id="r1")
    assert unknown.value.request_id == "r1"
    gates.go.set()
    assert await order(client, id="r1") == {"ok": True, "opened": 1}  # it is settled so
    assert gates.acted == [1]


async def test_an_unknown_outcome_may_be_what_the_service_answers(
    gates: Gates, client: Bus
) -> None:
    for error in (OutcomeUnknown("", "the port was closed"), ZeroDivisionError()):
        gates.fails.append(error)
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.request("patchbay/gate/7/cmd/lift", b"{}", actuates=True, id="r1")
        assert unknown.value.request_id == "r1"


async def test_a_command_that_moves_something_is_confirmed_though_its_handler_does_not_ask(
    gates: Gates, client: Bus, mosquitto: Part
) -> None:
    topic = "patchbay/gate/7/cmd/lift"
    answer = await client.request(topic, b'{"gate": 2}', actuates=True)
    assert json.loads(answer) == {"ok": True, "lifted": 2}
    nobody = encode({"specversion": "1.0", "id": "1", "source": "x", "confirm": True, "data": {}})
    reply = "patchbay/reply/gone"
    await client.publish(topic, nobody, response_topic=reply, correlation=b"1")
    await client.request("patchbay/gate/7/cmd/look", b'{"gate": 3}')  # all before was handled
    assert gates.acted == [2, 3]


@pytest.mark.parametrize("confirmed", [b'{"nonce": "made up", "confirmed": true}', b"{", b"[]"])
async def test_nobody_else_confirms_a_request(
    gates: Gates, client: Bus, make_bus: MakeBus, confirmed: bytes
) -> None:
    gates._within_s = 0.5
    hung = make_bus("hung")
    heard = hung.listen("patchbay/reply/hung", lambda message: message.ack())
    await started(hung)
    asked = envelope("r1", confirm=True)
    await hung.publish(TOPIC, asked, response_topic="patchbay/reply/hung", correlation=b"1")
    await until(lambda: gates.received)
    await client.publish("patchbay/confirm/gate-domain-x", confirmed)
    await until(lambda: gates.raised)
    assert str(gates.raised[0]).startswith("unconfirmed")
    assert gates.acted == []
    assert heard is not None


async def test_a_question_makes_nobody_publish_anywhere_else(
    gates: Gates, client: Bus, make_bus: MakeBus
) -> None:
    gates.ready.clear()
    other, seen = make_bus("other"), Seen()
    other.subscribe("patchbay/gate/#", seen.take)
    await started(other)
    asking = asyncio.create_task(order(client))
    await until(lambda: gates.received and seen)
    await other.publish(
        "patchbay/reply/cli",
        b'{"nonce": "n"}',
        response_topic="patchbay/gate/7/desired",
        correlation=seen[0].correlation,
    )
    gates.ready.set()
    assert (await asking)["ok"]
    assert "patchbay/gate/7/desired" not in {one.topic for one in seen}


async def test_a_request_is_committed_once(gates: Gates, client: Bus, make_bus: MakeBus) -> None:
    """Whoever asks again with another nonce, as a service that has forgotten, gets a no."""
    gates.go.clear()
    asking = asyncio.create_task(order(client))
    await until(lambda: gates.committed)
    (correlation,) = client._requests._waiting if client._requests else ()
    other, answers = make_bus("gate-domain-y"), Seen()
    other.subscribe("patchbay/confirm/gate-domain-y", answers.take)
    await started(other)
    await other.publish(
        "patchbay/reply/cli",
        b'{"nonce": "another"}',
        response_topic="patchbay/confirm/gate-domain-y",
        correlation=correlation,
    )
    await until(lambda: answers)
    assert json.loads(answers[0].payload) == {"nonce": "another", "confirmed": False}
    gates.go.set()
    assert (await asking)["ok"]


async def test_a_plain_client_cannot_be_asked_and_is_served_in_time(
    gates: Gates, client: Bus
) -> None:
    assert json.loads(await client.request(TOPIC, b"{}"))["ok"]
    assert json.loads(await client.request(TOPIC, envelope("r1")))["ok"]
    assert len(gates.acted) == 2


async def test_what_a_plain_client_has_asked_for_never_acts_later_than_the_command_says(
    make_bus: MakeBus, client: Bus
) -> None:
    bus = make_bus("gate-domain-y")
    gates = Gates(bus, expires_s=0.3)
    gates.ready.clear()
    await started(bus)
    asking = asyncio.create_task(client.request(TOPIC, b"{}", timeout_s=PATIENCE_S))
    await until(lambda: gates.received or asking.done())
    await asyncio.sleep(0.35)
    gates.ready.set()
    answer = json.loads(await asking)
    assert answer["error"]["code"] == "too_late"
    assert gates.acted == []


async def cancel(client: Bus, id: str, source: str = "") -> Any:
    body = {"id": id, "source": source}
    return json.loads(await client.request(CANCEL, encode(body), timeout_s=PATIENCE_S))


async def test_a_request_that_was_cancelled_never_acts(gates: Gates, client: Bus) -> None:
    gates.ready.clear()
    asking = asyncio.create_task(client.request(TOPIC, envelope("r1"), timeout_s=PATIENCE_S))
    await until(lambda: gates.received)
    waiting = asyncio.create_task(client.request(TOPIC, envelope("r2"), timeout_s=PATIENCE_S))
    assert await cancel(client, "r1") == {"ok": True, "outcome": "cancelled", "seen": True}
    gates.ready.set()
    assert json.loads(await asking)["error"]["code"] == "cancelled"
    assert json.loads(await waiting)["ok"]
    again = json.loads(await client.request(TOPIC, envelope("r1"), timeout_s=PATIENCE_S))
    assert again["error"]["code"] == "cancelled"
    assert len(gates.acted) == 1


async def test_a_request_that_waits_for_its_confirmation_can_be_cancelled(
    gates: Gates, make_bus: MakeBus, client: Bus
) -> None:
    hung, replies = make_bus("hung"), Seen()
    hung.subscribe("patchbay/reply/hung", replies.take)
    await started(hung)
    asked, topic = envelope("r1", confirm=True), "patchbay/reply/hung"
    await hung.publish(TOPIC, asked, response_topic=topic, correlation=b"1")
    await until(lambda: replies)
    assert (await cancel(client, "r1", "me"))["outcome"] == "cancelled"
    await until(lambda: len(replies) == 2)
    assert json.loads(replies[1].payload)["error"]["code"] == "cancelled"
    assert gates.acted == []


async def test_what_was_committed_cannot_be_cancelled(gates: Gates, client: Bus) -> None:
    gates.go.clear()
    asking = asyncio.create_task(order(client, id="r1"))
    await until(lambda: gates.committed)
    assert await cancel(client, "r1") == {"ok": True, "outcome": "too_late", "seen": True}
    gates.go.set()
    assert (await asking)["ok"]
    assert await cancel(client, "r1") == {"ok": True, "outcome": "too_late", "seen": True}


async def test_a_cancellation_that_comes_first_holds_for_what_comes_later(
    gates: Gates, client: Bus
) -> None:
    seen = {"ok": True, "outcome": "cancelled", "seen": False}
    assert await cancel(client, "r1") == seen
    assert await cancel(client, "r2", "me") == seen
    assert await cancel(client, "r3", "another") == seen
    answers = [json.loads(await client.request(TOPIC, envelope(f"r{n}"))) for n in (1, 2, 3)]
    assert [one.get("error", {}).get("code") for one in answers] == ["cancelled", "cancelled", None]


async def test_a_service_that_was_started_again_knows_what_acted(gates: Gates, client: Bus) -> None:
    gates.done[f"me {TOPIC} r1"] = {"opened": 9}  # as it was stored
    assert await cancel(client, "r1", "me") == {"ok": True, "outcome": "too_late", "seen": True}


async def test_what_is_remembered_of_requests_has_a_bound(gates: Gates, client: Bus) -> None:
    ledger = gates.commands._ledger
    for number in range(REMEMBERED + 10):
        ledger.cancel("7", str(number), "")
    assert len(ledger._cancelled) == REMEMBERED
    assert (await cancel(client, "x" * 257))["error"]["code"] == "bad_request"
    long = json.loads(await client.request(TOPIC, envelope("x" * 257)))
    assert long["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("name", "code"),
    [("look", "internal_error"), ("lift", "outcome_unknown")],  # a lift was committed: it may act
)
async def test_a_handler_that_fails_is_answered_at_once_and_the_next_command_is_served(
    gates: Gates, client: Bus, name: str, code: str
) -> None:
    topic = f"patchbay/gate/7/cmd/{name}"
    gates.fails.append(OverflowError("int too big to convert"))
    answer = json.loads(await client.request(topic, b"{}", timeout_s=PATIENCE_S))
    assert answer["error"]["code"] == code
    assert json.loads(await client.request(topic, b"{}", timeout_s=PATIENCE_S))["ok"]
    assert len(gates.received) == 2
    assert gates.commands.failures == 1


async def test_the_text_of_an_error_is_answered_whatever_it_quotes(
    gates: Gates, client: Bus
) -> None:
    gates.fails.append(Rejected("bad_request", "\ud800" + "x" * 300_000))
    answer = await client.request("patchbay/gate/7/cmd/look", b"{}", timeout_s=PATIENCE_S)
    assert json.loads(answer)["error"] == {"code": "bad_request", "message": "?" + "x" * 999}


async def test_a_handler_that_waits_for_the_store_is_not_asked_for_twice(
    gates: Gates, client: Bus
) -> None:
    gates.fails.append(Unavailable("the store is away"))
    answer = await client.request(
        "patchbay/gate/7/cmd/lift", b"{}", actuates=True, timeout_s=PATIENCE_S
    )
    assert json.loads(answer)["ok"]
    assert len(gates.received) == 2


REQUESTER = f"""
import asyncio, sys
from patchbay.bus import Bus
from patchbay.testing import broker_settings
from patchbay.topics import Topics

async def main():
    bus = Bus(broker_settings(int(sys.argv[1])), client_id="r", topics=Topics(), announce=False)
    async with bus:
        await bus.wait_connected(60)
        try:
            timeout_s = float(sys.argv[2])
            print(await bus.request("{TOPIC}", b"{{}}", actuates=True, timeout_s=timeout_s))
        except Exception as error:
            print(type(error).__name__)

if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def requester(mosquitto: Part, timeout_s: float, loop: str) -> subprocess.Popen[str]:
    """A process that sends one request and prints its answer."""
    command = [sys.executable, "-c", REQUESTER, str(mosquitto.port), str(timeout_s), loop]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_requester_that_was_frozen_past_its_time_says_no_and_reports_an_error(
    gates: Gates, mosquitto: Part, loop: str
) -> None:
    """It wakes with its timer due and the question in its socket, in whatever order it looks."""
    gates.ready.clear()
    gates._within_s = 20.0
    child = requester(mosquitto, 3.0, loop)
    try:
        await until(lambda: gates.received)
        os.kill(child.pid, signal.SIGSTOP)
        gates.ready.set()
        await asyncio.sleep(3.1)
        os.kill(child.pid, signal.SIGCONT)
        out, _ = await asyncio.to_thread(child.communicate, timeout=PATIENCE_S)
    finally:
        child.kill()
        child.wait()
    assert out.splitlines()[-1] == "TimeoutError"
    await until(lambda: gates.raised)
    assert gates.acted == []


async def test_a_confirmation_that_comes_late_counts_as_none(
    mosquitto: Part, make_bus: MakeBus
) -> None:
    bus = make_bus("gate-domain-y")
    gates = Gates(bus, within_s=0.5)
    await started(bus)
    gates.ready.clear()
    child = requester(mosquitto, 60, "uvloop")
    try:
        await until(lambda: gates.received)
        os.kill(child.pid, signal.SIGSTOP)
        gates.ready.set()
        await until(lambda: gates.raised)
        os.kill(child.pid, signal.SIGCONT)
        out, _ = await asyncio.to_thread(child.communicate, timeout=PATIENCE_S)
    finally:
        child.kill()
        child.wait()
    assert "unconfirmed" in out
    assert gates.acted == []
