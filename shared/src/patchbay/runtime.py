"""Runs units in a process: from their settings to a clean exit.

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
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from patchbay import log  # before all that imports structlog or msgspec: see `patchbay.lean`

# isort: split
from patchbay.errors import PatchbayError, SettingsError
from patchbay.health import instance_id as instance_id
from patchbay.parent import die_with_parent
from patchbay.priority import step_back
from patchbay.services import DOMAIN, Service, discover, resolve, units
from patchbay.settings import Config
from patchbay.systemd import Notifier
from patchbay.unit import Metrics, Process
from patchbay.unit import Unit as Unit

GRACE_S: Final = 3.5
"""How long a unit may take to finish what it has in hand."""

DEADLINE_S: Final = 4.5
"""The process is gone so long after it was told to stop, whatever hangs."""

CANCEL_S: Final = 0.5

METRICS: Final = "patchbay.metrics.endpoint:Metrics"
METRICS_VARIABLE: Final = "PATCHBAY_RUNTIME__METRICS_PORT"

OPEN_FILES: Final = 65_536
"""Wanted limit of open files: the usual 1,024 is a tenth of the boards that one edge serves."""


def run_units(names: Iterable[str], config: Config, instance: str | None = None) -> int:
    """Run units in this process until SIGTERM, SIGINT or a failure. Returns the exit code.

    ``instance`` stands for the host's name in their instance ids. If one fails, all stop: whoever
    started the process starts all of them again. Raises SettingsError for an unknown name.
    """
    chosen = units(config.services, names)
    if all(role == DOMAIN and not service.prompt for service, role in chosen):
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
    loop.set_exception_handler(_log_unhandled)
    async with _measured(config) as metrics:
        process = Process(len(chosen), Notifier.of(), metrics)
        together = [
            Unit(
                service,
                role,
                config,
                instance_id(f"{service.name}.{role}", instance),
                stop,
                process,
            )
            for service, role in chosen
        ]
        if metrics is not None:
            metrics.watch(together)
        return await _lived(together, stop, process)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that nobody else has caught, in a callback or a task that was not awaited."""
    log.get_logger("runtime").error(
        "unhandled error", where=context.get("message"), exc_info=context.get("exception")
    )


@contextlib.asynccontextmanager
async def _measured(config: Config) -> AsyncIterator[Metrics | None]:
    """The numbers of this process, if somebody wants to know them."""
    wanted = config.runtime.metrics_port
    if wanted is None:
        yield None
        return
    try:
        endpoint = resolve(METRICS)  # not imported by those who do not measure
    except ImportError as error:
        raise SettingsError(
            "[runtime] metrics_port: prometheus-client is not installed (patchbay[metrics])"
        ) from error
    host = config.runtime.metrics_host
    async with endpoint(host, config.port(wanted), log.get_logger("metrics")) as metrics:
        yield metrics


async def _lived(together: Sequence[Unit], stop: asyncio.Event, process: Process) -> bool:
    """Let units live until they are told to stop. True if all ended well."""
    lives = [asyncio.create_task(unit.live(), name=f"{unit.name}: life") for unit in together]
    await stop.wait()
    process.stopping()
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
    parser.add_argument("--metrics-port", metavar="PORT", help="[runtime] metrics_port")
    parser.add_argument("--supervised", action="store_true", help="end when the parent dies")
    given = parser.parse_args(arguments)
    if given.supervised:
        die_with_parent()
    environ = dict(os.environ)
    if given.metrics_port is not None:
        environ[METRICS_VARIABLE] = given.metrics_port
    try:
        config = Config.read(given.config, environ, discover())
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
