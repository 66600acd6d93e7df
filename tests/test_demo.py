"""Simulated devices as a process of their own, as ``up --demo`` runs them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from patchbay.services import discover
from patchbay.testing import PATIENCE_S
from tests.house import house_environ
from tests.running import free_offset, wait_for

DEMO = [sys.executable, "-m", "patchbay.up.demo"]


@pytest.fixture
def boards_port() -> Iterator[socket.socket]:
    """Where boards connect to, with nobody behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


@pytest.fixture
def environ(boards_port: socket.socket) -> dict[str, str]:
    return house_environ(LOCKER__PORT=boards_port.getsockname()[1], LOCKER__DEMO_INTERVAL_S=0.05)


def test_it_is_a_device_on_the_wire_until_it_is_told_to_stop(
    boards_port: socket.socket, environ: dict[str, str]
) -> None:
    demo = subprocess.Popen([*DEMO, "locker"], env=environ)
    try:
        board, _ = boards_port.accept()
        with board:
            board.settimeout(PATIENCE_S)
            assert board.recv(10, socket.MSG_WAITALL) == b"ACon_V1.0\r"
            demo.terminate()
            assert demo.wait(PATIENCE_S) == 0
    finally:
        demo.kill()
        demo.wait()


def test_it_ends_with_who_started_it(boards_port: socket.socket, environ: dict[str, str]) -> None:
    parent = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & echo $!; wait', "parent", *DEMO, "locker"],
        env=environ,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    demo = psutil.Process(int(parent.stdout.readline()))
    try:
        boards_port.accept()[0].close()
        parent.kill()
        parent.wait()
        wait_for(
            lambda: not demo.is_running() or demo.status() == psutil.STATUS_ZOMBIE,
            "its end",
        )
    finally:
        if demo.is_running():
            os.kill(demo.pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ["nobody", ""])
def test_a_service_that_there_is_not_is_one_line(name: str) -> None:
    done = subprocess.run(
        [*DEMO, name],
        env=house_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    said = f"patchbay: {name}: no such service, or one without a demo\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("name", sorted(discover()))
def test_every_demo_bears_it_that_nobody_is_there_and_stops(name: str) -> None:
    environ = house_environ(RUNTIME__PORT_OFFSET=free_offset())
    demo = subprocess.Popen([*DEMO, name], env=environ)
    try:
        process = psutil.Process(demo.pid)
        wait_for(lambda: demo.poll() is not None or _hears_sigterm(process), "its handlers")
        assert demo.poll() is None
        demo.terminate()
        assert demo.wait(PATIENCE_S) == 0
    finally:
        demo.kill()
        demo.wait()


def _hears_sigterm(process: psutil.Process) -> bool:
    """Has it a handler, so that SIGTERM is a wish and not the end?"""
    with open(f"/proc/{process.pid}/status") as status:
        (caught,) = [line for line in status if line.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))
