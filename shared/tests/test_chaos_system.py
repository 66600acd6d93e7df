"""The processes of a run: started again when they end, and frozen for a time only."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from patchbay.chaos.system import Process
from patchbay.testing import until


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process("sleeper", ["sleep", "600"], tmp_path / "log", os.environ)
    process.start()
    await until(lambda: process.pid)
    yield process
    await process.stop()


def state(process: Process) -> str:
    return str(psutil.Process(process.pid).status())


async def test_a_killed_process_is_started_again(sleeper: Process) -> None:
    first = sleeper.pid
    sleeper.signal(signal.SIGKILL)
    await until(lambda: sleeper.pid != first)
    assert sleeper.starts == 2


async def test_a_frozen_process_goes_on_by_itself(sleeper: Process) -> None:
    await sleeper.freeze(0.5)
    await until(lambda: state(sleeper) == psutil.STATUS_STOPPED)
    await until(lambda: state(sleeper) == psutil.STATUS_SLEEPING)
    assert sleeper.starts == 1


async def test_a_frozen_process_can_be_stopped(sleeper: Process) -> None:
    await sleeper.freeze(60)
    await until(lambda: state(sleeper) == psutil.STATUS_STOPPED)
    pid = sleeper.pid
    await sleeper.stop()
    assert not psutil.pid_exists(pid)
