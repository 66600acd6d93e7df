"""The time of a process, which no step of the machine's clock moves.

A process's time is the wall time at its start plus CLOCK_BOOTTIME since then. A clock that is set,
by whatever amount and for however long, ends no rental and stretches none.

    Machine      the machine's clocks, and whether the kernel calls the wall clock synchronized
    Clock        the time of this process: `CLOCK`, which `patchbay.messages.now` reads
    DomainTime   the domain service's time, as an edge knows it

`patchbay.clock_guard` continues it over restarts, and sets it when NTP has set the wall clock.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

RELEASE: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A wall clock before this is wrong: the program is younger."""

STEP_S: Final = 1.0
"""A smaller difference is not worth a new list of codes for each board."""

LATENCY_S: Final = 5.0
"""An edge reads the domain's time this much too early at most: how long a message may wait."""

LATEST_S: Final = 1e11
"""A time that was noted and is later than this is damaged: thousands of years."""

DRIFT: Final = 1e-4
"""How fast two machines' clocks may part: twice what crystals do."""

_STA_UNSYNC = 0x40
_TIME_ERROR = 5
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Hook = Callable[[timedelta], Awaitable[None]]


class Source(Protocol):
    """Where time comes from."""

    def wall(self) -> float: ...

    def boot(self) -> float: ...

    def boot_id(self) -> str: ...

    def synchronized(self) -> bool: ...


class Machine:
    """The machine's clocks. ``synced_file``: the clock is synchronized when this file exists, for
    a container whose kernel cannot tell; None: as the kernel says (adjtimex)."""

    def __init__(self, synced_file: str | None = None) -> None:
        self._synced_file = synced_file

    def wall(self) -> float:
        """Unix time in seconds. It may step."""
        return time.time()

    def boot(self) -> float:
        """Seconds since the machine booted, also those that it was suspended."""
        return time.clock_gettime(_BOOTTIME)

    def boot_id(self) -> str:
        """Names this boot of the machine."""
        try:
            with open(_BOOT_ID, encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def synchronized(self) -> bool:
        """Has NTP set the wall clock?"""
        if self._synced_file is not None:
            return os.path.exists(self._synced_file)
        return _kernel_synchronized()


class _Timex(ctypes.Structure):
    """``struct timex`` up to ``status``, and room for the rest. With ``modes`` 0 it only reads."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _kernel_synchronized() -> bool:
    """False too where it cannot be asked."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        return False
    return state not in (-1, _TIME_ERROR) and not timex.status & _STA_UNSYNC


class Clock:
    """A time that no step of the wall clock moves. It is never before `RELEASE`."""

    def __init__(self, source: Source | None = None) -> None:
        self.source: Source = source or Machine()
        self._boot = self.source.boot
        self.offset = max(self.source.wall(), RELEASE.timestamp()) - self._boot()
        """Unix time when the machine booted, by this clock."""
        self._hooks: list[Hook] = []

    def time(self) -> float:
        """Unix time in seconds."""
        return self._boot() + self.offset

    def now(self) -> datetime:
        """The time now, in UTC, to the millisecond: what RFC 3339 texts and BSON keep of it."""
        moment = datetime.fromtimestamp(self._boot() + self.offset, UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def before_step(self, hook: Hook) -> None:
        """Call ``hook`` with the step before this clock is set, to move what was stored. While it
        raises Unavailable the clock is not set."""
        self._hooks.append(hook)

    def forget(self, hook: Hook) -> None:
        """Do not call this hook any more."""
        self._hooks.remove(hook)

    async def follow_wall(self) -> None:
        """Set this clock to the wall clock, after all hooks. Raises what they raise."""
        step_s = self.source.wall() - self.time()
        if abs(step_s) >= STEP_S:
            for hook in self._hooks:
                await hook(timedelta(seconds=round(step_s, 3)))
        self.offset += step_s


CLOCK: Final = Clock()
"""The clock of this process."""


def clock_of(synced_file: str | None) -> Clock:
    """`CLOCK`. The machine is synchronized when this file exists; None: as its kernel says."""
    if synced_file is not None:
        CLOCK.source = Machine(synced_file)
    return CLOCK


class Moved:
    """Moments that were noted by this process's clock before that was set to the wall clock.

    What was stored with them stays as it is; how long ago it was is counted from where they are
    now. Call it with a moment.
    """

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._since = self._until = clock.now()
        self._step = timedelta()
        clock.before_step(self._set)

    def __call__(self, moment: datetime) -> datetime:
        return moment + self._step if self._since <= moment < self._until else moment

    async def _set(self, step: timedelta) -> None:
        self._until, self._step = self._clock.now(), step


class DomainTime:
    """The domain service's time, as an edge knows it.

    It is learned from live messages alone: from an acknowledgement, which is never retained. Until
    the first one it is our own, moved by what was noted last.
    """

    def __init__(self, note: bytes | None = None, clock: Clock = CLOCK) -> None:
        """``note``: what `learn` returned last."""
        self._clock = clock
        self._boot = clock.source.boot
        self._boot_id = clock.source.boot_id()
        self._offset = 0.0
        """Unix time when this machine booted, by the domain's clock; counts once it is known."""
        self._ahead_s = 0.0
        """How far the domain's clock was ahead of ours when we last knew."""
        self._noted: float | None = None
        self._learned_at = self._boot()
        self.known = False
        """It was learned in this boot."""
        if note is not None:
            self._recall(note)

    def time(self) -> float:
        """Unix time in seconds."""
        if not self.known:
            return self._clock.time() + self._ahead_s
        return self._boot() + self._offset

    def now(self) -> datetime:
        """The same as a moment in UTC, to the millisecond."""
        moment = datetime.fromtimestamp(self.time(), UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def learn(self, time_s: float) -> bytes | None:
        """The domain's time was this a moment ago. Returns a note to keep, if much has changed.

        A message takes its time, so of times that nearly agree the later one is right.
        """
        boot = self._boot()
        offset = time_s - boot
        if self.known and abs(offset - self._offset) < LATENCY_S:
            offset = max(offset, self._offset - DRIFT * (boot - self._learned_at))
        self._offset, self._learned_at, self.known = offset, boot, True
        if self._noted is not None and abs(offset - self._noted) < STEP_S:
            return None
        self._noted = offset
        ahead_s = self.time() - self._clock.time()
        note = {"boot_id": self._boot_id, "offset": offset, "ahead_s": ahead_s}
        return json.dumps(note).encode()

    def _recall(self, note: bytes) -> None:
        """Our own time is moved by the offset that was noted, which is exact within one boot."""
        try:
            noted = json.loads(note)
            boot_id, offset, ahead_s = noted["boot_id"], noted["offset"], noted["ahead_s"]
            offset, ahead_s = float(offset), float(ahead_s)
        except (ValueError, TypeError, KeyError):
            return
        if not (0 <= offset <= LATEST_S and abs(ahead_s) <= LATEST_S):
            return
        if boot_id == self._boot_id:
            self._offset = self._noted = offset
            self.known = True
        else:
            self._ahead_s = ahead_s
