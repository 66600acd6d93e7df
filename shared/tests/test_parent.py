"""With real processes: a child that asked for it does not outlive its parent."""

from __future__ import annotations

import subprocess
import sys

import psutil

from patchbay.testing import until

CHILD = """
import signal
from patchbay.parent import die_with_parent
die_with_parent()
print("asked", flush=True)
signal.pause()
"""

PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def start_parent() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)


async def test_a_child_dies_with_its_killed_parent() -> None:
    parent = start_parent()
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    parent.stdout.close()
