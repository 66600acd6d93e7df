"""Commands and their answers, against a real Mosquitto."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from patchbay.bus import Bus, Commands, Message, Request
from patchbay.bus.commands import Command
from patchbay.errors import Rejected, Unavailable
from patchbay.messages import encode
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, broker_settings, pub, until
from patchbay.topics import Topics


class Cells:
    """Handles the commands of a tiny service. It comes to no end while ``go`` is not set."""

    def __init__(self, done: dict[str, dict[str, object]] | None = None) -> None:
        self.requests: list[Request] = []
        self.done: dict[str, dict[str, object]] = {} if done is None else done
        self.go = asyncio.Event()
        self.go.set()

    async def open(self, request: Request, body: dict[str, int]) -> dict[str, object]:
        self.requests.append(request)
        if body.get("cell") == 13:
            raise Rejected("no_such_cell", "there is no cell 13")
        self.done[request.id] = {"cell": body.get("cell")}
        await self.go.wait()
        return self.done[request.id]

    async def remembered(self, request: Request, _body: object) -> dict[str, object] | None:
        return self.done.get(request.id) if request.again else None

    async def stop(self, request: Request, body: Halt) -> dict[str, object]:
        self.requests.append(request)
        return {"cell": body.cell}


class Halt(msgspec.Struct, forbid_unknown_fields=True):
    """A stop: of one cell, or of all."""

    cell: int | None = None


@pytest.fixture
async def cells(make_bus: MakeBus) -> Cells:
    cells = Cells()
    bus = make_bus("locker-domain-x", durable=True)
    Commands(bus, "locker", {"open": Command(dict, cells.open, moves=True)})
    bus.start()
    await bus.wait_connected(5)
    await until(lambda: not bus._router.late)
    return cells


async def test_a_request_is_answered(cells: Cells, make_bus: MakeBus) -> None:
    client = make_bus("cli")
    client.start()
    await client.wait_connected(5)
    topic = "patchbay/locker/7/cmd/open"
    assert json.loads(await client.request(topic, b'{"cell": 5}')) == {"ok": True, "cell": 5}
    refused = json.loads(await client.request(topic, b'{"cell": 13}'))
    assert refused["error"] == {"code": "no_such_cell", "message": "there is no cell 13"}
    too_deep = b'{"cell": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    for wrong in (b"{", b"\xff", b"[1]", b'"x"', b'{"cell": "\xff"}', too_deep):
        answer = json.loads(await client.request(topic, wrong))
        assert answer["error"]["code"] == "bad_request", wrong
    unknown = json.loads(await client.request("patchbay/locker/7/cmd/fly", b""))
    assert unknown["error"]["code"] == "unknown_command"


def test_mosquitto_rr_gets_an_answer_from_another_process(mosquitto: Part) -> None:
    """A plain `mosquitto_rr` is a whole client."""

    async def scenario() -> bytes:
        bus = Bus(broker_settings(mosquitto.port), client_id="d", topics=Topics(), announce=False)
        cells = Cells()
        Commands(bus, "locker", {"open": Command(dict, cells.open)})
        async with bus:
            await bus.wait_connected(5)
            process = await asyncio.create_subprocess_exec(
                *("mosquitto_rr", "-p", str(mosquitto.port), "-e", "patchbay/reply/rr"),
                *("-t", "patchbay/locker/7/cmd/open", "-m", '{"cell": 4}', "-W", "10"),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate()
        return out

    assert json.loads(asyncio.run(scenario())) == {"ok": True, "cell": 4}


async def test_a_plain_311_publisher_is_understood_and_its_failure_is_an_event(
    cells: Cells, make_bus: MakeBus, mosquitto: Part
) -> None:
    client = make_bus("watch")
    rejected = Seen()
    client.subscribe("patchbay/locker/7/event/rejected", rejected.take)
    client.start()
    await client.wait_connected(5)
    pub(mosquitto, "patchbay/locker/7/cmd/open", '{"cell": 5}', "-V", "311", "-q", "1")
    pub(mosquitto, "patchbay/locker/7/cmd/open", '{"cell": 13}', "-V", "311")
    await until(lambda: len(rejected) == 1 and len(cells.requests) == 2)
    event = json.loads(rejected[0].payload)
    assert event["specversion"] == "1.0"
    assert event["data"]["code"] == "no_such_cell"
    assert not cells.requests[0].again


async def test_a_command_in_an_envelope_is_known_by_source_id_and_topic(
    cells: Cells, make_bus: MakeBus
) -> None:
    client = make_bus("cli")
    client.start()
    await client.wait_connected(5)
    for source, board in (("desk-1", 7), ("desk-1", 7), ("desk-2", 7), ("desk-1", 8)):
        event = {"specversion": "1.0", "id": "1", "source": source, "data": {"cell": 2}}
        await client.request(f"patchbay/locker/{board}/cmd/open", encode(event))
    first, again, other_sender, other_board = cells.requests
    assert first.id == again.id
    assert first.again
    assert len({first.id, other_sender.id, other_board.id}) == 3


async def test_a_retained_command_is_ignored(
    cells: Cells, make_bus: MakeBus, mosquitto: Part
) -> None:
    pub(mosquitto, "patchbay/locker/9/cmd/open", '{"cell": 1}', "-r", "-q", "1")
    await until(lambda: len(cells.requests) == 1)  # live, it is not flagged retained
    late_comer = make_bus("other")
    again = Cells()
    Commands(late_comer, "locker", {"open": Command(dict, again.open)})
    late_comer.start()
    await late_comer.wait_connected(5)
    await late_comer.publish("patchbay/locker/9/cmd/open", b'{"cell": 2}')
    await until(lambda: len(again.requests) == 1)
    assert again.requests[0].device == "9"


async def test_of_replicas_each_command_reaches_one_and_only_those_of_their_device(
    make_bus: MakeBus,
) -> None:
    both = [Cells(), Cells()]
    for number, one in enumerate(both):
        bus = make_bus(f"locker-domain-{number}")
        Commands(bus, "locker", {"open": Command(dict, one.open)}, "replicas", device="7")
        bus.start()
        await bus.wait_connected(5)
    client = make_bus("cli")
    client.start()
    await client.wait_connected(5)
    for _ in range(6):
        await client.request("patchbay/locker/7/cmd/open", b'{"cell": 1}')
    assert sum(len(one.requests) for one in both) == 6
    assert all(one.requests for one in both)
    with pytest.raises(Unavailable):
        await client.request("patchbay/locker/8/cmd/open", b'{"cell": 1}')


async def test_a_moving_command_that_was_queued_is_refused(
    make_bus: MakeBus, mosquitto: Part
) -> None:
    first = make_bus("locker-domain-x", durable=True)
    Commands(first, "locker", {"open": Command(dict, Cells().open, moves=True)})
    first.start()
    await first.wait_connected(5)
    await first.stop()
    pub(mosquitto, "patchbay/locker/7/cmd/open", '{"cell": 1}', "-q", "1")
    client = make_bus("watch")
    rejected = Seen()
    client.subscribe("patchbay/locker/7/event/rejected", rejected.take)
    client.start()
    await client.wait_connected(5)
    second = make_bus("locker-domain-x", durable=True)
    cells = Cells()
    Commands(second, "locker", {"open": Command(dict, cells.open, moves=True)})
    second.start()
    await until(lambda: len(rejected) == 1)
    assert json.loads(rejected[0].payload)["data"]["code"] == "too_late"
    assert cells.requests == []


@pytest.mark.parametrize("envelope", [False, True])
async def test_a_moving_command_that_comes_again_is_answered_as_it_was_and_obeyed_once(
    make_bus: MakeBus, mosquitto: Part, envelope: bool
) -> None:
    """Whoever obeyed it was gone before it could say so; another one that waited is refused."""
    client, topic = make_bus("watch"), "patchbay/locker/7/cmd/open"
    replies, rejected = Seen(), Seen()
    client.subscribe("patchbay/reply/me", replies.take)
    client.subscribe("patchbay/locker/7/event/rejected", rejected.take)
    client.start()
    await client.wait_connected(PATIENCE_S)
    first, before = make_bus("locker-domain-x", durable=True), Cells()
    before.go.clear()
    Commands(first, "locker", {"open": Command(dict, before.open, moves=True)})
    first.start()
    await first.wait_connected(PATIENCE_S)
    await until(lambda: not first._router.late)
    asked: dict[str, object] = {"cell": 1}
    if envelope:
        asked = {"specversion": "1.0", "id": "1", "source": "me", "data": asked}
    await client.publish(topic, encode(asked), response_topic="patchbay/reply/me", correlation=b"1")
    await until(lambda: before.requests)
    await first.stop()
    pub(mosquitto, topic, '{"cell": 2}', "-q", "1")
    after = Cells(before.done)
    second = make_bus("locker-domain-x", durable=True)
    command = Command(dict, after.open, moves=True, remembered=after.remembered)
    Commands(second, "locker", {"open": command})
    second.start()
    await until(lambda: replies and rejected)
    assert [json.loads(one) for one in replies.payloads] == [{"ok": True, "cell": 1}]
    assert replies[0].correlation == b"1"
    assert [json.loads(one)["data"]["code"] for one in rejected.payloads] == ["too_late"]
    assert after.requests == []


async def test_an_urgent_command_is_handled_once_beside_one_that_takes_its_time(
    make_bus: MakeBus,
) -> None:
    bus, client, cells, replies = make_bus("domain"), make_bus("cli"), Cells(), Seen()
    cells.go.clear()
    table = {"open": Command(dict, cells.open), "stop": Command(Halt, cells.stop, urgent=True)}
    Commands(bus, "locker", table)
    client.subscribe("patchbay/reply/me", replies.take)
    for one in (bus, client):
        one.start()
        await one.wait_connected(PATIENCE_S)
    slow = asyncio.create_task(client.request("patchbay/locker/7/cmd/open", b'{"cell": 1}'))
    await until(lambda: cells.requests)
    topic = "patchbay/locker/7/cmd/stop"
    await client.publish(topic, b'{"cell": 2}', response_topic="patchbay/reply/me")
    await until(lambda: replies)
    assert not slow.done()
    cells.go.set()
    await slow
    await client.request("patchbay/locker/7/cmd/open", b'{"cell": 3}')  # all before was handled
    assert [one.name for one in cells.requests] == ["open", "stop", "open"]
    assert [json.loads(one) for one in replies.payloads] == [{"ok": True, "cell": 2}]


@pytest.mark.parametrize("payload", [b"", b"STOP!", b"[1]", b'{"cell": "x"}', b'{"who": "me"}'])
async def test_an_urgent_command_acts_however_it_is_said(make_bus: MakeBus, payload: bytes) -> None:
    bus, client, cells = make_bus("domain"), make_bus("cli"), Cells()
    Commands(bus, "locker", {"stop": Command(Halt, cells.stop, urgent=True)})
    for one in (bus, client):
        one.start()
        await one.wait_connected(PATIENCE_S)
    topic = "patchbay/locker/7/cmd/stop"
    assert json.loads(await client.request(topic, payload)) == {"ok": True, "cell": None}
    # Who may only ask gets no answer where it could not publish itself, but is heard.
    await client.publish(topic, payload, response_topic="patchbay/locker/7/desired")
    await until(lambda: len(cells.requests) == 2)


async def test_a_moving_command_may_wait_as_long_as_it_says(make_bus: MakeBus) -> None:
    bus, cells = make_bus("locker-domain-x"), Cells()
    quick = Command(dict, cells.open, moves=True, expires_s=0.0)
    Commands(bus, "locker", {"now": quick, "soon": Command(dict, cells.open, moves=True)})
    bus.start()
    client = make_bus("cli")
    client.start()
    await bus.wait_connected(5)
    await client.wait_connected(5)
    refused = json.loads(await client.request("patchbay/locker/7/cmd/now", b'{"cell": 1}'))
    assert refused["error"]["code"] == "too_late"
    assert json.loads(await client.request("patchbay/locker/7/cmd/soon", b'{"cell": 2}'))["ok"]
    assert len(cells.requests) == 1


@pytest.mark.parametrize(
    "topic",
    [
        "patchbay/locker/7/desired",
        "patchbay/reply",
        "patchbay/reply/a/b/c/d/e/f/g",
        "homeassistant/switch/x/config",
        "reply/me",
    ],
)
async def test_an_answer_never_goes_to_a_topic_that_is_not_below_reply(
    cells: Cells, make_bus: MakeBus, topic: str
) -> None:
    """Who may ask, and no more, would publish there by the hand of one who may."""
    client, seen = make_bus("cli"), Seen()
    client.subscribe("#", seen.take)
    client.start()
    await client.wait_connected(5)
    await client.publish("patchbay/locker/7/cmd/open", b"{}", response_topic=topic)

    def refused() -> list[Message]:
        return [one for one in seen if one.topic == "patchbay/locker/7/event/rejected"]

    await until(refused)
    assert b"the response topic must be patchbay/reply/<client> or below" in refused()[0].payload
    assert cells.requests == []
    assert topic not in {one.topic for one in seen}


@pytest.mark.parametrize("topic", ["patchbay/reply/me/x", "patchbay/reply/a/b/c/d/e/f"])
async def test_an_answer_goes_to_any_topic_below_reply(
    cells: Cells, make_bus: MakeBus, topic: str
) -> None:
    client, seen = make_bus("cli"), Seen()
    client.subscribe("patchbay/reply/#", seen.take)
    client.start()
    await client.wait_connected(5)
    await client.publish("patchbay/locker/7/cmd/open", b'{"cell": 3}', response_topic=topic)
    await until(lambda: len(seen) == 1)
    assert seen[0].topic == topic
    assert json.loads(seen[0].payload) == {"ok": True, "cell": 3}


async def test_commands_of_a_device_that_another_unit_serves_are_left_to_it(
    make_bus: MakeBus,
) -> None:
    here, there = Cells(), Cells()
    domain, edge, client = make_bus("domain"), make_bus("edge"), make_bus("cli")
    table = {"open": Command(dict, here.open)}
    Commands(domain, "locker", table, elsewhere=("root",))
    Commands(edge, "locker", {"open": Command(dict, there.open)}, device="root")
    for bus in (domain, edge, client):
        bus.start()
        await bus.wait_connected(5)
    for device in ("root", "7"):
        answer = await client.request(f"patchbay/locker/{device}/cmd/open", b'{"cell": 1}')
        assert json.loads(answer)["ok"]
    assert [one.device for one in here.requests] == ["7"]
    assert [one.device for one in there.requests] == ["root"]


async def test_a_request_that_is_given_up_at_once_takes_no_other_with_it(
    cells: Cells, make_bus: MakeBus
) -> None:
    client = make_bus("cli")
    client.start()
    await client.wait_connected(5)
    topic = "patchbay/locker/7/cmd/open"
    first = asyncio.create_task(client.request(topic, b'{"cell": 1}'))
    await asyncio.sleep(0)  # it waits for the subscription to its answers
    first.cancel()
    answer = await client.request(topic, b'{"cell": 2}')
    assert json.loads(answer) == {"ok": True, "cell": 2}
