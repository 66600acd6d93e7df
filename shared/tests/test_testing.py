"""What tests stand on: waiting that ends, measures of the machine, parts."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay.testing import Lateness, Part, eventually, free_port, start_s, until


def server(place: Path, script: str) -> Part:
    port = free_port()
    return Part("part", place / "part", lambda: [sys.executable, "-c", script, str(port)], port)


async def test_what_does_not_come_is_named_when_the_time_is_up() -> None:
    def never_true() -> bool:
        return False

    with pytest.raises(TimeoutError, match=r"after 0\.05 s: never_true"):
        await until(never_true, 0.05)


async def test_what_is_awaited_and_does_not_come_is_named_too() -> None:
    answers = [False, False, True]

    async def third_time() -> bool:
        return answers.pop(0)

    await eventually(third_time)

    async def never_true() -> bool:
        return False

    with pytest.raises(TimeoutError, match=r"after 0\.05 s: never_true"):
        await eventually(never_true, 0.05)


def test_a_part_that_ends_at_its_start_says_its_last_words(tmp_path: Path) -> None:
    part = server(tmp_path, "raise SystemExit('no room for me')")
    with pytest.raises(RuntimeError, match=r"^part does not start: no room for me\n$"):
        part.start()
    part.stop()


def test_a_part_that_does_not_mind_sigterm_is_killed(tmp_path: Path) -> None:
    script = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()
"""
    part = server(tmp_path, script)
    part.start()
    pid = part.pid
    part.stop()
    assert not part.running
    assert not Path(f"/proc/{pid}").exists()
    part.start()  # on the same port
    part.kill()
    assert not part.running


async def test_who_could_not_run_was_late_by_as_much() -> None:
    with Lateness() as lateness:
        await until(lambda: lateness.worst_s > 0)  # it sleeps
        ctypes.PyDLL(None).usleep(300_000)  # no other thread of ours runs meanwhile
        assert lateness.worst_s >= 0.25  # it may have slept for some of it


def test_a_start_is_measured_to_its_end() -> None:
    assert start_s("time; time.sleep(0.2)") >= 0.2
    with pytest.raises(subprocess.CalledProcessError):
        start_s("patchbay_has_no_such_module")
