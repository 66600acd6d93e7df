"""What runs and does not work is started again: by `up`, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from patchbay.testing import PATIENCE_S
from tests.running import CLI, System, all_gone, cli, wait_for

QUICK = {"PATCHBAY_RUNTIME__RESTART_AFTER_S": "2", "PATCHBAY_STORE__TIMEOUT_S": "1"}


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path, "--only", "lantern")
    yield system
    system.clean_up()


def light(system: System) -> bool:
    """Is a command to the lanterns accepted?"""
    body = b'{"method": "message", "params": {"command": "ON"}}'
    request = urllib.request.Request(f"http://127.0.0.1:{9000 + system.offset}/", data=body)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("name", ["store", "broker"])
def test_a_frozen_store_or_broker_is_seen_and_started_again(system: System, name: str) -> None:
    system.start(QUICK)
    assert light(system)
    pid = system.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    seen = False

    def restarted() -> bool:
        nonlocal seen
        found = system.status()
        seen = seen or (bool(found[name]["failing"]) and not found["ready"])
        return found[name]["pid"] not in (pid, None) and found["ready"]

    wait_for(restarted, f"{name} is started again")
    assert seen
    wait_for(lambda: light(system), "commands are accepted again")
    assert f"{name} does not work" in system.errors.read_text()
    assert system.end() == 0


@pytest.mark.long
def test_a_store_that_works_is_left_alone(system: System) -> None:
    system.start(QUICK)
    before = system.pids()
    until = time.monotonic() + 6
    while time.monotonic() < until:
        assert system.status()["ready"]
    assert system.pids() == before


def test_up_whose_output_nobody_reads_any_more_goes_on_and_stops_in_order(tmp_path: Path) -> None:
    system = System(tmp_path, "--only", "lantern")
    command = [*CLI, "up", "--only", "lantern", "--state", str(system.state)]
    command += ["--port-offset", str(system.offset)]
    read, write = os.pipe()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=write, stderr=write, start_new_session=True
    )
    os.close(write)
    system._process = process
    try:
        os.read(read, 1)
        os.close(read)  # as `| head -1` does
        wait_for(lambda: cli("status", "--state", str(system.state)).returncode == 0, "all online")
        everything = system.processes()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) is not None
        wait_for(lambda: all_gone(everything), "nothing is left")
    finally:
        system.clean_up()


def test_up_that_is_killed_just_after_its_start_leaves_nothing(tmp_path: Path) -> None:
    for pause_s in (0.0, 0.4, 1.2):
        system = System(tmp_path, "--only", "lantern")
        system.spawn(QUICK)
        top = psutil.Process(system.process.pid)
        wait_for(lambda: top.children(), "supervisord")  # noqa: B023  awaited at once
        time.sleep(pause_s)
        everything = system.processes()
        system.process.kill()
        system.process.wait()
        marked = str(system.state)
        wait_for(lambda: all_gone(everything), "those that were there are gone")  # noqa: B023
        wait_for(lambda: not _with(marked), "those that came later are gone")  # noqa: B023


def _with(text: str) -> list[int]:
    """The processes that have this text in their command."""
    commands = {
        process.info["pid"]: " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["pid", "cmdline"])
    }
    return [pid for pid, command in commands.items() if text in command and pid != os.getpid()]
