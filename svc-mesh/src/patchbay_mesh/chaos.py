"""A mesh and a client program for ``patchbay chaos``.

A serial line answers nothing, so a value counts as accepted when the socket API has shown it. A
message that the API has refused never reaches the root.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.store import Store
from patchbay_mesh.client import MeshClient, MeshError, Refused
from patchbay_mesh.settings import MeshSettings, serial_port
from patchbay_mesh.simulator import Root
from patchbay_mesh.wire.content import Value
from patchbay_mesh.wire.uart import Command

from pathlib import Path  # isort: skip

NODES = (5, 6, 7)
TYPE = b"CNT"
REPORT_S = 0.1
REQUEST_S = 0.4
TIMEOUT_S = 12.0
PREFIX = b"chaos-"


class Programs(Load):
    """A root whose nodes count, and a program that reads and sends through the socket API."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        settings = around.config.table("mesh", MeshSettings)
        port = around.config.port(settings.port)
        self._client = MeshClient("127.0.0.1", port, timeout_s=TIMEOUT_S)
        self._link = Path(serial_port(around.config) or "")
        self._count = 0
        self._accepted: set[tuple[int, int]] = set()
        self._outcomes: dict[bytes, str] = {}
        self._written: list[tuple[float, bytes]] = []

    async def run(self) -> None:
        root = Root(self._link, NODES)
        root.on_command = self._heard
        root.plug()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._report(root))
                group.create_task(self._read())
                group.create_task(self._send())
                await asyncio.Event().wait()
        finally:
            root.unplug()

    def _heard(self, command: Command) -> None:
        if command.message.startswith(PREFIX):
            self._written.append((time.monotonic(), command.message))

    async def _report(self, root: Root) -> None:
        while not self.quiet.is_set():
            self._count += 1
            node = NODES[self._count % len(NODES)]
            value = Value(TYPE, self._count.to_bytes(4, "big"))
            with contextlib.suppress(TimeoutError):  # an edge that is frozen reads nothing
                async with asyncio.timeout(TIMEOUT_S):
                    await root.report(node, value)
            await self.pause(REPORT_S)

    async def _read(self) -> None:
        while not self.quiet.is_set():
            node = self.around.chance.choice(NODES)
            with contextlib.suppress(MeshError):
                data = await asyncio.to_thread(self._client.get, TYPE.decode(), node)
                self._accepted.add((node, int.from_bytes(data, "big")))
            await self.pause(REQUEST_S)

    async def _send(self) -> None:
        while not self.quiet.is_set():
            message = PREFIX + str(len(self._outcomes) + 1).encode()
            self._outcomes[message] = "unknown"
            try:
                await asyncio.to_thread(self._client.send, NODES[0], message)
                self._outcomes[message] = "accepted"
            except Refused as error:
                if "unknown" not in str(error).lower():
                    self._outcomes[message] = "refused"
            except MeshError:
                pass
            await self.pause(REQUEST_S)

    async def tally(self, store: Store) -> Tally:
        outcomes = Counter(self._outcomes.values())
        tally = Tally(
            outcomes["accepted"] + len(self._accepted), outcomes["refused"], outcomes["unknown"]
        )
        readings = await store.find("readings", {"type": TYPE.decode()})
        values = Counter(
            (int(one["node"]), int.from_bytes(bytes(one["data"]), "big")) for one in readings
        )
        tally.lost += [f"value {one}" for one in sorted(self._accepted - {*values})]
        tally.doubled += [f"value {one}" for one, times in values.items() if times > 1]
        for one in await store.find("nodes", {}):
            there = sum(times for (node, _), times in values.items() if node == one["node"])
            if one["readings"] != there:
                tally.miscounted.append(
                    f"node {one['node']} counts {one['readings']} readings, has {there}"
                )
        written = Counter(message for _, message in self._written)
        for message, outcome in self._outcomes.items():
            name = message.decode()
            if outcome == "accepted" and not written[message]:
                tally.lost.append(f"message {name}")
            if outcome == "refused" and written[message]:
                tally.late.append(f"message {name} was written though it was refused")
            if written[message] > 1:
                tally.doubled.append(f"message {name}")
        return tally
