"""``patchbay chaos``: load, faults, and the reckoning at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from patchbay.bus import Bus, Message
from patchbay.chaos.faults import Fault, schedule
from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.chaos.system import System
from patchbay.errors import PatchbayError, SettingsError, Unavailable
from patchbay.services import Service, resolve
from patchbay.settings import BrokerSettings, Config, StoreSettings
from patchbay.store import Store
from patchbay.topics import Topics

MARK: Final = "chaos.json"
"""Stands in a state directory that we have made."""

START_S: Final = 120.0
"""All units have to be online by then."""

SETTLE_S: Final = 120.0
"""What was accepted and is missing has so long to come, each time that some of it has come:
retransmissions wait for up to a minute, and a long queue takes its time."""

LATE_S: Final = 10.0
"""For so long after the last fault the devices look whether something still acts late."""

OFFSETS: Final = (1_000, 9_000)

SETTINGS: Final = {
    "RUNTIME__DEMO": "true",
    "BROKER__HOST": "127.0.0.1",
    "BROKER__BACKOFF_MAX_S": "2",
    "STORE__BACKOFF_MAX_S": "2",
}
"""Units look again soon, or a run would mostly wait."""


def prepare_state(state: Path, seed: int) -> None:
    """Make the state directory ours. Raises SettingsError for one that somebody else has made."""
    if state.exists() and any(state.iterdir()) and not (state / MARK).exists():
        raise SettingsError(
            f"{state} was not made by patchbay chaos: name an empty directory, or none"
        )
    state.mkdir(parents=True, exist_ok=True)
    (state / MARK).write_text(json.dumps({"seed": seed, "started": time.time()}) + "\n")


class Run:
    """One run. ``say`` gets each line of progress; all of them are in ``chaos.log``, too."""

    def __init__(
        self,
        services: Sequence[Service],
        state: Path,
        *,
        seconds: float,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.tallies: dict[str, Tally] = {}
        self.faults: list[Fault] = []
        self._services = [service for service in services if service.chaos is not None]
        self._state = state
        self._seconds = seconds
        self._seed = seed
        self._say = say
        self._began = time.monotonic()
        self._loads: dict[str, Load] = {}
        self._online: dict[str, str] = {}
        self._backlogs: dict[str, int] = {}
        self._enough = False

    async def run(self) -> bool:
        """Run it to the end, or until SIGINT or SIGTERM; then all is healed and reckoned, too. A
        second signal ends the reckoning.

        True if nothing is lost, doubled, miscounted or late. Raises Unavailable if the system does
        not come up.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, stop)
        offset = _free_offset(self._services)
        environ = self._environ(offset)
        config = Config.read(None, environ, {one.name: one for one in self._services})
        system = System(self._state, self._services, environ, offset)
        around = Surroundings(config, self._state, random.Random(self._seed), system.pid)
        self._loads = {
            one.name: resolve(one.chaos)(around) for one in self._services if one.chaos is not None
        }
        async with contextlib.AsyncExitStack() as stack:
            for name, load in self._loads.items():
                task = asyncio.create_task(load.run(), name=f"load of {name}")
                stack.push_async_callback(_ended, task)
            await stack.enter_async_context(system)
            bus = await stack.enter_async_context(self._watch(system))
            await self._wait_online(bus, system, stop)
            if not stop.is_set():
                await self._break(system, stop)
            self.log("healed; the load ends, and what was accepted is looked for")
            for load in self._loads.values():
                load.quiet.set()
            store = Store(StoreSettings(), system.uri)
            async with store:
                await self._reckon(store)
            restarts = sum(one.starts - 1 for one in system.processes.values())
            self.log(f"{len(self.faults)} faults, {restarts} restarts")
        return all(tally.clean for tally in self.tallies.values())

    def log(self, line: str) -> None:
        """A line with the time since the start."""
        text = f"{time.monotonic() - self._began:7.1f} s  {line}"
        with (self._state / "chaos.log").open("a") as file:
            file.write(text + "\n")
        self._say(text)

    def _interrupt(self, stop: asyncio.Event) -> None:
        self._enough = stop.is_set()
        stop.set()

    def _environ(self, offset: int) -> dict[str, str]:
        settings = {
            **SETTINGS,
            "RUNTIME__STATE_DIR": str(self._state),
            "RUNTIME__PORT_OFFSET": str(offset),
        }
        for service in self._services:
            if service.chaos is not None:
                settings.update(resolve(service.chaos).settings)
        return {f"PATCHBAY_{key}": value for key, value in settings.items()}

    def _watch(self, system: System) -> Bus:
        settings = BrokerSettings(port=system.broker_port, backoff_max_s=1.0)
        bus = Bus(settings, client_id="patchbay-chaos", topics=Topics(), announce=False)

        def status(message: Message) -> None:
            message.ack()
            self._online[message.topic.split("/")[2]] = message.payload.decode()

        def info(message: Message) -> None:
            message.ack()
            with contextlib.suppress(ValueError, KeyError):
                self._backlogs[message.topic.split("/")[2]] = json.loads(message.payload)["backlog"]

        bus.listen(bus.topics.unit_status("+"), status)
        bus.listen(bus.topics.unit_info("+"), info)
        return bus

    async def _wait_online(self, bus: Bus, system: System, stop: asyncio.Event) -> None:
        self.log(f"starting {len(system.units)} units in {self._state}; seed {self._seed}")
        deadline = time.monotonic() + START_S
        while list(self._online.values()).count("online") < len(system.units):
            if stop.is_set():
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"not online after {START_S:.0f} s: see {self._state / 'log'}")
            await asyncio.sleep(0.2)
        self.log("all units are online; faults begin")

    async def _break(self, system: System, stop: asyncio.Event) -> None:
        began = time.monotonic()
        faults: set[asyncio.Task[None]] = set()

        async def wait_until(at: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, began + at - time.monotonic())):
                    await stop.wait()

        for fault in schedule(self._seed, self._seconds, system.units):
            await wait_until(fault.at)
            if stop.is_set():
                break
            self.log(str(fault))
            self.faults.append(fault)
            faults.add(asyncio.create_task(system.inflict(fault)))
        if not stop.is_set():
            await wait_until(self._seconds)
        if stop.is_set():
            self.log("interrupted")
            for task in faults:
                task.cancel()
        await asyncio.gather(*faults, return_exceptions=True)

    async def _reckon(self, store: Store) -> None:
        """Look until all is right, or has been wrong for too long."""
        healed = progress = time.monotonic()
        missing = -1
        while True:
            await asyncio.sleep(1.0)
            waited = time.monotonic() - healed
            with contextlib.suppress(Unavailable):
                self.tallies = {name: await load.tally(store) for name, load in self._loads.items()}
                settled = not any(self._backlogs.values())
                before, missing = missing, sum(one.missing for one in self.tallies.values())
                if settled and not missing and waited > min(LATE_S, self._seconds):
                    return
                if missing < before:
                    progress = time.monotonic()
            if time.monotonic() - progress > SETTLE_S or self._enough:
                waiting = {name: rows for name, rows in self._backlogs.items() if rows}
                self.log(f"not settled after {waited:.0f} s; outboxes that wait: {waiting or 0}")
                if not self.tallies:
                    raise Unavailable("the store does not answer")
                return


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _free_offset(services: Sequence[Service]) -> int:
    """A port offset with which all ports of these services are free."""
    ports = [
        getattr(resolve(service.settings)(), key)
        for service in services
        for key in service.ports.values()
    ]
    chance = random.SystemRandom()
    for _ in range(200):
        offset = chance.randint(*OFFSETS)
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise PatchbayError("no free ports for the devices")
