"""The outbox as an edge sees it.

After each commit (`Commits`) the edge's callbacks run and the answers go out. What is committed is
never lost, whoever is killed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from patchbay.bus import Bus
from patchbay.clock import DomainTime
from patchbay.errors import Unavailable
from patchbay.forms import JSON_FORM, Form
from patchbay.messages import event_type, rfc3339
from patchbay.outbox.commits import Commits, Done, Group
from patchbay.outbox.journal import Journal, Row
from patchbay.outbox.ranges import RangeSender, first_of
from patchbay.outbox.room import Room
from patchbay.outbox.salvage import losses
from patchbay.outbox.sender import WINDOW, Sender
from patchbay.outbox.writer import Writer
from patchbay.progress import DISK

T = TypeVar("T")

GATHER_S = 0.002
GATHER_ROWS = 16
"""An idle edge commits at once. One that takes in hundreds of single events a second lets those of
two milliseconds, or so many, share an fsync, which costs more than all the rest (measured at 3,600
reports a second: 60 microseconds of a report instead of 115)."""

FORGET_AFTER_S = 1.0
"""A quiet edge deletes acknowledged rows after so long; a busy one with its next commit."""

BUSY_POLL_S = 0.2
"""How often an edge that has met damage while it was busy looks whether it may stop."""

TIME_NOTE = "clock/domain"
"""The note that keeps how far the domain service's time is from ours."""

SHED_RETRY_S = 1.0
"""A full outbox in which nothing can be given up is looked through again after so long."""

FORGET_ON_A_FULL_DISK = 1000
"""Rows at most that one commit forgets while the disk is full: it has the reserve to write to, and
SQLite writes up to a page a row of those it deletes."""

SHED_PART = 20
"""A full outbox gives up one part in so many of its oldest telemetry at once, and never less than
the window: what the domain service may have persisted without our knowing goes first."""


class OutboxFull(Unavailable):
    """The outbox has reached its bound, or its disk has: refuse the device in its own terms."""


class Outbox:
    """Takes events in for one edge and sees to it that they arrive.

    ``max_rows`` and ``max_bytes`` bound what waits. ``in_order``: the domain service takes each
    event after the one before it; without, its replicas acknowledge what each has persisted.
    ``gather_s``, ``gather_rows``, ``waited_for``: see `Commits`. ``threaded``: no commit may hold
    up the loop, however quick the disk is. ``form``: how events are encoded, in the file and on the
    bus. ``sheds``: names of events of which the oldest are given up when it is full, for an edge
    that cannot refuse its device; ``shed`` counts them. ``busy``: while it says so, nothing is
    committed merely to forget what is acknowledged, and damage does not stop the unit.
    Enter it in the unit's loop before the bus connects: it listens for acknowledgements.
    """

    def __init__(
        self,
        bus: Bus,
        service: str,
        path: Path,
        *,
        synchronous: str = "FULL",
        max_rows: int = 200_000,
        max_bytes: int = 268_435_456,
        in_order: bool = True,
        gather_s: float = GATHER_S,
        gather_rows: int = GATHER_ROWS,
        waited_for: bool = False,
        threaded: bool = False,
        form: Form = JSON_FORM,
        sheds: Collection[str] = (),
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        if sheds and not in_order:
            raise ValueError("only what is taken in order can be given up")
        self._bus = bus
        self._service = service
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._form = form
        self._busy = busy
        self._in_order = in_order
        self._sheds = {event_type(service, name) for name in sheds}
        self.shed = 0
        self._log = structlog.get_logger("outbox").bind(instance=bus.client_id)
        self._loop = asyncio.get_running_loop()
        self._journal = Journal(path, synchronous)
        self._journal.on_damage = self._damaged
        self._writer = Writer(threaded=threaded)
        self.unreadable_notes = 0
        sender = Sender if in_order else RangeSender
        self._sender = sender(
            self._journal, bus, service, self._acknowledged_some, form, self._writer
        )
        self._sender.on_time = self._learn_time
        self.on_time: Callable[[], None] | None = None
        """Called once when the domain service has told the time, or does not."""
        noted = dict(self._journal.notes(TIME_NOTE))
        self.domain_time = DomainTime(noted.get(""))
        """What time it is for the domain service: for capture times and deadlines."""
        self._next = self._journal.seq + 1
        self._oldest: str | None = None
        self._later: dict[str, Callable[[], bytes]] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._shed_at = 0.0
        self._room = Room(self._journal, self._writer, self._log)
        self._commits = Commits(
            self._journal,
            self._writer,
            self._log,
            gather_s=gather_s,
            gather_rows=gather_rows,
            waited_for=waited_for,
            forget=self._acknowledged,
        )
        self._commits.on_written = self._written
        self._commits.on_sendable = self._sender.committed
        self._commits.on_failed = self._not_written
        bus.backlogs.append(self)
        self._work = bus.progress.watch("outbox", lambda: self.waiting > 0, self._sender.cause)
        bus.progress.watch("outbox file", lambda: not self._room.ok, lambda: DISK)

    async def __aenter__(self) -> Self:
        self._sender.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._sender.stop()
        if self._forgetting is not None:
            self._forgetting.cancel()
        try:
            await self._writer.idle()
        finally:
            self._writer.finish()
            self._note_what_waits()
            self._commits.commit()
            self._writer.finish()
            self._bus.backlogs.remove(self)
            self._writer.close()
            self._journal.close()

    def now(self) -> str:
        """The domain service's time now, as far as it is known (RFC 3339): when an event that is
        taken in now was captured."""
        return rfc3339(self.domain_time.now())

    @property
    def epoch(self) -> str:
        """The epoch of the events that are sent now; what is new may be of a later one."""
        return self._sender.epoch

    def losses(self) -> dict[str, int]:
        """Numbers for the unit's info of what damage has cost; empty while there was none."""
        found = losses(self._journal.salvaged, self._journal.set_aside, in_order=self._in_order)
        if self.unreadable_notes:
            found["outbox_notes_unreadable"] = self.unreadable_notes
        return found

    @property
    def waiting(self) -> int:
        """Events that no domain service has persisted yet."""
        return self._sender.waiting + self._commits.rows

    def oldest(self) -> str | None:
        """The time (RFC 3339) of the oldest event in the file; None if there is none."""
        if not self._writer.busy:
            self._oldest = self._journal.oldest()
        return self._oldest

    @property
    def full(self) -> bool:
        """Would `add` refuse now? A full disk is tried again every second."""
        if self._journal.damage:
            return True
        return not self._room.worth_a_try() or self._at_bound

    @property
    def _at_bound(self) -> bool:
        return self._journal.rows + self._commits.rows >= self._max_rows or (
            self._journal.bytes + self._commits.bytes >= self._max_bytes
        )

    def add(
        self, device: str, name: str, *, key: str = "", subject: str, time: str, data: Any
    ) -> None:
        """Take an event in; it is safe after this turn's commit (see `after_commit`).

        ``device`` is the id in the topic, ``subject`` the original one, ``time`` the capture (RFC
        3339), ``key`` names the fact and becomes its id; without one, for a device that has no
        numbers of its own, the place in this file does (``<epoch>/<number>``). Raises OutboxFull,
        and UnicodeEncodeError for text with lone surrogates.
        """
        if self._sheds and self._at_bound:
            self._shed()
        if self.full:
            raise OutboxFull(f"{self._journal.rows} events wait for the domain service")
        key = key or f"{self._journal.epoch}/{self._next:012d}"
        body = self._form.encode(data)
        for text in (device, key, subject, time):
            text.encode()  # the file would refuse it, and with it all that this turn took in
        self._commits.add(
            device,
            Row(
                self._next,
                key,
                self._bus.topics.event(self._service, device, name),
                event_type(self._service, name),
                subject,
                time,
                body,
            ),
        )
        self._next += 1

    def note(self, name: str, value: bytes | None) -> None:
        """Remember ``value`` under ``name`` with this turn's commit; None forgets it."""
        self._later.pop(name, None)
        self._commits.group.notes[name] = value
        self._commits.schedule()

    def note_later(self, name: str, value: Callable[[], bytes]) -> None:
        """As `note`, for what is not worth a commit of its own: within `FORGET_AFTER_S`, or when
        the unit stops, what ``value`` returns is noted. A kill before that loses it."""
        self._later[name] = value
        self._forget_soon()

    def notes(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """What was noted under names that begin with ``prefix``, in the file."""
        return self._journal.notes(prefix)

    def read_notes(self, prefix: str, read: Callable[[bytes], T]) -> dict[str, T]:
        """What was noted under names that begin with ``prefix``, as ``read`` understands it.

        One that it does not understand is logged, counted and forgotten: the others count.
        """
        found: dict[str, T] = {}
        for name, value in self.notes(prefix):
            try:
                found[name] = read(value)
            except Exception as error:  # whatever a damaged note makes of its reader
                self.unreadable_notes += 1
                self._log.error("unreadable note", note=prefix + name, error=repr(error))
                self.note(prefix + name, None)
        return found

    def after_commit(self, done: Done) -> None:
        """Call ``done`` when this turn's commit is on disk, or has failed.

        When commits fail, those of the latest turn are called first: memory is undone backwards.
        """
        self._commits.group.done.append(done)
        self._commits.schedule()

    def _learn_time(self, time_s: float) -> None:
        """An acknowledgement says what time it is; 0: an older domain service, which does not."""
        noted = self.domain_time.learn(time_s) if time_s else None
        if noted is not None:
            self.note(TIME_NOTE, noted)
        on_time, self.on_time = self.on_time, None
        if on_time is not None:
            on_time()

    @property
    def turn(self) -> int:
        """The number of the commit that what is taken in now will be in: what an edge remembers
        together with it, it undoes together if that fails (see `after_commit`)."""
        return self._commits.turn

    def _written(self, group: Group) -> None:
        self._sender.forgotten(group.ranges)
        if not self._room.ok:
            self._room.found(wrote=bool(group.rows), then=self._forget_the_rest)

    def _not_written(self, error: Exception, events: int) -> None:
        self._next = self._journal.seq + 1
        if isinstance(error, sqlite3.IntegrityError):  # a number that the file cannot have yet
            self._journal.found_damage(str(error))
        if self._journal.damage:  # the unit stops; the next start salvages
            self._log.error("outbox damaged", error=str(error), events=events)
        else:
            self._no_room(error, events)

    def _damaged(self, why: str) -> None:
        """The journal has met damage, perhaps in the writer's thread."""
        self._loop.call_soon_threadsafe(self._stop_when_idle, why)

    def _stop_when_idle(self, why: str) -> None:
        """The file is damaged: stop the unit, but not while a pump is on."""
        if self._busy():
            asyncio.get_running_loop().call_later(BUSY_POLL_S, self._stop_when_idle, why)
        else:
            self._bus.fail(why)

    def _no_room(self, error: Exception, events: int) -> None:
        """Nothing new is taken in for a while; what is acknowledged can be forgotten all the same,
        in the room that was kept for this."""
        self._log.error("outbox not written", error=str(error), events=events)
        self._room.lost()
        self._forget_soon()

    def _acknowledged(self) -> tuple[int, list[tuple[int, int]]]:
        """What to forget with this commit: all of it, or a little at a time on a full disk."""
        acked, ranges = self._sender.acked, self._sender.ranges()
        if self._room.ok:
            return acked, ranges
        acked = min(acked, self._journal.acked + FORGET_ON_A_FULL_DISK)
        return acked, first_of(ranges, FORGET_ON_A_FULL_DISK)

    def _forget_the_rest(self) -> None:
        if self._owes:
            self._commits.schedule()

    @property
    def _owes(self) -> bool:
        """Is there something acknowledged that the file still has?"""
        return bool(self._sender.ranges()) or self._sender.acked > self._journal.acked

    def _shed(self) -> None:
        """Make room: forget what is acknowledged, or else the oldest telemetry."""
        if self._loop.time() < self._shed_at:
            return
        self._writer.finish()
        try:
            self._journal.commit([], (), self._sender.acked)
            if not self._at_bound:
                return
            gone = self._journal.shed(max(WINDOW, self._journal.rows // SHED_PART), self._sheds)
        except sqlite3.Error as error:
            self._log.error("outbox not written", error=str(error), events=0)
            return
        if gone:
            self.shed += gone
            self._log.error("outbox full: the oldest telemetry is given up", events=gone)
            self._sender.renumbered()
        else:
            self._shed_at = self._loop.time() + SHED_RETRY_S

    def _acknowledged_some(self) -> None:
        self._work.moved()
        self._forget_soon()

    def _forget_soon(self) -> None:
        if self._forgetting is None:
            self._forgetting = self._loop.call_later(FORGET_AFTER_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        if self._busy():
            self._forget_soon()
        elif self._owes or self._later:
            self._note_what_waits()
            self._commits.schedule()

    def _note_what_waits(self) -> None:
        later, self._later = self._later, {}
        for name, value in later.items():
            self._commits.group.notes.setdefault(name, value())
