"""Who steps back runs after the others."""

from __future__ import annotations

import subprocess
import sys

from patchbay.priority import BACKGROUND_NICE
from patchbay.testing import PATIENCE_S

STEP_BACK = """
import os, subprocess, sys
from patchbay.priority import step_back
print(os.getpriority(os.PRIO_PROCESS, 0))
step_back()
print(os.getpriority(os.PRIO_PROCESS, 0))
look = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
print(subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout)
"""

FORBIDDEN = """
import os
from patchbay.priority import step_back

def refuse(which, who, priority):
    raise PermissionError

os.setpriority = refuse
step_back()
print("goes on")
"""


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout.split("\n")


def test_a_process_and_what_it_starts_run_after_the_others() -> None:
    before, after, child, *_ = run(STEP_BACK)
    assert int(before) < BACKGROUND_NICE
    assert (after, child) == (str(BACKGROUND_NICE),) * 2


def test_where_that_is_forbidden_the_process_goes_on_as_it_was() -> None:
    assert run(FORBIDDEN)[0] == "goes on"
