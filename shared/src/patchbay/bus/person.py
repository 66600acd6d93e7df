"""The name under which a command of a person is on the bus.

A broker that binds client ids to user names (`patchbay broker conf`) lets one connection be under
one name. So a person has several, ``operator``, ``operator.2`` and so on, with one password, and
each command on a machine takes one that no other has.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from patchbay.errors import Unavailable
from patchbay.secret_file import USER
from patchbay.settings import BrokerSettings

OPERATOR: Final = "operator"
"""Who a person is if the settings name nobody: on a machine whose units have the same ones."""

_held: Final[list[int]] = []
"""Locks on names, kept to the end of the process; the kernel frees them then."""


def person(settings: BrokerSettings, purpose: str) -> tuple[BrokerSettings, str]:
    """Settings and client id for one more connection of a person; ``purpose`` is for the log.

    Where ``[broker] sessions`` is 1 the client id is made up, ``patchbay-<purpose>-<pid>``. Raises
    Unavailable if all names are taken on this machine.
    """
    if settings.sessions == 1:
        return settings, f"patchbay-{purpose}-{os.getpid()}"
    user = settings.username or OPERATOR
    for number in range(1, settings.sessions + 1):
        name = user if number == 1 else f"{user}.{number}"
        if _take(name):
            file = settings.password_file
            file = None if file is None else file.replace(USER, user)
            return msgspec.structs.replace(settings, username=name, password_file=file), name
    raise Unavailable(f"{settings.sessions} commands of {user} run already: end one of them")


def _take(name: str) -> bool:
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    path = place / f"patchbay-{os.getuid()}-{name}.lock"
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # somebody else's file, in a directory that all may write
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _held.append(lock)
    return True
