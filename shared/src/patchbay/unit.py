"""One unit: a role of a service, with all that it gets to work with.

    role set-up -> Unit.serving(): connect, say online, wait -> role teardown -> offline, bye

`patchbay.runtime` runs one or more of them in a process; a `Process` is what those share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import patchbay
from patchbay import log  # before all that imports structlog or msgspec: see `patchbay.lean`

# isort: split
from msgspec import Struct

from patchbay.bus import Bus
from patchbay.bus.meter import Meter
from patchbay.clock import clock_of
from patchbay.clock_guard import NOTE, Guard
from patchbay.errors import SettingsError, Unavailable
from patchbay.health import (
    PERIOD_S,
    Heartbeat,
    heartbeat_file,
    uptime,
    write_heartbeat,
)
from patchbay.messages import UnitInfo, encode, now, rfc3339
from patchbay.progress import OK, STUCK, Verdict
from patchbay.restarts import Restarts
from patchbay.services import DOMAIN, Service, resolve
from patchbay.settings import Config
from patchbay.state import open_state
from patchbay.systemd import READY, STOPPING, WATCHDOG, Notifier
from patchbay.tasks import Tasks
from patchbay.topics import Topics

INFO_PERIOD_S: Final = 10.0
"""How often a unit looks whether what it says of itself has changed."""

Table = TypeVar("Table", bound=Struct)


class Metrics(Protocol):
    """Who makes what counts for each unit: `patchbay.metrics.endpoint.Metrics`."""

    def meter(self, unit: str, instance: str, root: str) -> Meter: ...

    def watch(self, units: Sequence[Unit]) -> None: ...


class Process:
    """What the units of one process share: who measures them, and who watches over them."""

    def __init__(
        self, units: int = 1, notifier: Notifier | None = None, metrics: Metrics | None = None
    ) -> None:
        self._setting_up = units
        self._notifier = notifier or Notifier(None)
        self._metrics = metrics
        self.holds: list[Callable[[], bool]] = []
        """While one of these says so, nothing here may start the process again: a pump is on."""

    def meter(self, unit: str, instance: str, root: str) -> Meter | None:
        """What counts for this unit; None if nobody wants to know."""
        return None if self._metrics is None else self._metrics.meter(unit, instance, root)

    def serving(self) -> None:
        """A unit is set up. When all are, the service is ready."""
        self._setting_up -= 1
        if self._setting_up == 0:
            self._notifier.tell(READY)

    def alive(self) -> None:
        """The loop turns."""
        self._notifier.tell(WATCHDOG)

    def stopping(self) -> None:
        self._notifier.tell(STOPPING)


class Unit:
    """What a role gets to work with.

    Register subscriptions and hooks on ``bus``, open what you need as context managers, then await
    `serving`; it returns when the unit has to stop, and the context managers close.
    """

    def __init__(
        self,
        service: Service,
        role: str,
        config: Config,
        instance: str,
        stop: asyncio.Event,
        process: Process | None = None,
    ) -> None:
        self.name = f"{service.name}.{role}"
        self.service = service
        self.role = role
        self.config = config
        self.instance = instance
        """The instance id, ``locker-edge-pi1``: MQTT client id, and part of status topics."""
        self.topics = Topics(config.runtime.root_topic)
        self.log = log.get_logger(self.name).bind(instance=instance)
        self.stop = stop
        """Set when the unit has to stop."""
        self.process = process or Process()
        """What it shares with the other units of its process."""
        self.failed = False
        """Something went wrong; the process will exit with 1."""
        self.tasks = Tasks(self.name, self.fail)
        """Every background task of the unit. If one raises, the unit stops with an error."""
        self.bus = Bus(
            config.broker,
            client_id=instance,
            topics=self.topics,
            durable=role == DOMAIN and self._alone,
            port=config.broker_port,
            meter=self.process.meter(self.name, instance, config.runtime.root_topic),
            tasks=self.tasks,
        )
        self.info_sources = self.bus.info_sources
        """Numbers for the unit's info: ``backlog``, ``connections``, anything else as detail."""
        self.bus.info_changed = self._tell_info
        self.state_dir = Path(config.runtime.state_dir).resolve() / "units" / instance
        """A directory of this instance's own; it exists when the role runs."""
        self.clock = Guard(
            self.state_dir / NOTE,
            config.runtime.clock_wait_s,
            clock_of(config.runtime.clock_synced_file),
        )
        """How far this unit's time can be trusted."""
        self.is_serving = False
        self._heartbeat = heartbeat_file(Path(config.runtime.state_dir).resolve(), instance)
        self._heartbeat_ok = True
        self._since = rfc3339(now())
        self._told = b""
        self._connecting = False
        self._stuck_after_s = config.runtime.stuck_after_s
        self.verdict = Verdict()
        """Does its work get on?"""
        self._started_at = time.monotonic()

    def settings(self, kind: type[Table]) -> Table:
        """The settings of the unit's own service."""
        return self.config.table(self.service.name, kind)

    @property
    def _alone(self) -> bool:
        """No replicas share the work (``share_group``): an offline durable member of a group
        would go on drawing its portion."""
        table = self.config.table(self.service.name, Struct)
        return getattr(table, "share_group", None) is None

    @property
    def listen_host(self) -> str:
        """The address that device ports bind to: the service's ``listen_host`` setting decides."""
        table = self.config.table(self.service.name, Struct)
        return self.config.listen_host(getattr(table, "listen_host", None))

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a task until the unit ends. If it raises, the unit stops with an error."""
        return self.tasks.spawn(work, name)

    def connect(self) -> None:
        """Start connecting to the broker. `serving` does it, unless the set-up needs the bus.

        Subscriptions come first: a broker sends what it kept for us as soon as we connect, and
        what nobody has subscribed to is gone.
        """
        if self._connecting:
            return
        self._connecting = True
        self.bus.start()
        self.spawn(self._watch_bus(), "watch of the bus")

    async def serving(self) -> None:
        """The set-up is done: connect, say online from now on, and wait until told to stop."""
        self.is_serving = True
        self.process.serving()
        self._tell_info()
        self.connect()
        with contextlib.suppress(Unavailable):  # it will be said after the next CONNACK
            await self.bus.set_ready()
        self._beat()
        await self.stop.wait()

    async def live(self) -> bool:
        """Run the role to its end. True if it ended because it was told to, and well."""
        async with self.tasks:
            try:
                open_state(Path(self.config.runtime.state_dir).resolve())
                open_state(self.state_dir)
                self.clock.start()
                self.spawn(self.clock.watch(), "clock")
                restarts = Restarts(self.state_dir / "restarts")
                self.spawn(self._every(PERIOD_S, lambda: self._look(restarts)), "progress")
                self.spawn(self._every(PERIOD_S, self._beat), "heartbeat")
                self.spawn(self._every(INFO_PERIOD_S, self._tell_info), "info")
                await self._run_role()
                if not self.stop.is_set():
                    raise RuntimeError("the role ended before it was told to")
            except Exception as error:  # the outermost frame of a unit
                self.fail(error)
            finally:
                await self.bus.stop()
        with contextlib.suppress(OSError):
            self._heartbeat.unlink(missing_ok=True)
        return not self.failed

    def fail(self, error: BaseException, task: str = "role") -> None:
        """Log why the unit cannot go on, and stop it: one line if people can act on it."""
        self.failed = True
        if isinstance(error, (SettingsError, Unavailable)):
            self.log.error(str(error))
        else:
            self.log.error("unit failed", task=task, exc_info=error)
        self.stop.set()

    # Details

    async def _run_role(self) -> None:
        run = resolve(self.service.function(self.role))
        role = asyncio.create_task(run(self), name=self.name)
        stopped = asyncio.create_task(self.stop.wait(), name=f"{self.name}: stop")
        try:
            await asyncio.wait((role, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not role.done() and not self.is_serving:  # it waits for something in its set-up
                role.cancel()
            await asyncio.wait((role,))
        except asyncio.CancelledError:
            role.cancel()
            raise
        finally:
            stopped.cancel()
        if not role.cancelled():
            role.result()

    async def _watch_bus(self) -> None:
        failed = self.bus.failed
        if failed is not None:
            await asyncio.wait((failed,))  # unlike await, being cancelled leaves the future alone
            raise Unavailable(failed.result())

    async def _every(self, period_s: float, act: Callable[[], None]) -> None:
        while not self.stop.is_set():
            act()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await self.stop.wait()

    def _look(self, restarts: Restarts) -> None:
        """Does the work get on? If the cause is here, end: who started us starts us again."""
        verdict = self.bus.progress.look(self._stuck_after_s)
        if verdict != self.verdict:
            level = self.log.info if verdict.state == OK else self.log.warning
            level("progress", state=verdict.state, cause=verdict.cause, work=verdict.what)
            self.verdict = verdict
            self._tell_info()
        ran_s = time.monotonic() - self._started_at
        if verdict.state == OK and ran_s > self._stuck_after_s:
            restarts.healed()
        if verdict.state != STUCK or ran_s < restarts.pause_s:
            return
        if any(hold() for hold in self.process.holds):
            return
        restarts.add()
        self.fail(Unavailable(f"stuck: no progress of {verdict.what}: starting again"))

    def _beat(self) -> None:
        self.process.alive()
        heartbeat = Heartbeat(
            unit=self.name,
            pid=os.getpid(),
            online=self.bus.online,
            at=time.time(),
            up=uptime(),
            state=self.verdict.state,
            cause=self.verdict.cause or self.verdict.what,
        )
        try:
            write_heartbeat(self._heartbeat, heartbeat)
        except OSError as error:  # a full disk must not stop the unit
            if self._heartbeat_ok:
                self.log.warning("no heartbeat", path=str(self._heartbeat), error=str(error))
            self._heartbeat_ok = False
        else:
            self._heartbeat_ok = True

    def _tell_info(self) -> None:
        numbers: dict[str, int] = {}
        for key, source in self.info_sources.items():
            try:
                numbers[key] = source()
            except Exception as error:  # what is only told must not stop the unit
                self.log.warning("no number for the info", key=key, error=repr(error))
        for outbox in self.bus.backlogs:
            numbers |= outbox.losses()
        info = UnitInfo(
            unit=self.name,
            version=patchbay.__version__,
            pid=os.getpid(),
            since=self._since,
            backlog=numbers.pop("backlog", 0),
            connections=numbers.pop("connections", 0),
            reconnects=self.bus.reconnects,
            dead_letters=self.bus.dead_letters,
            state=self.verdict.state,
            cause=self.verdict.cause or self.verdict.what,
            epoch=next((one.epoch for one in self.bus.backlogs), ""),
            detail=numbers,
        )
        payload = encode(info)
        if payload != self._told:
            self._told = payload
            self.bus.keep(self.topics.unit_info(self.instance), payload)
