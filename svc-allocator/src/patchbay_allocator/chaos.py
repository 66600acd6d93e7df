"""Chromebooks and combinators for ``patchbay chaos``: each job that was taken has to be mixed once.

A Chromebook gets no answer. A job counts as accepted when its connection was read to its end, and
the same process has read the end of another one after that: what it took before is committed then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.store import Store
from patchbay_allocator.mixer import Mixer, waits
from patchbay_allocator.settings import DEMO_PORTS, AllocatorSettings
from patchbay_allocator.wire.intake import Job, encode

CLIENT = "chaos"
INTERVAL_S = 1.5
MIXING_S = 0.02
END_S = 15.0
"""Longer than any fault."""


class Classroom(Load):
    """A Chromebook that sends one job after the other, and combinators that mix them."""

    settings: ClassVar[Mapping[str, str]] = {
        "ALLOCATOR__RECONNECT_GRACE_S": "2",
        "ALLOCATOR__RETRY_INITIAL_S": "0.2",
        "ALLOCATOR__RETRY_MAX_S": "1",
    }

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._port = around.config.port(around.config.table("allocator", AllocatorSettings).port)
        self._mixers = [
            Mixer(device, waits(MIXING_S, 0, around.chance), keeps_answers=True)
            for device in range(1, len(DEMO_PORTS) + 1)
        ]
        self._sent: list[str] = []
        self._accepted: set[str] = set()
        self._read: tuple[int, str] | None = None

    async def run(self) -> None:
        try:
            for mixer, port in zip(self._mixers, DEMO_PORTS, strict=True):
                await mixer.start("127.0.0.1", self.around.config.port(port))
            while not self.quiet.is_set():
                await self._send(f"job-{len(self._sent) + 1}")
                await self.pause(INTERVAL_S)
            await asyncio.Event().wait()
        finally:
            for mixer in self._mixers:
                await mixer.stop()

    async def _send(self, name: str) -> None:
        pid = self.around.pid("allocator.intake")
        try:
            async with asyncio.timeout(END_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._sent.append(name)
                try:
                    color = f"{len(self._sent) & 0xFFFFFF:06x}"
                    writer.write(encode(Job(CLIENT, name, color)))
                    writer.write_eof()
                    at_end = await reader.read() == b""
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return
        if at_end and pid == self.around.pid("allocator.intake"):
            before, self._read = self._read, (pid, name)
            if before is not None and before[0] == pid:
                self._accepted.add(before[1])

    async def tally(self, store: Store) -> Tally:
        jobs = await store.find("jobs", {"ClientName": CLIENT})
        names = Counter(str(job["data"]["CustomerName"]) for job in jobs)
        mixed = Counter(id for mixer in self._mixers for id in mixer.mixed)
        tally = Tally(accepted=len(self._accepted), unknown=len(self._sent) - len(self._accepted))
        done = {str(job["data"]["CustomerName"]) for job in jobs if job["status"] == "done"}
        tally.lost += sorted(self._accepted - {*names})
        tally.lost += [f"{name}: not mixed" for name in sorted({*names} - done)]
        tally.doubled += [
            f"{name}: {times} documents" for name, times in names.items() if times > 1
        ]
        for job in jobs:
            times, attempts = mixed[str(job["_id"])], 1 + int(job.get("attempts", 0))
            name = str(job["data"]["CustomerName"])
            if times > attempts:
                tally.doubled.append(f"{name}: mixed {times} times in {attempts} attempts")
            if times == 0 and name in done:
                tally.miscounted.append(f"{name}: done, and never mixed")
        return tally
