"""Continues a unit's time over restarts, and follows NTP once.

A machine without a real-time clock boots in the past and is set by NTP later. The time of a process
(`patchbay.clock`) does not follow a step of the wall clock, but this one: it is set by the same
step, after what was stored meanwhile has been moved by it. Until then, or until the machine has
been unsure for long enough, no deadline that was stored before its boot ends.

A process that starts in the same boot continues the time of the one before it, which is noted in
its state directory: a wall clock that was set in between counts only if it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from patchbay.clock import CLOCK, LATEST_S, RELEASE, Clock
from patchbay.errors import Unavailable

MOVED_S: Final = 5.0
"""A wall clock that differs by more from what a unit of this boot has noted was set meanwhile."""

SETTLED_S: Final = 10.0
"""A wall clock that was impossible and has been possible for so long was set, whoever set it."""

POLL_S: Final = 1.0

NOTE: Final = "clock.json"

NEWEST_YEARS: Final = timedelta(days=7300)
"""A stored time further ahead of a wrong clock than this is itself wrong."""

_setting = asyncio.Lock()
"""The units of one process share its clock."""


class _Note(NamedTuple):
    """What a unit notes for its next process, which continues its time in the same boot."""

    boot_id: str
    offset: float
    synced: bool
    blind: bool
    hold_until: float


class Guard:
    """Looks after the time of one unit: continues it over restarts, and follows NTP once.

    ``wait_s``: how long no deadline from an earlier boot counts while the wall clock is unsure.
    """

    def __init__(self, file: Path | None = None, wait_s: float = 0.0, clock: Clock = CLOCK) -> None:
        """``file``: where the time is noted for the next process; None: nowhere."""
        self.clock = clock
        self.boot_id = ""
        """The boot in which this unit runs."""
        self.synced = True
        """The wall clock was synchronized at the start, or has been since."""
        self.blind = False
        """The wall clock at the start was impossible: this time only counts on from another."""
        self._file = file
        self._wait_s = wait_s
        self._hold_until = 0.0
        self._moved_at: float | None = None
        self._possible_since: float | None = None
        self._shown_step_s = 0.0
        self._log = structlog.get_logger("clock")

    def start(self) -> None:
        """Continue the time of the process before this one, or begin with the wall clock."""
        clock, source = self.clock, self.clock.source
        wall, boot = source.wall(), source.boot()
        self.boot_id = source.boot_id()
        note = self._read(boot)
        if note is not None:
            clock.offset, self.synced, self.blind = note.offset, note.synced, note.blind
            self._hold_until = min(note.hold_until, boot + self._wait_s)
            if abs(wall - clock.time()) > MOVED_S and not self.blind:
                self._moved_at = boot
                self._log.warning("wall clock was set while away", step_s=self.step_s)
        else:
            self.blind = wall < RELEASE.timestamp()
            self.synced = not self.blind and source.synchronized()
            if not self.synced:
                self._hold_until = boot + self._wait_s
        self._shown_step_s = self.step_s
        self._write()

    @property
    def step_s(self) -> float:
        """By how many seconds the wall clock is ahead of this unit's time."""
        return round(self.clock.source.wall() - self.clock.time(), 3)

    @property
    def holding(self) -> bool:
        """Is it too early to end what was stored before this boot?"""
        return self.clock.source.boot() < self._hold_until

    @property
    def held_until(self) -> datetime | None:
        """Until when, if it is."""
        if not self.holding:
            return None
        return datetime.fromtimestamp(round(self._hold_until + self.clock.offset, 3), UTC)

    @property
    def unsure(self) -> bool:
        """May this time be wrong by more than a little?"""
        return self.blind or self.holding

    @property
    def mark(self) -> str:
        """What to mark stored deadlines with, so that `moves` finds them: "" if this time is
        right."""
        return "" if self.synced else self.boot_id

    def moves(self, mark: str) -> bool:
        """Does a deadline with this mark move with the step when the clock is set?"""
        return bool(mark) and (self.blind or mark == self.boot_id)

    def not_before(self, newest: datetime) -> None:
        """The store has something of this time. A blind clock counts on from there."""
        ahead_s = newest.timestamp() - self.clock.time()
        if self.blind and 0 < ahead_s < NEWEST_YEARS.total_seconds():
            self.clock.offset += ahead_s
            self._write()

    async def watch(self) -> None:
        """Follow the wall clock when it is set by NTP for the first time. Never returns."""
        while True:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(Unavailable):  # looked at again in a second
                await self.look()

    async def look(self) -> None:
        """Look at the wall clock once. Raises Unavailable while it cannot be followed."""
        if self._to_be_followed():
            step_s = self.step_s
            async with _setting:
                await self.clock.follow_wall()
            self._log.warning("time set to the wall clock", step_s=step_s)
            self.blind, self._moved_at, self._hold_until = False, None, 0.0
            self.synced = self.synced or self.clock.source.synchronized()
            self._shown_step_s = self.step_s
            self._write()
        elif abs(self.step_s - self._shown_step_s) > MOVED_S:
            self._shown_step_s = self.step_s
            if abs(self._shown_step_s) > MOVED_S:
                self._log.warning("wall clock was set: not followed", step_s=self._shown_step_s)
            else:
                self._log.info("wall clock was set back")

    def _to_be_followed(self) -> bool:
        source = self.clock.source
        boot = source.boot()
        if source.wall() < RELEASE.timestamp():
            self._possible_since = None
            return False
        if self._possible_since is None:
            self._possible_since = boot
        if self._moved_at is not None and abs(self.step_s) <= MOVED_S:
            self._moved_at = None  # it was set back
        if not self.synced and source.synchronized():
            return True
        if self.blind:
            return boot - self._possible_since >= SETTLED_S
        return self._moved_at is not None and boot - self._moved_at >= self._wait_s

    def _read(self, boot: float) -> _Note | None:
        """What a process before this one noted in this boot; None too if that cannot be."""
        if self._file is None or not self.boot_id:
            return None
        try:
            values: dict[str, Any] = json.loads(self._file.read_bytes())
            note = _Note(**values)
            note = note._replace(offset=float(note.offset), hold_until=float(note.hold_until))
        except (OSError, ValueError, TypeError):  # none yet, or damaged: begin with the wall clock
            return None
        possible = RELEASE.timestamp() - 1 <= note.offset + boot <= LATEST_S
        return note if possible and note.boot_id == self.boot_id else None

    def _write(self) -> None:
        note = _Note(self.boot_id, self.clock.offset, self.synced, self.blind, self._hold_until)
        if self._file is None:
            return
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps(note._asdict()), encoding="ascii")
            new.replace(self._file)
        except OSError as error:  # the next process then begins with the wall clock
            self._log.warning("clock note not written", path=str(self._file), error=str(error))
