"""Sends what is committed to a domain service whose replicas take it in any order.

The same window, batches and starting again as `Sender`, which see; but each event is acknowledged
by itself. What a killed replica had in hand has gaps around it, so there is no point to start again
from: whatever was not acknowledged in time is sent again, alone or with others like it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.forms import JSON_FORM, Form
from patchbay.messages import AckRanges, decode, ranges_of
from patchbay.outbox.journal import Epoch, Journal, Row
from patchbay.outbox.patience import PATIENCE_MAX_S, PATIENCE_S
from patchbay.outbox.sender import (
    AHEAD,
    ALONE,
    BATCH_BYTES,
    BATCH_EVENTS,
    LOOK_S,
    MESSAGES,
    WINDOW,
    Sender,
)
from patchbay.outbox.writer import Writer

ENVELOPE_BYTES = 512
"""What an envelope adds to a body, generously: for the size of a batch."""


class _Sent(NamedTuple):
    """A row that is under way since ``at`` (the loop's clock), for the so manieth time."""

    row: Row
    at: float
    tries: int


class RangeSender(Sender):
    """The window over the journal, when each event is acknowledged by itself."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        service: str,
        on_ack: Callable[[], None],
        form: Form = JSON_FORM,
        writer: Writer | None = None,
    ) -> None:
        super().__init__(journal, bus, service, on_ack, form, writer)
        self._ranges = msgspec.json.Decoder(AckRanges)
        self._under_way: dict[int, _Sent] = {}
        self._again: dict[int, _Sent] = {}
        self._gone: set[int] = set()
        self.sent = 0

    @property
    def waiting(self) -> int:
        """Events that no domain service has persisted yet."""
        return max(0, self._journal.rows - len(self._gone))

    @property
    def epoch(self) -> str:
        """The present epoch: those before it may be sent at the same time."""
        return self._journal.epoch

    def ranges(self) -> list[tuple[int, int]]:
        """Acknowledged rows that are in the file still, first and last."""
        return ranges_of(self._gone)

    def forgotten(self, ranges: list[tuple[int, int]]) -> None:
        """These ranges are in the file no more."""
        for first, last in ranges:
            self._gone.difference_update(range(first, last + 1))

    def committed(self, rows: list[Row]) -> None:
        """These rows are in the file now: send them when the window allows."""
        follows = rows and rows[0].seq == (self._fresh[-1].seq if self._fresh else self.sent) + 1
        if follows and len(self._fresh) + len(rows) <= AHEAD:
            self._fresh.extend(rows)
        self.pump()

    def pump(self) -> None:
        """Send what the window allows: first what has to be sent again."""
        # Unavailable: the next connect sends them again. Damage: the journal tells of it.
        with contextlib.suppress(Unavailable, sqlite3.Error):
            while (
                self._pausing is None
                and self._bus.connected
                and len(self._under_way) < WINDOW
                and self._unsettled < MESSAGES
                and (rows := self._next(min(BATCH_EVENTS, WINDOW - len(self._under_way))))
            ):
                tries = {row.seq: self._again.pop(row.seq, None) for row in rows}
                at = self._loop_time()
                for row in rows:
                    before = tries[row.seq]
                    self._under_way[row.seq] = _Sent(row, at, before.tries + 1 if before else 0)
                    self.sent = max(self.sent, row.seq)
                self._publish(rows)

    def _next(self, limit: int) -> list[Row]:
        """The next rows to send together: one while few wait, else as many as make a batch."""
        rows: list[Row] = []
        size = 0
        for row in self._again_or_fresh():
            size += len(row.body) + ENVELOPE_BYTES
            if rows and size > BATCH_BYTES:
                break
            rows.append(row)
            if len(rows) == limit:
                break
        if len(rows) <= ALONE:
            rows = rows[:1]
        if rows and rows[0].seq not in self._again:
            for _ in rows:
                self._fresh.popleft()
        return rows

    def _again_or_fresh(self) -> Iterator[Row]:
        """Rows of one kind, so that those to be sent again come first and by themselves."""
        if self._again:
            return (one.row for one in self._again.values())
        while not self._fresh and self.sent < self._journal.seq:
            if self._writer.busy:
                self._writer.when_idle(self.pump)
                break
            rows = self._journal.after(self.sent, AHEAD)
            if not rows:
                break
            self._fresh.extend(row for row in rows if row.seq not in self._gone)
            if not self._fresh:
                self.sent = rows[-1].seq
        return iter(self._fresh)

    def _acknowledged(self, message: Message) -> None:
        message.ack()
        self._hear()
        try:
            ack = decode(self._ranges, message.payload)
        except msgspec.DecodeError as error:
            self._log.warning("acknowledgement not understood", error=str(error))
            return
        self._learn_time(message, ack)
        epoch = self._journal.find_epoch(ack.epoch)
        if epoch is None:
            return
        before = len(self._gone)
        self._take(epoch, ack.ranges)
        if len(self._gone) > before:
            self._progress()
            self._on_ack()
        self.pump()

    def _take(self, epoch: Epoch, ranges: list[tuple[int, int]]) -> None:
        """Count what these ranges name as acknowledged, as far as we have sent it, or the process
        before us: as much work as that is, however large they are."""
        sent = sorted([*self._under_way, *self._again])
        beyond = 0
        for first, last in _disjoint(ranges):
            first, last = epoch.base + first, epoch.base + last
            if last > epoch.last and epoch.name == self._journal.epoch:
                self._log.warning("acknowledged more than was sent", upto=last)
                continue
            last = min(last, epoch.last)  # a power cut may have taken what was sent after it
            for seq in sent[bisect_left(sent, first) : bisect_right(sent, last)]:
                self._under_way.pop(seq, None)
                self._again.pop(seq, None)
                self._gone.add(seq)
            if last > self.sent and beyond < WINDOW and epoch.name != self._journal.epoch:
                self._writer.finish()
                later = self._journal.numbers_between(
                    max(first, self.sent + 1), last, WINDOW - beyond
                )
                beyond += len(later)
                self._gone.update(later)
                self._fresh.clear()

    def _restart(self, why: str) -> None:
        if self._under_way:
            self._log.debug("sending again", why=why, events=len(self._under_way))
        waiting = {**self._again, **self._under_way}
        self._again = {seq: waiting[seq]._replace(tries=-1) for seq in sorted(waiting)}
        self._under_way = {}
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self.pump()

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._check_place()
            if self._bus.connected:
                self._give_up_waiting(self._loop_time())
                self.pump()

    def _give_up_waiting(self, now: float) -> None:
        """What was not acknowledged in time is to be sent again; more patiently each time."""
        late = [
            seq
            for seq, one in self._under_way.items()
            if now - one.at > min(PATIENCE_S * 2**one.tries, PATIENCE_MAX_S)
        ]
        for seq in late:
            self._again[seq] = self._under_way.pop(seq)
        if late:
            self._log.debug("sending again", why="not acknowledged", events=len(late))


def _disjoint(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers, each once. A range that ends before it begins has none."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            first = found[-1][1] + 1
        if first <= last:
            found.append((first, last))
    return found


def first_of(ranges: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """The first of these rows, so many at most."""
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if limit <= 0:
            break
        last = min(last, first + limit - 1)
        found.append((first, last))
        limit -= last - first + 1
    return found
