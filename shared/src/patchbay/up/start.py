"""The foreground process of `up`: start all, wait until all is online, say so, stop all.

    up ── supervisord ──┬── broker, store
                        ├── a unit each
                        └── a demo each

Whoever is killed, nothing is left: Ctrl-C and SIGTERM stop in order; when `up` is killed the kernel
ends supervisord, which stops its processes; when supervisord is killed the kernel ends each of
them, and `up` adopts them and waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from patchbay import broker, log
from patchbay.bus import Bus
from patchbay.bus.person import person
from patchbay.errors import PatchbayError, Unavailable
from patchbay.messages import now
from patchbay.parent import adopt_orphans
from patchbay.settings import Config
from patchbay.state import unusable
from patchbay.store import Store
from patchbay.tasks import Tasks
from patchbay.topics import Topics
from patchbay.up import orphans, supervisor
from patchbay.up.caretaker import Caretaker, Probe
from patchbay.up.plan import BROKER, STORE, Plan
from patchbay.up.ports import accepts, need_free
from patchbay.up.progress import Progress
from patchbay.up.record import Claim, Record, UnitRecord
from patchbay.up.roster import ONLINE, Roster

READY: Final = "patchbay ready"

PROBES: Final = "probes"
"""The collection that the probe of the store writes its one document to."""

_POLL_S: Final = 0.2
_TICK_S: Final = 0.02
_DEATHS: Final = 3
"""A program that has died so often before all was online will not come up by waiting."""

_STOP_S: Final = 3 * supervisor.STOP_WAIT_S + 5
"""Three groups one after the other, and some for supervisord itself."""

_LOG_LINES: Final = 15


class Failed(PatchbayError):
    """The system cannot come up, or has lost its supervisor."""


def run(
    plan: Plan,
    config: Config,
    state: Path,
    environ: Mapping[str, str],
    instance_of: Callable[[str], str],
) -> int:
    """Run the plan until SIGINT or SIGTERM; returns the exit code.

    ``environ`` is what every process gets, ``instance_of`` gives a unit's instance id. Raises
    PatchbayError, before anything is started, if a port is taken, mosquitto is missing or
    another `up` has this state directory; later if a program dies again and again.
    """
    state = state.resolve()
    Store(config.store, config.store_uri)  # an invalid URI is found before anything starts
    if any(program.name == BROKER for program in plan.infrastructure):
        broker.binary()
    with Claim(state) as claim:
        need_free(plan.ports)
        socket = supervisor.socket_path(state)
        units = [UnitRecord(one.name, instance_of(one.name)) for one in plan.units]
        names = {one.name for one in plan.infrastructure}
        record = Record(
            pid=os.getpid(),
            socket=str(socket),
            root_topic=config.runtime.root_topic,
            mqtt_host=config.broker.host,
            mqtt_port=config.broker_port,
            broker=BROKER in names,
            store=STORE in names,
            units=units,
            addresses=plan.addresses,
        )
        try:
            supervisor.log_dir(state).mkdir(exist_ok=True)
            (state / "supervisord.conf").write_text(supervisor.render(plan, state, socket))
            claim.write(record)
        except OSError as error:
            raise unusable(state, error) from error
        log.configure("error")
        return asyncio.run(_System(plan, config, state, socket, claim, record).run(environ))


class _System:
    """Everything that runs, seen from its foreground process."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        state: Path,
        socket: Path,
        claim: Claim,
        record: Record,
    ) -> None:
        self._plan = plan
        self._config = config
        self._state = state
        self._socket = socket
        self._claim = claim
        self._record = record
        self._units = record.units
        self._bus = _bus(config)
        instances = [one.instance for one in self._units]
        self._roster = Roster(self._bus, instances, max_devices=0)
        self._progress = Progress()
        self._stop = asyncio.Event()
        self._accepting: set[str] = set()
        self._deaths: dict[str, set[int]] = {}

    async def run(self, environ: Mapping[str, str]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        adopt_orphans()
        self._progress.say(f"starting, logs are in {supervisor.log_dir(self._state)}")
        daemon = supervisor.launch(self._state / "supervisord.conf", environ)
        try:
            async with self._bus:
                if await self._wait_ready(daemon):
                    self._announce()
                    async with Tasks("up", self._failed_task) as tasks:
                        await self._look_after(tasks)
                        await self._wait_end(daemon)
        finally:
            await self._shut_down(daemon)
        return 0

    async def _wait_ready(self, daemon: subprocess.Popen[bytes]) -> bool:
        """Wait until everything is online; False if it is to stop before that."""
        while not self._stop.is_set():
            _need_alive(daemon)
            missing = await self._missing()
            if not missing:
                return True
            self._progress.waiting(missing)
            await self._pause()
        return False

    async def _look_after(self, tasks: Tasks) -> None:
        """Probe the broker and the store that are ours, and start again what does not work."""
        probes: dict[str, Probe] = {}
        if self._record.broker:
            probes[BROKER] = self._roster.echo
        if self._record.store:
            probes[STORE] = self._probe_store
        for name, probe in probes.items():
            caretaker = Caretaker(
                name,
                probe,
                partial(self._restart, name),
                self._tell,
                after_s=self._config.runtime.restart_after_s,
                timeout_s=self._config.store.timeout_s,
            )
            tasks.spawn(caretaker.watch(), f"caretaker of the {name}")

    async def _probe_store(self) -> None:
        async with Store(self._config.store, self._config.store_uri) as store:
            await store.save(PROBES, [{"_id": "up", "at": now()}])

    def _restart(self, name: str) -> None:
        try:
            supervisor.restart(self._socket, name)
        except Unavailable as error:  # it is tried again
            self._progress.say(f"{name} could not be started again: {error}")

    def _tell(self, name: str, why: str) -> None:
        """The broker or the store does not work, or does again."""
        if why:
            self._progress.say(f"{name} does not work ({why}): starting it again")
        else:
            self._progress.say(f"{name} works again")
        failing = {key: said for key, said in self._record.failing.items() if key != name}
        failing |= {name: why} if why else {}
        self._record = msgspec.structs.replace(self._record, failing=failing)
        with suppress(OSError):  # its disk may be full
            self._claim.write(self._record)

    def _failed_task(self, error: Exception, name: str) -> None:
        self._progress.say(f"{name} failed: {error!r}")
        self._stop.set()

    async def _missing(self) -> list[str]:
        """What is not there yet, by the names that people know."""
        try:
            processes = await asyncio.to_thread(supervisor.processes, self._socket)
        except Unavailable:
            return ["supervisord"]
        self._count_deaths(processes.values())
        missing = [*self._not_running(processes), *self._not_online(processes)]
        return missing or await asyncio.to_thread(self._not_accepting)

    def _not_running(self, processes: Mapping[str, supervisor.Process]) -> list[str]:
        names = [one.name for one in (*self._plan.infrastructure, *self._plan.demos)]
        return [name for name in names if processes[name].state != "RUNNING"]

    def _not_online(self, processes: Mapping[str, supervisor.Process]) -> list[str]:
        return [
            one.unit
            for one in self._units
            if self._roster.status(one.instance, processes[one.unit].pid) != ONLINE
        ]

    def _not_accepting(self) -> list[str]:
        """One that has accepted once is not asked again: devices see a connection each time."""
        ports = [port for port in self._plan.ports if port.name not in self._accepting]
        self._accepting.update(port.name for port in ports if accepts(port))
        return [
            f"port {port.number} ({port.name})"
            for port in ports
            if port.name not in self._accepting
        ]

    def _count_deaths(self, processes: Iterable[supervisor.Process]) -> None:
        """Raises Failed for one that does not stay up."""
        for process in processes:
            deaths = self._deaths.setdefault(process.name, set())
            if process.stopped_at:
                deaths.add(process.stopped_at)
            if len(deaths) >= _DEATHS:
                raise Failed(
                    f"{process.name} does not stay up; {_last_words(self._state, process)}"
                )

    def _announce(self) -> None:
        """The line that scripts wait for, then the addresses."""
        self._progress.waiting([])
        width = max(len(name) for name in self._plan.addresses)
        lines = [f"{name:<{width}}  {where}" for name, where in self._plan.addresses.items()]
        try:
            print("\n".join([READY, *lines]), flush=True)
        except OSError:  # nobody reads us any more: what runs goes on, and is stopped in order
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    async def _wait_end(self, daemon: subprocess.Popen[bytes]) -> None:
        while not self._stop.is_set():
            _need_alive(daemon)
            await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._stop.wait()

    async def _shut_down(self, daemon: subprocess.Popen[bytes]) -> None:
        if daemon.poll() is None:
            self._progress.say("stopping")
            try:
                # Quicker than SIGTERM, which supervisord sees at its next tick.
                await asyncio.to_thread(supervisor.shut_down, self._socket)
            except Unavailable:
                daemon.terminate()
            await self._wait_gone(daemon)
        await orphans.wait(supervisor.STOP_WAIT_S)

    async def _wait_gone(self, daemon: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _STOP_S
        while daemon.poll() is None:
            if time.monotonic() > deadline:
                self._progress.say("supervisord does not stop: killing it")
                daemon.kill()
            await asyncio.sleep(_TICK_S)


def _bus(config: Config) -> Bus:
    settings, client_id = person(config.broker, "up")
    return Bus(
        settings,
        client_id=client_id,
        topics=Topics(config.runtime.root_topic),
        announce=False,
        port=config.broker_port,
    )


def _need_alive(daemon: subprocess.Popen[bytes]) -> None:
    code = daemon.poll()
    if code is not None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise Failed(f"supervisord is gone ({how}): everything stops")


def _last_words(state: Path, process: supervisor.Process) -> str:
    path = supervisor.log_dir(state) / f"{process.name}.log"
    try:
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = []
    if not lines:
        return f"it has written nothing to {path}"
    return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines)])
