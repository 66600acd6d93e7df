"""A unit's life: from its settings to a clean exit.

    role set-up -> Unit.serving(): connect, say online, wait -> role teardown -> offline, bye

A unit is one role of one service, as ``async def run(unit: Unit) -> None``. ``python -m
patchbay.runtime UNIT...`` runs one or more in one process, with nothing imported that a unit does
not need: on a Pi each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import patchbay
from patchbay import log  # before all that imports structlog: see there

# isort: split
from msgspec import Struct

from patchbay.bus import Bus
from patchbay.errors import PatchbayError, SettingsError, Unavailable
from patchbay.health import (
    PERIOD_S,
    Heartbeat,
    heartbeat_file,
    write_heartbeat,
)
from patchbay.health import instance_id as instance_id
from patchbay.messages import UnitInfo, encode, now, rfc3339
from patchbay.parent import die_with_parent
from patchbay.priority import step_back
from patchbay.services import DOMAIN, Service, discover, resolve, units
from patchbay.settings import Config
from patchbay.topics import Topics

INFO_PERIOD_S: Final = 10.0
"""How often a unit looks whether what it says of itself has changed."""

GRACE_S: Final = 3.5
"""How long a unit may take to finish what it has in hand."""

DEADLINE_S: Final = 4.5
"""The process is gone so long after it was told to stop, whatever hangs."""

CANCEL_S: Final = 0.5

OPEN_FILES: Final = 65_536
"""Wanted limit of open files: the usual 1,024 is a tenth of the boards that one edge serves."""

Table = TypeVar("Table", bound=Struct)


class Unit:
    """What a role gets to work with.

    Register subscriptions and hooks on ``bus``, open what you need as context managers, then await
    `serving`; it returns when the unit has to stop, and the context managers close.
    """

    def __init__(
        self, service: Service, role: str, config: Config, instance: str, stop: asyncio.Event
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
        self.failed = False
        """Something went wrong; the process will exit with 1."""
        self.info_sources: dict[str, Callable[[], int]] = {}
        """Numbers for the unit's info: ``backlog``, ``connections``, anything else as detail."""
        self.bus = Bus(
            config.broker,
            client_id=instance,
            topics=self.topics,
            durable=role == DOMAIN and self._alone,
            port=config.broker_port,
        )
        self.state_dir = Path(config.runtime.state_dir).resolve() / "units" / instance
        """A directory of this instance's own; it exists when the role runs."""
        self.is_serving = False
        self._heartbeat = heartbeat_file(Path(config.runtime.state_dir).resolve(), instance)
        self._heartbeat_ok = True
        self._since = rfc3339(now())
        self._told = b""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connecting = False

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
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

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
        self._tell_info()
        self.connect()
        with contextlib.suppress(Unavailable):  # it will be said after the next CONNACK
            await self.bus.set_ready()
        self._beat()
        await self.stop.wait()

    async def live(self) -> bool:
        """Run the role to its end. True if it ended because it was told to, and well."""
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            self.spawn(self._every(PERIOD_S, self._beat), "heartbeat")
            self.spawn(self._every(INFO_PERIOD_S, self._tell_info), "info")
            await self._run_role()
            if not self.stop.is_set():
                raise RuntimeError("the role ended before it was told to")
        except Exception as error:  # the outermost frame of a unit
            self.fail(error)
        finally:
            await self._end()
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

    async def _end(self) -> None:
        await self.bus.stop()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        with contextlib.suppress(OSError):
            self._heartbeat.unlink(missing_ok=True)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error, task.get_name())

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

    def _beat(self) -> None:
        heartbeat = Heartbeat(
            unit=self.name, pid=os.getpid(), online=self.bus.online, at=time.time()
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
        info = UnitInfo(
            unit=self.name,
            version=patchbay.__version__,
            pid=os.getpid(),
            since=self._since,
            backlog=numbers.pop("backlog", 0),
            connections=numbers.pop("connections", 0),
            reconnects=self.bus.reconnects,
            dead_letters=self.bus.dead_letters,
            detail=numbers,
        )
        payload = encode(info)
        if payload != self._told:
            self._told = payload
            self.bus.keep(self.topics.unit_info(self.instance), payload)


def run_units(names: Iterable[str], config: Config, instance: str | None = None) -> int:
    """Run units in this process until SIGTERM, SIGINT or a failure. Returns the exit code.

    ``instance`` stands for the host's name in their instance ids. If one fails, all stop: whoever
    started the process starts all of them again. Raises SettingsError for an unknown name.
    """
    chosen = units(config.services, names)
    if all(role == DOMAIN for _, role in chosen):
        step_back()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        well = runner.run(_live_together(chosen, config, instance))
    faulthandler.cancel_dump_traceback_later()
    return 0 if well else 1


async def _live_together(
    chosen: Sequence[tuple[Service, str]], config: Config, instance: str | None
) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    together = [
        Unit(service, role, config, instance_id(f"{service.name}.{role}", instance), stop)
        for service, role in chosen
    ]
    lives = [asyncio.create_task(unit.live(), name=f"{unit.name}: life") for unit in together]
    await stop.wait()
    # A loop that is blocked cannot help itself: this prints where, and exits with 1.
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True, file=sys.__stderr__ or 2)
    _, hung = await asyncio.wait(lives, timeout=GRACE_S)
    if hung:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            together[0].log.error("still running", task=task.get_name(), where=_where(task))
        for life in hung:
            life.cancel()
        await asyncio.wait(hung, timeout=CANCEL_S)
    return not hung and all(life.result() for life in lives)


def _where(task: asyncio.Task[Any]) -> str:
    """The line that a task waits in."""
    stack = task.get_stack()
    return f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "unknown"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "linux":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def _allow_open_files() -> None:
    """Raise our limit of open files as far as we need and may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # as many as there are, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: ``python -m patchbay.runtime locker.edge``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m patchbay.runtime", description="Run units in one process."
    )
    parser.add_argument("units", nargs="+", metavar="UNIT", help="locker.edge, or locker for all")
    parser.add_argument("--instance", metavar="NAME", help="in the instance id; the host's name")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; ./patchbay.toml")
    parser.add_argument("--supervised", action="store_true", help="end when the parent dies")
    given = parser.parse_args(arguments)
    if given.supervised:
        die_with_parent()
    try:
        config = Config.read(given.config, os.environ, discover())
        log.configure(config.runtime.log_level, config.runtime.log_format)
        _allow_open_files()
        return run_units(given.units, config, given.instance)
    except PatchbayError as error:
        print(f"patchbay: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    # Services import this module by its name: the classes that they see must be the ones that run.
    from patchbay.runtime import main as main_of_the_module

    sys.exit(main_of_the_module())
