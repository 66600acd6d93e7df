"""Answers on topics that requesters have named: none of them costs a service its connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.answers import TOPIC_BYTES, TOPIC_LEVELS, topic_complaint
from patchbay.bus.commands import Command
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, broker_settings, until
from patchbay.topics import Topics

INVALID = [
    "",
    "a/" * TOPIC_LEVELS + "b",
    "a" * (TOPIC_BYTES + 1),
    "patchbay/reply/+",
    "patchbay/#",
    "$SYS/x",
    "$share/g/x",
    "x\x00y",
    "x\x1by",
    "x\x85y",
    "x\ufffey",
    "x\U0001ffffy",
    "x\ufdd0y",
    "x\ud800y",
]


@pytest.mark.parametrize("topic", INVALID)
def test_a_topic_that_some_broker_refuses_is_invalid(topic: str) -> None:
    assert topic_complaint(topic)


@pytest.mark.parametrize(
    "topic", ["patchbay/reply/me", "a/b/c/d/e/f/g/h", "gr\u00fc\u00dfe/\uc774\ub984", "a" * 256]
)
def test_a_topic_that_every_broker_takes_is_valid(topic: str) -> None:
    assert topic_complaint(topic) == ""


class Doors:
    """A tiny service: counts what it was asked for."""

    def __init__(self, bus: Bus) -> None:
        self.opened: list[str] = []
        self._done: dict[str, int] = {}
        Commands(bus, "gate", {"open": Command(dict, self.open)})

    async def open(self, request: Request, body: dict[str, str]) -> dict[str, int]:
        if request.id not in self._done:
            self.opened.append(body["who"])
            self._done[request.id] = len(self.opened)
        return {"number": self._done[request.id]}


class Strict:
    """A TCP proxy before the broker that closes the connection of a client which sends ``word``, as
    a broker does which refuses a packet without giving a reason."""

    def __init__(self, port: int, word: bytes) -> None:
        self._port = port
        self._word = word
        self.closed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        tasks = [
            asyncio.create_task(self._pipe(reader, back, self._word)),
            asyncio.create_task(self._pipe(there, writer, None)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, back):
            end.close()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if word is not None and word in data:
                    self.closed += 1
                    return
                writer.write(data)
                await writer.drain()


@pytest.fixture
async def strict(mosquitto: Part) -> AsyncIterator[tuple[Strict, int]]:
    proxy = Strict(mosquitto.port, b"patchbay/reply/evil")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        yield proxy, server.sockets[0].getsockname()[1]


async def test_a_request_whose_answer_makes_the_broker_disconnect_us_is_set_aside(
    strict: tuple[Strict, int], make_bus: MakeBus
) -> None:
    proxy, port = strict
    bus = Bus(
        broker_settings(port),
        client_id="gate-domain-x",
        topics=Topics(),
        durable=True,
        announce=False,
    )
    doors = Doors(bus)
    letters = Seen()
    asker = make_bus("asker")
    asker.subscribe("patchbay/dead/gate", letters.take)
    async with bus:
        asker.start()
        await asker.wait_connected(PATIENCE_S)
        await bus.wait_connected(PATIENCE_S)
        topic = "patchbay/gate/7/cmd/open"
        await asker.publish(topic, b'{"who": "evil"}', response_topic="patchbay/reply/evil")
        await until(lambda: len(letters) == 1)
        assert json.loads(letters[0].payload)["topic"] == topic
        assert (proxy.closed, bus.reconnects) == (2, 2)
        answer = await asker.request(topic, b'{"who": "good"}', timeout_s=PATIENCE_S)
        assert json.loads(answer)["ok"]
        assert sorted(set(doors.opened)) == ["evil", "good"]


@pytest.mark.parametrize(
    "topic",
    [
        one
        for one in INVALID[1:]
        if "\ud800" not in one and "\x00" not in one and not any(c in one for c in "+#")
    ],
)
async def test_a_request_with_an_invalid_response_topic_is_refused_and_costs_no_connection(
    make_bus: MakeBus, topic: str
) -> None:
    bus, asker, rejected = make_bus("gate-domain-x", durable=True), make_bus("asker"), Seen()
    doors = Doors(bus)
    asker.subscribe("patchbay/gate/+/event/rejected", rejected.take)
    for one in (bus, asker):
        one.start()
        await one.wait_connected(PATIENCE_S)
    request = "patchbay/gate/7/cmd/open"
    with contextlib.suppress(Exception):  # the broker may refuse the request itself
        async with asyncio.timeout(0.5):
            await asker.publish(request, b'{"who": "evil"}', response_topic=topic)
    await until(lambda: asker.connected)
    answer = await asker.request(request, b'{"who": "good"}', timeout_s=PATIENCE_S)
    assert json.loads(answer)["ok"]
    assert (doors.opened, bus.reconnects) == (["good"], 0)
    assert all(b"bad_request" in one.payload for one in rejected)
