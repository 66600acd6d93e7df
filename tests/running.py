"""A whole system for a test: ``patchbay up`` as a process, with ports and state of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from patchbay.services import discover, resolve
from patchbay.testing import PATIENCE_S
from patchbay_allocator.settings import DEMO_PORTS

CLI = [sys.executable, "-m", "patchbay.cli"]
PARTS_PORTS = (1883, 27_017, *DEMO_PORTS)
"""Broker, store, and the devices of the demo that are listened to."""


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until ``condition`` holds. Raises TimeoutError that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {timeout_s} s")
        time.sleep(0.05)


def free_offset() -> int:
    """A port offset with which every port is free, below those that the kernel hands out."""
    wanted = [
        getattr(resolve(service.settings)(), key)
        for service in discover().values()
        for key in service.ports.values()
    ]
    chance = random.SystemRandom()  # two test processes would draw the same otherwise
    while True:
        offset = chance.randint(100, 5000)
        try:
            for port in (*PARTS_PORTS, *wanted):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return offset


def cli(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:  # type: ignore[type-arg]
    """Run a command to its end."""
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **(environ or {})},
    )


class System:
    """``patchbay up --only locker`` on a state directory of its own; everything by its pid."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.state = directory / "state"
        self.offset = free_offset()
        self.output = directory / "up.out"
        self.errors = directory / "up.err"
        self.program = CLI
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def spawn(self, environ: Mapping[str, str] | None = None) -> None:
        """Start without waiting."""
        command = [*self.program, "up", "--only", "locker", "--state", str(self.state)]
        command += ["--port-offset", str(self.offset), *self._arguments]
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **(environ or {})},
            )

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start, and wait until it says that it is ready."""
        self.spawn(environ)
        wait_for(lambda: self.ready or self.process.poll() is not None, "patchbay ready")
        assert self.ready, self.errors.read_text()

    @property
    def ready(self) -> bool:
        return "patchbay ready\n" in self.output.read_text()

    def status(self) -> dict[str, Any]:
        """What ``status --json`` prints."""
        found: dict[str, Any] = json.loads(
            cli("status", "--json", "--state", str(self.state)).stdout
        )
        return found

    def pids(self) -> dict[str, int]:
        """The pid of each unit, of broker and store."""
        status = self.status()
        pids = {unit["unit"]: unit["pid"] for unit in status["units"]}
        return {**pids, "broker": status["broker"]["pid"], "store": status["store"]["pid"]}

    def processes(self) -> set[psutil.Process]:
        """`up` and everything below it, now or when this was asked before."""
        top = psutil.Process(self.process.pid)
        self._seen |= {top, *top.children(recursive=True)}
        return self._seen

    def supervisord(self) -> psutil.Process:
        (daemon,) = psutil.Process(self.process.pid).children()
        return daemon

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """End it and wait; returns the exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)

    def clean_up(self) -> None:
        """End what a failed test has left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.processes()
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for process in self._seen:
            if process.is_running():
                process.kill()


def all_gone(processes: set[psutil.Process]) -> bool:
    """None of these runs any more. Process ids that were given out again do not count."""
    return not [one for one in processes if one.is_running() and one.status() != "zombie"]
