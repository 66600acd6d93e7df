"""Upgrade from 0.1.0: today's units start on what 0.1.0 has left, and go on from there.

The state was taken with the domains killed: events wait in the outbox of every edge, some of them
in the broker's sessions too, a job and a drink were in progress, and each collection has documents
in all their states. What has to come of it, ``expected``, is what 0.1.0 itself made of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient

from patchbay.bus import Bus, Message
from patchbay.messages import encode
from patchbay.settings import StoreSettings
from patchbay.testing import (
    PATIENCE_S,
    Part,
    broker_settings,
    free_port,
    mosquitto_part,
    store_part,
    until,
)
from patchbay.topics import Topics, device_id
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Config, GetConfig
from patchbay_locker.simulator import Board
from patchbay_mesh.simulator import Root
from patchbay_mesh.wire.content import Value
from tests.old_state import OldState, payloads, quiet, retained

SERVICES = ("allocator", "bartender", "lantern", "locker", "mesh")
UNITS = 16
EDGES = {
    "allocator-combinators-old": "allocator",
    "allocator-intake-old": "allocator",
    "bartender-pumps-old": "bartender",
    "locker-edge-old": "locker",
    "mesh-uart-old": "mesh",
}
"""The edges that have an outbox, and the services that they are of."""

RISES = frozenset({"v", "rev"})
"""Versions and revisions: how often a document is saved depends on how events come together."""

PORTS = {
    "LOCKER__PORT": "locker",
    "ALLOCATOR__PORT": "intake",
    "BARTENDER__PORT": "gui",
    "LANTERN__PORT": "tlv",
    "LANTERN__API_PORT": "api",
    "LANTERN__PAGE_PORT": "page",
    "MESH__PORT": "mesh",
    "MESH__MONITOR_PORT": "monitor",
}


class System:
    """A broker and a store with the old state, and a process for each service. ``async with``."""

    def __init__(self, directory: Path, state: OldState) -> None:
        self.state = directory / "state"
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        self.database = MongoClient[dict[str, Any]](self.uri, tz_aware=True)[
            StoreSettings().database
        ]
        self.ports = {name: free_port() for name in PORTS.values()}
        self.serial = directory / "mesh-root"
        self.topics = Topics()
        self.messages: dict[str, list[bytes]] = {}
        self.bus = self._make_bus("upgrade")
        self.watcher = self._make_bus("upgrade-watcher")
        self.watcher.listen("patchbay/#", self._heard)
        self.units = [
            Part(
                service,
                directory,
                lambda service=service: [  # type: ignore[misc]
                    *("env", *self._settings()),
                    *(sys.executable, "-P", "-m", "patchbay.runtime"),
                    *(service, "--instance", "old"),
                ],
                0,
            )
            for service in SERVICES
        ]
        self._old = state

    async def __aenter__(self) -> System:
        self.broker.start()
        self.store.start()
        await asyncio.to_thread(self._old.write_documents, self.uri, self.database.name)
        await asyncio.to_thread(self._old.write_broker, self.broker.port)
        self._old.write_outboxes(self.state)
        for bus in (self.bus, self.watcher):
            bus.start()
            await bus.wait_connected(PATIENCE_S)
        for unit in self.units:
            unit.spawn()
        return self

    async def __aexit__(self, *_error: object) -> None:
        for bus in (self.bus, self.watcher):
            await bus.stop()
        self.database.client.close()
        for part in (*self.units, self.broker, self.store):
            part.kill()

    async def settled(self) -> None:
        """Wait until every unit is online, every outbox is empty, and the documents stay."""
        await until(lambda: sum(map(self._online, self._instances())) == UNITS)
        await until(lambda: not any(self._backlog(edge) for edge in EDGES))
        await quiet(lambda: json.dumps(self.documents(), default=str, sort_keys=True))

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """All documents by collection, in the order of their ids."""
        names = sorted(self.database.list_collection_names())
        return {name: list(self.database[name].find().sort("_id", 1)) for name in names}

    async def retained(self) -> dict[str, Any]:
        """All retained payloads by topic."""
        found = await retained(self.broker.port)
        return payloads(one for one in found if not one["topic"].startswith("$"))

    async def ask(self, service: str, device: str, name: str, /, **body: object) -> dict[str, Any]:
        """The answer to a command."""
        topic = self.topics.command(service, device, name)
        answer: dict[str, Any] = msgspec.json.decode(
            await self.bus.request(topic, encode(body), timeout_s=PATIENCE_S)
        )
        assert answer["ok"], answer
        return answer

    def events(self, topic: str) -> list[str]:
        """The ids of the events that came on this topic since the start."""
        return [json.loads(payload)["id"] for payload in self.messages.get(topic, [])]

    def _make_bus(self, client_id: str) -> Bus:
        settings = broker_settings(self.broker.port)
        return Bus(settings, client_id=client_id, topics=self.topics, announce=False)

    def _settings(self) -> list[str]:
        values = {
            "RUNTIME__STATE_DIR": self.state,
            "BROKER__PORT": self.broker.port,
            "STORE__URI": self.uri,
            "MESH__SERIAL": self.serial,
            "BARTENDER__GPIO": "simulated",
            "ALLOCATOR__COMBINATORS": '["127.0.0.1:1", "127.0.0.1:2"]',
            **{f"{name.upper()}__LISTEN_HOST": "127.0.0.1" for name in SERVICES},
            **{key: self.ports[name] for key, name in PORTS.items()},
        }
        return [f"PATCHBAY_{key}={value}" for key, value in values.items()]

    def _instances(self) -> list[str]:
        return [topic.split("/")[2] for topic in self.messages if topic.endswith("-old/info")]

    def _online(self, instance: str) -> bool:
        pids = {unit.pid for unit in self.units}
        info = json.loads(self.messages[self.topics.unit_info(instance)][-1])
        status = self.messages.get(self.topics.unit_status(instance), [b""])[-1]
        return info["pid"] in pids and status == b"online"

    def _backlog(self, instance: str) -> int:
        info = json.loads(self.messages[self.topics.unit_info(instance)][-1])
        return int(info["backlog"])

    def _heard(self, message: Message) -> None:
        message.ack()
        self.messages.setdefault(message.topic, []).append(message.payload)


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """What ``found`` lacks or has otherwise. More fields are right; times only have to be there."""
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{path}.{key} is missing" for key in expected if key not in found]
        both = [key for key in expected if key in found and key not in RISES]
        return missing + [
            one for key in both for one in differences(expected[key], found[key], f"{path}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [one for at, (a, b) in pairs for one in differences(a, b, f"{path}[{at}]")]
    if _plain(expected) == _plain(found):
        return []
    return [f"{path}: {expected!r} expected, found {found!r}"]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return "<time>"
    if isinstance(value, str):
        return re.sub(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", "<time>", value)
    return pytest.approx(value, abs=0.1) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def old() -> OldState:
    return OldState("0.1.0")


@pytest.fixture
async def system(tmp_path: Path, old: OldState) -> AsyncIterator[System]:
    async with System(tmp_path, old) as system:
        await system.settled()
        yield system


async def test_upgrade_from_0_1_0(system: System, old: OldState) -> None:
    found = system.documents()
    wanted = old.documents("expected")
    assert [one for name in wanted for one in differences(wanted[name], found[name], name)] == []
    versions_go_on(old.documents("documents"), found)
    retained = await system.retained()
    assert differences(old.retained("expected"), retained) == []
    accesses_are_published(system)
    await boards_go_on(system)
    await jobs_go_on(system)
    await the_bar_goes_on(system)
    await lanterns_go_on(system)
    await nodes_go_on(system)
    await system.settled()
    letters = len(old.documents("expected")["dead"])
    assert len(system.documents()["dead"]) == letters


def versions_go_on(
    before: dict[str, list[dict[str, Any]]], found: dict[str, list[dict[str, Any]]]
) -> None:
    """No document has a lower version or revision than 0.1.0 gave it."""
    for name, documents in before.items():
        now = {one["_id"]: one for one in found[name]}
        for one in documents:
            for key in RISES & one.keys():
                assert now[one["_id"]][key] >= one[key], (name, one["_id"], key)


def accesses_are_published(system: System) -> None:
    """Each access that waited in an outbox is published; a repetition has the same id."""
    topics = [topic for topic in system.messages if topic.endswith("/event/opened")]
    assert len({id for topic in topics for id in system.events(topic)}) == 4


async def boards_go_on(system: System) -> None:
    """Boards get the codes and the block that 0.1.0 has decided on; reports count on."""
    before = {one["_id"]: one for one in system.documents()["boards"]}
    wanted = {"b-1": {1: "1111"}, "Haus 7/ä": {9: "0909"}, "b-3": {}}
    for id in ("b-1", "b-2", "b-3", "Haus 7/ä"):
        document = before[device_id(id)]
        board = Board(id, system.ports["locker"])
        board.send, board._resets = document["send"], False
        answer = await board.report()
        assert answer.blocked == (id == "b-2")
        if id in wanted:
            assert {code.cell: code.code for code in answer.codes} == wanted[id]
        board.disconnect()

        def counted(document: dict[str, Any] = document) -> bool:
            now = system.database["boards"].find_one({"_id": document["_id"]})
            return now is not None and now["reports"] == document["reports"] + 1

        await until(counted)
    answer = await system.ask("locker", device_id("b-4"), "assign", cell=1, minutes=5)
    rev = before[device_id("b-4")]["rev"]
    assert json.loads(system.messages["patchbay/locker/b-4/desired"][-1])["rev"] > rev


async def jobs_go_on(system: System) -> None:
    """All jobs are listed, the mode is as it was set, and a new job is taken."""
    await send("127.0.0.1", system.ports["intake"], Job("new", "after the upgrade", "123456"))
    jobs = system.database["jobs"]
    await until(lambda: jobs.count_documents({"data.CustomerName": "after the upgrade"}) == 1)
    listed = await system.ask("allocator", "queue", "list", limit=200)
    assert listed["total"] == jobs.count_documents({}) == len(listed["jobs"])
    assert (await system.ask("allocator", "queue", "mode"))["mode"] == "manual"
    waiting = next(one for one in listed["jobs"] if one["status"] == "waiting")
    await system.ask("allocator", "queue", "recolor", job=waiting["_id"], ColorCode="00ff00")
    failed = next(one for one in listed["jobs"] if one["status"] == "error")
    await system.ask("allocator", "queue", "retry", job=failed["_id"])


async def the_bar_goes_on(system: System) -> None:
    """A GUI sees what was configured, the history is there, and a drink runs."""
    async with Gui(system.ports["gui"]) as gui:
        await gui.say(GetConfig())
        config = await gui.hear(Config)
        assert config.sec_per_liter == 200
        assert [pump.enabled for pump in config.pumps].count(False) == 1
    runs = (await system.ask("bartender", "bar", "history"))["runs"]
    assert len(runs) == 4
    answer = await system.ask("bartender", "bar", "blend", cup_size=0.002, ratios={"1": 1.0})
    blends = system.database["blends"]
    ended = {"_id": answer["run_id"], "status": "done"}
    await until(lambda: blends.count_documents(ended) == 1)


async def lanterns_go_on(system: System) -> None:
    """A lantern that connects gets the last state, and commands count on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", system.ports["tlv"])
    async with asyncio.timeout(PATIENCE_S):
        first = await reader.readexactly(9)
    assert bytes.fromhex("200003ff8000") in first
    assert bytes.fromhex("120000") in first
    rev = (await system.ask("lantern", "all", "state"))["rev"]
    await system.ask("lantern", "all", "set", command="COLOR", value="0000ff")
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readexactly(6) == bytes.fromhex("2000030000ff")
    assert (await system.ask("lantern", "all", "state"))["rev"] > rev
    writer.close()


async def nodes_go_on(system: System) -> None:
    """What nodes have said is there, and what they say is added."""
    root = Root(system.serial, [5])
    root.plug()
    try:
        await until(lambda: system.messages["patchbay/mesh/root/status"][-1] == b"online")
        count = system.database["readings"].count_documents({"node": 5})
        await root.report(5, Value(b"CNT", b"\0\1"))
        await until(lambda: system.database["readings"].count_documents({"node": 5}) == count + 1)
        history = await system.ask("mesh", "nodes", "history", node=5, type="CNT", limit=100)
        assert len(history["values"]) == 1 + 4 + 6
    finally:
        root.unplug()
