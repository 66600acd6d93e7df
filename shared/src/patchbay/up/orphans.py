"""Processes that `up` has inherited from a supervisord that was killed (Linux)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_POLL_S = 0.05


async def wait(timeout_s: float) -> None:
    """Wait until no child is left. Each has had its signal from the kernel; who is still there
    after ``timeout_s`` is killed."""
    deadline = time.monotonic() + timeout_s
    while _reap():
        if time.monotonic() > deadline:
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_POLL_S)


def _reap() -> bool:
    """Take in all that have ended; True if some have not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Our children, as the kernel lists them by the thread that has them."""
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            pids += [int(pid) for pid in (task / "children").read_text().split()]
    return pids
