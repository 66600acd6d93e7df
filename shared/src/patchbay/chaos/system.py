"""The system that is broken on purpose: broker, store, and each unit behind links of its own.

unit --- Link ------+--- broker         a process each, started again when it has ended
domain - StoreLink -+--- store
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from patchbay.chaos.faults import BROKER, STORE, Fault
from patchbay.chaos.link import Link
from patchbay.chaos.store_link import Refusal, StoreLink
from patchbay.services import DOMAIN, Service

RESTART_S: Final = 0.5
"""From the end of a process to its next start, as with a supervisor."""

STOP_S: Final = 6.0
"""A unit takes 5 s at most to stop."""

DELAY_S: Final = 0.1


class Process:
    """A process that is started again whenever it ends. ``starts`` counts all that."""

    def __init__(
        self, name: str, command: list[str], log: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.pid = 0
        self.starts = 0
        self._command = command
        self._log = log
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run it until `stop`."""
        self._task = asyncio.create_task(self._run(), name=f"supervision of {self.name}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long, by another process: if we are killed meanwhile, it
        goes on all the same, and ends."""
        if self._process is not None and self._process.returncode is None:
            await asyncio.create_subprocess_exec(
                *("sh", "-c", 'kill -STOP "$0" && sleep "$1"; kill -CONT "$0"'),
                *(str(self._process.pid), f"{seconds:.1f}"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                process_group=0,
            )

    async def stop(self) -> None:
        """End it for good: SIGTERM, then SIGKILL."""
        if self._task is not None:
            self._task.cancel()
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    async def _run(self) -> None:
        while True:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self._environ),
                    process_group=0,  # Ctrl-C is for us alone
                )
            self.pid = self._process.pid
            self.starts += 1
            await self._process.wait()
            await asyncio.sleep(RESTART_S)


class System:
    """Everything that runs. ``async with`` starts and ends it.

    ``environ`` holds the settings of all units; broker and store are added for each.
    """

    def __init__(
        self, state: Path, services: Sequence[Service], environ: Mapping[str, str], offset: int
    ) -> None:
        self.units = [f"{service.name}.{role}" for service in services for role in service.roles]
        self.processes: dict[str, Process] = {}
        self._state = state
        self._environ = environ
        self._offset = offset
        self.broker_port = _free_port()
        self.store_port = _free_port()
        self._links = {unit: Link("127.0.0.1", self.broker_port) for unit in self.units}
        self._store_links = {
            unit: StoreLink("127.0.0.1", self.store_port)
            for unit in self.units
            if unit.endswith(f".{DOMAIN}")
        }
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        (self._state / "log").mkdir(parents=True, exist_ok=True)
        for link in (*self._links.values(), *self._store_links.values()):
            await self._stack.enter_async_context(link)
        broker = ("--state", str(self._state / BROKER), "--port", str(self.broker_port))
        store = ("--storage", str(self._state / STORE), "--port", str(self.store_port))
        self._add(BROKER, "patchbay.broker", *broker, "--supervised")
        self._add(STORE, "patchbay.embedded", *store, "--supervised")
        for unit in self.units:
            self._add(unit, "patchbay.runtime", unit, "--supervised")
        for process in self.processes.values():
            process.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        units = [self.processes[unit] for unit in self.units]
        await asyncio.gather(*(process.stop() for process in units))
        await asyncio.gather(*(self.processes[name].stop() for name in (BROKER, STORE)))
        await self._stack.aclose()

    @property
    def uri(self) -> str:
        """The store, past all links."""
        return f"mongodb://127.0.0.1:{self.store_port}"

    def pid(self, name: str) -> int:
        """The process that runs a unit, the broker or the store now; 0 before its first start."""
        return self.processes[name].pid

    async def inflict(self, fault: Fault) -> None:
        """Let a fault happen, for as long as it lasts; then all is well again with its target."""
        process = self.processes[fault.target]
        link = self._links.get(fault.target)
        store_link = self._store_links.get(fault.target)
        try:
            match fault.kind:
                case "kill":
                    process.signal(signal.SIGKILL)
                case "freeze":
                    await process.freeze(fault.seconds)
                case "stall" if link is not None:
                    link.stall(fault.way)
                case "delay" if link is not None:
                    link.delay(DELAY_S)
                case "cut":
                    for one in (link, store_link):
                        if one is not None:
                            one.cut()
                case "refuse":
                    for one in (link, store_link):
                        if one is not None:
                            one.refuse()
                case "writes" if store_link is not None:
                    code, name = fault.code
                    store_link.refuse_writes(Refusal(code=code, name=name, how=fault.how))
            await asyncio.sleep(fault.seconds)
        finally:
            process.signal(signal.SIGCONT)
            for one in (link, store_link):
                if one is not None:
                    one.resume()

    def _add(self, name: str, module: str, *arguments: str) -> None:
        environ = dict(self._environ)
        if (link := self._links.get(name)) is not None:
            environ["PATCHBAY_BROKER__PORT"] = str(link.port - self._offset)
        if (store_link := self._store_links.get(name)) is not None:
            environ["PATCHBAY_STORE__URI"] = store_link.uri
        command = [sys.executable, "-P", "-m", module, *arguments]
        log = self._state / "log" / f"{name}.log"
        self.processes[name] = Process(name, command, log, {**os.environ, **environ})


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
