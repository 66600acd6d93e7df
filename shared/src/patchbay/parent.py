"""A process and its parent on Linux: who hears of whose death, and who gets the orphans.

Elsewhere these do nothing, and a killed supervisord leaves its children behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "SUPERVISED_BY_PID"
"""The variable that tells a child who its parent is. It may have died before the child could ask,
and then the child's parent is another, which lives."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask for signal ``number`` when the parent dies. The wish survives exec, but not fork.

    Exits at once if the parent is dead already: if it is not the one that `PARENT` names, or has
    changed while we asked. Raises OSError if the kernel refuses.
    """
    named = os.environ.get(PARENT, "")
    parent = int(named) if named.isdigit() else os.getppid()
    _prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        raise SystemExit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be waited for."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
