"""Kill -9 of every part while commands are given: none that was answered is lost, none acts twice
or late, and in the end every lantern shines as the last one says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import (
    PATIENCE_S,
    Part,
    eventually,
    free_port,
    mosquitto_part,
    store_part,
    until,
)
from patchbay_lantern.simulator import Fleet, SimulatedLantern
from tests.house import UnitPart, house_environ

LANTERNS = 20


class Units:
    """Broker, store and the four units, each a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        tlv, self.api_port, page = free_port(), free_port(), free_port()
        environ = house_environ(
            RUNTIME__STATE_DIR=directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.broker.port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=self.uri,
            STORE__TIMEOUT_S=3,
            LANTERN__PORT=tlv,
            LANTERN__API_PORT=self.api_port,
            LANTERN__PAGE_PORT=page,
            LANTERN__HISTORY=1000,
        )
        self.tlv = UnitPart("lantern.tlv", directory, tlv, environ)
        self.api = UnitPart("lantern.api", directory, self.api_port, environ)
        self.page = UnitPart("lantern.page", directory, page, environ)
        self.domain = UnitPart("lantern.domain", directory, 0, environ)
        self.parts: tuple[Part, ...] = (
            self.broker,
            self.store,
            self.tlv,
            self.api,
            self.page,
            self.domain,
        )

    async def start(self, *parts: Part) -> None:
        for part in parts:
            await asyncio.to_thread(part.start) if part.port else part.spawn()

    async def kill(self, part: Part) -> None:
        """kill -9, and start it again."""
        await asyncio.to_thread(part.kill)
        await self.start(part)


@pytest.fixture
async def units(tmp_path: Path) -> AsyncIterator[Units]:
    units = Units(tmp_path)
    try:
        await units.start(*units.parts)
        yield units
    finally:
        for part in units.parts:
            part.kill()


class Caller:
    """Somebody who gives one command after the other; ``obeyed`` were answered with 200."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/"
        self._number = 0
        self.obeyed: list[int] = []

    async def call(self) -> bool:
        self._number += 1
        params = {"command": "COLOR", "value": f"{self._number:06x}"}
        body = json.dumps({"method": "message", "params": params})
        try:
            async with self._session.post(self._url, data=body) as response:
                if response.status == 200:
                    self.obeyed.append(self._number)
                    return True
                answer: dict[str, Any] = await response.json()
                assert (response.status, answer["error"]["code"]) in (
                    (503, "unavailable"),
                    (503, "too_late"),
                    (504, "outcome_unknown"),
                )
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)  # the API itself was killed
        return False

    async def for_ever(self) -> None:
        while True:
            await self.call()


class Remembering(SimulatedLantern):
    """A lantern that remembers the colours that it had."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self.colors: list[int] = []

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.colors.append(int(self.light.color or "0", 16))


@pytest.mark.parametrize("between", [5, pytest.param(15, marks=pytest.mark.long)])
async def test_kill_9_of_every_part_under_load(units: Units, between: int) -> None:
    fleet = Fleet("127.0.0.1", units.tlv.port, 0)
    lanterns = [Remembering(fleet) for _ in range(LANTERNS)]
    fleet.lanterns.extend(lanterns)
    async with aiohttp.ClientSession() as session, fleet:
        caller = Caller(session, units.api_port)
        await eventually(caller.call)
        calling = asyncio.create_task(caller.for_ever())
        try:
            for part in (units.domain, units.tlv, units.api, units.broker, units.page, units.store):
                await obeyed_some_more(caller, between)
                await units.kill(part)
            await obeyed_some_more(caller, between)
        finally:
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling
        await eventually(caller.call)
        last = f"{caller.obeyed[-1]:06x}"
        await until(
            lambda: (
                fleet.connected == LANTERNS
                and all(one.light.color == last for one in fleet.lanterns)
            ),
            PATIENCE_S,
        )
    async with Store(StoreSettings(), units.uri) as store:
        (document,) = await store.find("lanterns", {})
    kept = [int(one["value"], 16) for one in document["history"]]
    assert set(caller.obeyed) <= set(kept), "a command that was answered is lost"
    assert kept == sorted(set(kept)), "a command acted twice, or late"
    assert last == f"{kept[-1]:06x}"
    for one in lanterns:
        assert one.colors == sorted(one.colors), "a lantern was told an old command after a new one"


async def obeyed_some_more(caller: Caller, commands: int) -> None:
    enough = len(caller.obeyed) + commands
    await until(lambda: len(caller.obeyed) >= enough)
