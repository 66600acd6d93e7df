"""Is a unit healthy? Each says so in a small file, its heartbeat, and `check` reads it.

    <state_dir>/run/<instance>.json    {"unit": "locker.edge", "pid": 4711, "online": true, "at": 0,
                                        "up": 0, "state": "ok", "cause": ""}

Healthy is who is alive and not stuck: only those two are healed by a restart. Ready is who is
online, too, and waits for nothing.

A file and not a port: a check that compose makes twice a minute, of each unit of a Pi, should cost
nothing, and an event loop that hangs stops writing. For the same reason this module imports little:
a check runs beside its unit, within the unit's own limit of memory (measured: with msgspec it takes
half as long again, and pathlib alone is 0.7 MB).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

PERIOD_S: Final = 2.0
"""How often a unit writes its heartbeat."""

STALE_S: Final = 10.0
"""A heartbeat older than this is none: five were missed."""


LARGEST: Final = 4096
"""Bytes of a heartbeat at most; ours have some 150."""


class Heartbeat(NamedTuple):
    """What a unit says. ``at`` is Unix time in seconds; ``up`` is the time since the machine
    started (CLOCK_BOOTTIME), which no step of the clock moves. ``state`` and ``cause`` are those of
    `patchbay.progress`, with the name of the work where there is no cause outside."""

    unit: str
    pid: int
    online: bool
    at: float
    up: float = -1.0
    state: str = "ok"
    cause: str = ""


class Health(NamedTuple):
    """The answer of `check`; ``reason`` is for people."""

    ok: bool
    reason: str


def instance_id(unit: str, name: str | None = None) -> str:
    """The instance id of a unit: ``locker-edge-pi1``. ``name`` is the host's name if None."""
    import socket

    from patchbay.topics import device_id

    if name is None:
        name = socket.gethostname().partition(".")[0]
    return f"{unit.replace('.', '-')}-{device_id(name)}"


def heartbeat_file(state_dir: Path, instance: str) -> Path:
    """Where the unit with this instance id keeps its heartbeat."""
    return state_dir / "run" / f"{instance}.json"


def write_heartbeat(path: Path, heartbeat: Heartbeat) -> None:
    """Replace the file whole: a reader never sees a part. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(heartbeat._asdict()), encoding="utf-8")
    new.replace(path)


def uptime() -> float:
    """Seconds since the machine started, those that it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def check(
    name: str | None,
    state_dir: str | Path,
    instance: str | None = None,
    *,
    ready: bool = False,
) -> Health:
    """Is the unit ``locker.edge`` alive and not stuck? ``locker``: are all of its units that ran
    here? None: are all that ran here, whatever they are? ``ready``: and are they online, too, and
    wait for nothing?

    ``instance`` says which one is meant, by what ``--instance`` was or by the whole instance id.
    Without it the freshest heartbeat of a unit speaks for it, since an instance of another name
    may have left one behind.
    """
    freshest: dict[str, Heartbeat] = {}
    for ident, heartbeat in _heartbeats(state_dir):
        unit = heartbeat.unit
        if name not in (None, unit, unit.partition(".")[0]):
            continue
        if instance is not None and ident not in (instance, instance_id(unit, instance)):
            continue
        if unit not in freshest or heartbeat.at > freshest[unit].at:
            freshest[unit] = heartbeat
    if not freshest:
        return Health(False, f"not running: no heartbeat in {os.path.join(state_dir, 'run')}")
    answers = {unit: _judge(heartbeat, ready) for unit, heartbeat in sorted(freshest.items())}
    if len(answers) == 1:
        return next(iter(answers.values()))
    return Health(
        all(answer.ok for answer in answers.values()),
        "; ".join(f"{unit} {answer.reason}" for unit, answer in answers.items()),
    )


def _judge(heartbeat: Heartbeat, ready: bool) -> Health:
    pid = heartbeat.pid
    age_s = uptime() - heartbeat.up if heartbeat.up >= 0 else time.time() - heartbeat.at
    if not _alive(pid):
        return Health(False, f"dead: process {pid} is gone")
    if abs(age_s) > STALE_S:  # from the future: it is from before the machine started
        return Health(False, f"hangs: process {pid} has had no heartbeat for {age_s:.0f} s")
    if heartbeat.state == "stuck":
        return Health(False, f"stuck: {heartbeat.cause} does not get on")
    if heartbeat.state != "ok":
        return Health(not ready, f"{heartbeat.state}: {heartbeat.cause}")
    if not heartbeat.online:
        return Health(not ready, "running but not online: is the broker there?")
    return Health(True, "online")


def heartbeats(state_dir: str | Path) -> dict[str, Heartbeat]:
    """The heartbeats in a state directory, by instance id."""
    return dict(_heartbeats(state_dir))


def _heartbeats(state_dir: str | Path) -> Iterator[tuple[str, Heartbeat]]:
    """The heartbeats in a state directory, by instance id."""
    directory = os.path.join(state_dir, "run")
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        ident, dot, kind = name.rpartition(".")
        if not dot or kind != "json":
            continue
        # Gone between the listing and the reading, or another program's file: no heartbeat.
        with contextlib.suppress(OSError, ValueError, TypeError):
            with open(os.path.join(directory, name), "rb") as file:
                heartbeat = _read(file.read(LARGEST))
            yield ident, heartbeat


def _read(content: bytes) -> Heartbeat:
    """Raises ValueError or TypeError for what is none."""
    heartbeat = Heartbeat(**json.loads(content))
    unit, pid, online, at, up, state, cause = heartbeat
    if not (isinstance(unit, str) and isinstance(pid, int) and isinstance(online, bool)):
        raise TypeError(f"not a heartbeat: {heartbeat}")
    return heartbeat._replace(at=float(at), up=float(up), state=str(state), cause=str(cause))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
