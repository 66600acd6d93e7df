"""When the outbox commits, and what one commit takes along.

All that one turn of the loop takes in is one commit, or all of ``gather_s`` when commits follow one
another. While a commit is in progress (`Writer`) what comes gathers for the next one. If a commit
fails, what has gathered since fails with it: the edge has built it on what is not on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from patchbay.log import Logger
from patchbay.outbox.journal import Journal, Row
from patchbay.outbox.writer import Writer

Done: TypeAlias = Callable[[bool], None]
"""Called after the commit: True, it is on disk; False, it could not be written (disk full)."""

ACTIVE_S: Final = 0.005
"""A device that was heard within so long may send again at any moment."""


class Group:
    """What one commit takes: events, notes, what to forget, and who waits for it."""

    __slots__ = ("acked", "bytes", "done", "notes", "ranges", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.bytes = 0
        self.notes: dict[str, bytes | None] = {}
        self.done: list[Done] = []
        self.acked = 0
        self.ranges: list[tuple[int, int]] = []


class Commits:
    """Gathers what the edge takes in, and commits it.

    ``gather_s``: commits are so far apart at least, unless ``gather_rows`` events have come.
    ``waited_for``: devices wait for the commit, so it comes as soon as each device that was heard
    within `ACTIVE_S` has an event in it. ``forget``: what the next commit may forget: all up to a
    number, and ranges beyond it.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Writer,
        log: Logger,
        *,
        gather_s: float,
        gather_rows: int,
        waited_for: bool,
        forget: Callable[[], tuple[int, list[tuple[int, int]]]],
    ) -> None:
        self.group = Group()
        """What the next commit takes."""
        self.turn = 0
        """The number of the next commit."""
        self.on_written: Callable[[Group], None] = lambda _group: None
        """Called when a commit is on disk, before those who wait for it."""
        self.on_sendable: Callable[[list[Row]], None] = lambda _rows: None
        """Called with its events after those who wait for it."""
        self.on_failed: Callable[[Exception, int], None] = lambda _error, _events: None
        """Called when a commit has failed, with the number of events that go with it."""
        self._journal = journal
        self._writer = writer
        self._log = log
        self._gather_s = gather_s
        self._gather_rows = gather_rows
        self._waited_for = waited_for
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._in_flight: Group | None = None
        self._active: dict[str, float] = {}
        self._turn_scheduled = False
        self._gathering: asyncio.TimerHandle | None = None
        self._ended_at = 0.0

    @property
    def rows(self) -> int:
        """Events that are not on disk yet."""
        return len(self.group.rows) + (len(self._in_flight.rows) if self._in_flight else 0)

    @property
    def bytes(self) -> int:
        """Bytes of their bodies."""
        return self.group.bytes + (self._in_flight.bytes if self._in_flight else 0)

    def add(self, device: str, row: Row) -> None:
        """Take an event of a device in."""
        self.group.rows.append(row)
        self.group.bytes += len(row.body)
        if self._waited_for:
            now = self._loop.time()
            active = self._active
            active.pop(device, None)
            active[device] = now
            while active[first := next(iter(active))] < now - ACTIVE_S:
                del active[first]
        self.schedule()

    def schedule(self) -> None:
        """Commit after this turn of the loop, or a little later."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._end_turn)

    def commit(self) -> None:
        """Commit what has gathered, now; while a commit is in progress, after that."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._in_flight is not None:
            return
        group = self._in_flight = self._take()
        group.acked, group.ranges = self._forget()
        if group.rows or group.notes or group.ranges or group.acked > self._journal.acked:
            self._writer.run(partial(self._write, group), partial(self._ended, group))
        else:
            self._settle([group], ok=True)

    def _end_turn(self) -> None:
        self._turn_scheduled = False
        enough = self._gather_rows
        if self._waited_for:
            enough = min(enough, len(self._active))
        wait_s = self._ended_at + self._gather_s - self._loop.time()
        if wait_s <= 0 or len(self.group.rows) >= enough:
            self.commit()
        elif self._gathering is None:
            self._gathering = self._loop.call_later(wait_s, self.commit)

    def _take(self) -> Group:
        group, self.group = self.group, Group()
        self.turn += 1
        return group

    def _write(self, group: Group) -> None:
        self._journal.commit(group.rows, group.notes.items(), group.acked, group.ranges)

    def _ended(self, group: Group, error: Exception | None) -> None:
        if error is None:
            self.on_written(group)
            self._settle([group], ok=True)
            if group.rows:
                self.on_sendable(group.rows)
        elif isinstance(error, (sqlite3.Error, ValueError)):
            later = self._take()
            self.on_failed(error, len(group.rows) + len(later.rows))
            self._settle([later, group], ok=False)
        else:
            raise error

    def _settle(self, groups: list[Group], *, ok: bool) -> None:
        """A commit has ended: call those who wait for it. What has come meanwhile is next."""
        self._in_flight = None
        self._ended_at = self._loop.time()
        for group in groups:
            for callback in group.done:
                try:
                    callback(ok)
                except Exception as error:  # one device's answer must not keep others from theirs
                    self._log.error("answer failed", exc_info=error)
        if self.group.rows or self.group.notes or self.group.done:
            self.schedule()
