"""What a running `up` leaves in its state directory, so that others find it.

<state>/up.lock    held (flock) as long as it runs; holds its pid
<state>/up.json    what runs, and where: the `Record`
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from patchbay.durable import write_whole
from patchbay.errors import Unavailable
from patchbay.state import open_state, unusable

_LOCK = "up.lock"
_RECORD = "up.json"


class UnitRecord(Struct, frozen=True):
    """A unit that `up` runs, and the instance id it has on the bus."""

    unit: str
    instance: str


class Record(Struct, frozen=True, kw_only=True):
    """What runs. ``broker`` and ``store``: they are ours, not somebody else's."""

    pid: int
    socket: str
    root_topic: str
    mqtt_host: str
    mqtt_port: int
    broker: bool
    store: bool
    units: list[UnitRecord]
    addresses: dict[str, str]
    failing: dict[str, str] = {}
    """The broker or the store, if it runs and does not work, and why."""


class Claim:
    """The state directory is ours as long as this is held; the kernel frees it if we are killed."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._lock: TextIO | None = None

    def __enter__(self) -> Claim:
        """Raises Unavailable if another `up` has it; the text names its pid. Raises SettingsError
        if the directory cannot be written to, or a newer version has written it."""
        open_state(self._state)
        try:
            lock = (self._state / _LOCK).open("a+")
        except OSError as error:
            raise unusable(self._state, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            lock.close()
            raise Unavailable(
                f"another `patchbay up` (pid {pid}) runs on {self._state}:"
                " stop it, or give --state DIR"
            ) from None
        self._lock = lock
        try:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        except OSError as error:  # the disk is full
            raise unusable(self._state, error) from error
        return self

    def write(self, record: Record) -> None:
        """Tell others what runs."""
        write_whole(self._state / _RECORD, msgspec.json.encode(record))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            (self._state / _RECORD).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def running(state: Path) -> Record | None:
    """What runs on this state directory; None if nothing does."""
    try:
        with (state / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # held: it runs
    except OSError:
        return None
    else:
        return None
    try:
        return msgspec.json.decode((state / _RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None
