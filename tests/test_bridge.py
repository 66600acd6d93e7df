"""A locker edge on a Pi with a mosquitto of its own, bridged to the broker with passwords."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from patchbay.access.conf import CONFIGURATION
from patchbay.bus import Message
from patchbay.messages import UnitInfo, decode_events
from patchbay.testing import PATIENCE_S, eventually, free_port, store_part, until
from patchbay_locker.simulator import Board
from tests.house import UnitPart, house_environ
from tests.secure import SecureBroker

EDGE = "locker-edge-test"


class Outpost:
    """Here broker, store and domain; there an edge and a mosquitto with a bridge."""

    def __init__(self, directory: Path) -> None:
        self.broker = SecureBroker(directory / "broker")
        self.store = store_part(directory / "store")
        secrets = self.broker.secrets.path
        self.near = near = SecureBroker(directory / "pi")
        self.hand_on()
        common = {
            "RUNTIME__STATE_DIR": directory / "state",
            "STORE__URI": f"mongodb://127.0.0.1:{self.store.port}",
            "BROKER__BACKOFF_MAX_S": 0.5,
        }
        self.edge = UnitPart(
            "locker.edge",
            directory,
            port := free_port(),
            house_environ(
                **common,
                BROKER__PORT=near.port,
                BROKER__TLS="true",
                BROKER__CA_FILE=near.secrets.path / "ca.crt",
                BROKER__PASSWORD_FILE=near.secrets.path / "units" / "{user}",
                LOCKER__PORT=port,
            ),
        )
        self.domain = UnitPart(
            "locker.domain",
            directory,
            0,
            house_environ(
                **common,
                BROKER__PORT=self.broker.port,
                BROKER__TLS="true",
                BROKER__CA_FILE=secrets / "ca.crt",
                BROKER__PASSWORD_FILE=secrets / "units" / "{user}",
            ),
        )
        self.bus = self.broker.bus("operator")
        self.reports: list[str] = []
        self.backlog = -1
        self.bus.listen("patchbay/locker/+/event/report", self._report)
        self.bus.listen("patchbay/locker/+/event/batch", self._report)
        self.bus.listen(f"patchbay/status/{EDGE}/info", self._info)

    def hand_on(self) -> None:
        """Put what `patchbay broker bridge` prints behind the configuration of the near broker,
        which has passwords of its own."""
        command = [
            *(sys.executable, "-m", "patchbay.cli", "broker", "bridge", EDGE),
            *(str(self.broker.secrets.path), "--host", "127.0.0.1"),
            *("--port", str(self.broker.port)),
            *("--ca-file", str(self.broker.secrets.path / "ca.crt")),
        ]
        clean = {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}
        bridge = subprocess.run(
            command, env=clean, capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stdout
        with (self.near.secrets.path / CONFIGURATION).open("a") as file:
            file.write(bridge)

    async def __aenter__(self) -> Outpost:
        for part in (self.broker, self.store, self.near):
            await asyncio.to_thread(part.start)
        self.bus.start()
        await self.bus.wait_connected(PATIENCE_S)
        self.domain.spawn()
        await asyncio.to_thread(self.edge.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bus.stop()
        for part in (self.edge, self.domain, self.near, self.broker, self.store):
            part.kill()

    def _report(self, message: Message) -> None:
        message.ack()
        self.reports += [event.id for event in decode_events(message.payload)]

    def _info(self, message: Message) -> None:
        message.ack()
        self.backlog = msgspec.json.decode(message.payload, type=UnitInfo).backlog


@pytest.fixture
async def outpost(tmp_path: Path) -> AsyncIterator[Outpost]:
    async with Outpost(tmp_path) as outpost:
        yield outpost


async def test_reports_and_codes_cross_the_bridge_and_wait_while_it_is_down(
    outpost: Outpost,
) -> None:
    board = Board("1953", outpost.edge.port)
    await board.report(deadline_s=PATIENCE_S)  # a new board is answered when the domain has spoken

    async def a_cell_is_rented() -> bool:
        body = b'{"cell": 1, "minutes": 60, "code": "1492"}'
        answer = await outpost.bus.request("patchbay/locker/1953/cmd/assign", body)
        return b'"ok":true' in answer

    await eventually(a_cell_is_rented)

    async def until_told() -> None:
        while 1 not in board.codes:
            await board.report(deadline_s=PATIENCE_S)

    await asyncio.wait_for(until_told(), PATIENCE_S)
    outpost.broker.kill()
    before = board.send
    for _ in range(20):
        await board.report(deadline_s=PATIENCE_S)  # answered: the edge knows the codes by itself
    assert board.codes[1].code == "1492"
    await asyncio.to_thread(outpost.broker.start)
    wanted = {f"{send:010}" for send in range(before + 1, board.send + 1)}

    def all_came() -> bool:
        return wanted <= {one.rpartition(":")[2] for one in outpost.reports}

    await until(all_came)
    await until(lambda: outpost.backlog == 0)
    assert "Denied" not in outpost.broker.log.read_text()
    board.disconnect()
