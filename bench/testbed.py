"""What every benchmark stands on: an installation of processes, what they use, and the verdict."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from patchbay.testing import Part, mosquitto_part, store_part

TICK = os.sysconf("SC_CLK_TCK")


class Installation:
    """A broker, a store, and the units of one service, each a process. Nothing is started.

    ``settings``: keys of the service's table and their values.
    """

    def __init__(
        self,
        directory: Path,
        service: str,
        settings: Mapping[str, object],
        store: Part | None = None,
    ) -> None:
        self.broker = mosquitto_part(directory / "broker")
        self.store = store or store_part(directory / "store")
        self.uri = f"mongodb://127.0.0.1:{self.store.port}"
        environ = {
            "PATCHBAY_RUNTIME__STATE_DIR": directory,
            "PATCHBAY_RUNTIME__DEMO": "true",
            "PATCHBAY_RUNTIME__LOG_LEVEL": "warning",
            "PATCHBAY_BROKER__PORT": self.broker.port,
            "PATCHBAY_STORE__URI": self.uri,
            **{f"PATCHBAY_{service}__{key}".upper(): value for key, value in settings.items()},
        }
        self._environ = [f"{key}={value}" for key, value in environ.items()]
        self._directory = directory
        self._service = service

    def unit(self, role: str, port: int = 0, instance: str = "bench", name: str = "") -> Part:
        """A unit of the service, which listens on ``port`` (0: on none)."""
        runtime = [sys.executable, "-m", "patchbay.runtime", f"{self._service}.{role}"]
        command = ["env", *self._environ, *runtime, "--instance", instance]
        return Part(name or role, self._directory, lambda: command, port)


@contextmanager
def running(*parts: Part) -> Iterator[None]:
    """Start parts, and end them in the other order."""
    with ExitStack() as stack:
        for part in parts:
            stack.callback(part.stop)
            if part.port:
                part.start()
            else:
                part.spawn()
        yield


def cpu_seconds(part: Part) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{part.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(part: Part) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{part.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def verdict(reached: Mapping[str, bool]) -> bool:
    """Say of each aim whether it was reached. True if all were."""
    for what, well in reached.items():
        print(f"{'reached' if well else 'MISSED '}  {what}")
    return all(reached.values())


def arguments(what: str | None, quick: str) -> argparse.ArgumentParser:
    """A command line with ``--quick``, of which ``quick`` says what it does."""
    parser = argparse.ArgumentParser(description=what)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def run(
    measure: Callable[[argparse.Namespace, Path], Awaitable[bool]], given: argparse.Namespace
) -> int:
    """Measure in a directory of its own. The exit code: 1 if an aim was missed."""

    async def measured(directory: Path) -> bool:
        return await measure(given, directory)

    with tempfile.TemporaryDirectory(prefix="patchbay-bench-") as directory:
        return 0 if asyncio.run(measured(Path(directory))) else 1
