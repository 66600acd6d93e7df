"""All units, each with its own user and no other right than its own, do all that they do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from pymongo import AsyncMongoClient, MongoClient

from patchbay.access.store_users import SHARED, roles, users
from patchbay.bus import Message
from patchbay.testing import Part, eventually, free_port, store_part, until
from patchbay.topics import matches
from tests.house import UnitPart, house_environ
from tests.secure import SecureBroker

DATABASE = "patchbay"
LANTERNS = 3
"""As many as the demo has."""

SUBSCRIBED = re.compile(r"^\S+: (?P<user>\S+) [012] (?P<filter>\S+)$")


class SecureHouse:
    """Every unit of every service, their simulated devices, and an operator."""

    def __init__(self, directory: Path) -> None:
        self.broker = SecureBroker(directory / "broker")
        self.store = store_part(directory / "store", auth=True)
        self.services = self.broker.services
        secrets = self.broker.secrets.path
        ports = {
            f"{service.name.upper()}__{key.upper()}": free_port()
            for service in self.services.values()
            for key in service.ports.values()
        }
        common: dict[str, object] = {
            "RUNTIME__STATE_DIR": directory / "state",
            "RUNTIME__DEMO": "true",
            "BROKER__PORT": self.broker.port,
            "BROKER__TLS": "true",
            "BROKER__CA_FILE": secrets / "ca.crt",
            "BROKER__BACKOFF_INITIAL_S": 0.05,
            "BROKER__BACKOFF_MAX_S": 0.5,
            "STORE__URI": f"mongodb://127.0.0.1:{self.store.port}",
            "STORE__PASSWORD_FILE": secrets / "store" / "{user}",
            **ports,
        }
        self.operator = house_environ(
            **common,
            STORE__USERNAME="nobody",
            BROKER__USERNAME="operator",
            BROKER__PASSWORD_FILE=secrets / "operators" / "{user}",
            BROKER__SESSIONS=8,
        )
        self.units: list[UnitPart] = []
        self.devices: list[DemoPart] = []
        for service in self.services.values():
            environ = house_environ(
                **common,
                BROKER__PASSWORD_FILE=secrets / "units" / "{user}",
                STORE__USERNAME=service.name,
            )
            self.units += [
                UnitPart(f"{service.name}.{role}", directory, 0, environ) for role in service.roles
            ]
            if service.demo:
                self.devices.append(DemoPart(service.name, directory, environ))
        self.lantern_api = f"http://127.0.0.1:{ports['LANTERN__API_PORT']}/"
        self.bus = self.broker.bus("operator.8")
        self.statuses: dict[str, str] = {}
        self.events: set[str] = set()
        self.dead: list[Message] = []
        self.bus.listen("patchbay/status/+", self._status)
        self.bus.listen("patchbay/dead/+", self._letter)
        self.bus.listen("patchbay/+/+/event/+", self._event)

    async def __aenter__(self) -> SecureHouse:
        make_store_users(self.broker, self.store.log.parent)
        for part in (self.broker, self.store):
            await asyncio.to_thread(part.start)
        self.bus.start()
        for part in (*self.units, *self.devices):
            part.spawn()
        await self.online()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            await self.bus.stop()
        for part in (*self.devices, *self.units, self.broker, self.store):
            part.kill()

    async def online(self) -> None:
        def all_are() -> bool:
            return all(self.statuses.get(unit.instance) == "online" for unit in self.units)

        await until(all_are)

    async def heard_of_each(self) -> None:
        """Wait for an event of each service's device. Lanterns only speak when they are told."""
        await eventually(self.lanterns_are_lit)

        def all_have() -> bool:
            return set(self.services) <= {topic.split("/")[1] for topic in self.events}

        await until(all_have)

    async def lanterns_are_lit(self) -> bool:
        """By the API: do all of the demo obey?"""
        call = {"method": "message", "params": {"command": "ON"}}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.lantern_api, json=call) as response,
        ):
            return (await response.json()).get("lanterns") == LANTERNS

    async def run(self, *command: str) -> Any:
        """A command of the operator, with --json."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "patchbay.cli", *command, "--json"),
            env=self.operator,
            cwd=self.store.log.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return msgspec.json.decode(out)

    async def collections(self) -> set[str]:
        """What is in the store."""
        client: AsyncMongoClient[Any] = AsyncMongoClient(
            f"mongodb://127.0.0.1:{self.store.port}",
            username="admin",
            password=self.broker.secrets.password("store", "admin"),
        )
        async with client:
            return set(await client[DATABASE].list_collection_names())

    def _status(self, message: Message) -> None:
        message.ack()
        self.statuses[message.topic.rpartition("/")[2]] = message.payload.decode()

    def _letter(self, message: Message) -> None:
        message.ack()
        self.dead.append(message)

    def _event(self, message: Message) -> None:
        message.ack()
        self.events.add(message.topic)


def make_store_users(broker: SecureBroker, directory: Path) -> None:
    """As SecantusDB wants it: its users are made while it asks for no password."""
    part = store_part(directory)
    part.start()
    client: MongoClient[Any] = MongoClient(f"mongodb://127.0.0.1:{part.port}")
    try:
        for one in roles(broker.services, DATABASE):
            client[DATABASE].command({"createRole": one.pop("role"), **one, "roles": []})
        admin = broker.secrets.password("store", "admin")
        everything = [{"role": "root", "db": "admin"}]
        client["admin"].command({"createUser": "admin", "pwd": admin, "roles": everything})
        for one in users(broker.secrets, broker.services):
            client[DATABASE].command({"createUser": one.pop("user"), **one})
    finally:
        client.close()
        part.stop()


class DemoPart(Part):
    """The simulated devices of a service."""

    def __init__(self, service: str, directory: Path, environ: dict[str, str]) -> None:
        command = [sys.executable, "-m", "patchbay.up.demo", service]
        super().__init__(f"{service}.demo", directory, lambda: command, 0)
        self._environ = environ

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=self.log.parent, env=self._environ
            )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[SecureHouse]:
    async with SecureHouse(tmp_path) as house:
        yield house


async def test_with_no_more_than_its_rights_every_unit_does_its_work(house: SecureHouse) -> None:
    await house.heard_of_each()
    await a_code_is_delivered(house)
    for unit in house.units:  # sessions, wills and retained messages have rights, too
        os.kill(unit.pid, signal.SIGTERM if unit.name.endswith("domain") else signal.SIGKILL)
    await until(lambda: not any(unit.running for unit in house.units))
    await until(lambda: set(house.statuses.values()) == {"offline"})
    house.events.clear()
    for unit in house.units:
        unit.spawn()
    await house.online()
    await house.heard_of_each()
    await the_queue_answers(house)
    await the_lanterns_obey(house)
    assert not house.dead, house.dead
    declared = {name for service in house.services.values() for name in service.collections}
    assert await house.collections() <= declared | set(SHARED)
    log = house.broker.log.read_text()
    assert "Denied" not in log, [line for line in log.splitlines() if "Denied" in line]
    the_log_has_only_what_may_be_read(house, log)


async def a_code_is_delivered(house: SecureHouse) -> None:
    """By the command line, as the operator: through domain and edge to a simulated board."""

    async def there_is_a_board() -> bool:
        return bool((await house.run("locker", "boards"))["boards"])

    await eventually(there_is_a_board)
    [board, *_] = (await house.run("locker", "boards"))["boards"]
    rental = await house.run("locker", "assign", board["board"], "auto", "--minutes", "60")
    opened = f"patchbay/locker/{board['board']}/event/opened"
    await until(lambda: opened in house.events)
    assert rental["cell"]


async def the_lanterns_obey(house: SecureHouse) -> None:
    answer = await house.run("lantern", "color", "ff0000")
    assert (answer["value"], answer["lanterns"]) == ("ff0000", LANTERNS)


async def the_queue_answers(house: SecureHouse) -> None:
    answer = await house.run("allocator", "list")
    assert answer["ok"]


def the_log_has_only_what_may_be_read(house: SecureHouse, log: str) -> None:
    """Nobody has subscribed to what could never reach it: that would be a right forgotten."""
    grants = house.broker.grants()
    found = [match for line in log.splitlines() if (match := SUBSCRIBED.match(line))]
    assert len({match["user"] for match in found}) > len(house.units)
    for match in found:
        readable = grants[match["user"]].subscribe
        pattern = match["filter"]
        assert any(
            matches(pattern, one.replace("+", "x")) or matches(one, pattern.replace("+", "x"))
            for one in readable
        ), f"{match['user']}: {pattern}"
