"""Sends what is committed to a domain service whose replicas take it in any order.

The same window, batches and starting again as `Sender`, which see; but each event is acknowledged
by itself. What a killed replica had in hand has gaps around it, so there is no point to start again
from: whatever was not acknowledged in time is sent again, alone or with others like it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.forms import JSON_FORM, Form
from patchbay.messages import AckRanges, decode, ranges_of
from patchbay.outbox.journal import Journal, Row
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
    ) -> None:
        super().__init__(journal, bus, service, on_ack, form)
        self._ranges = msgspec.json.Decoder(AckRanges)
        self._under_way: dict[int, _Sent] = {}
        self._again: dict[int, _Sent] = {}
        self._gone: set[int] = set()
        self.sent = 0

    @property
    def waiting(self) -> int:
        """Events that no domain service has persisted yet."""
        return max(0, self._journal.rows - len(self._gone))

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
            try:
                self._publish(rows)
            except Unavailable:  # the next connect sends them again
                return

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
            rows = self._journal.after(self.sent, AHEAD)
            if not rows:
                break
            self._fresh.extend(row for row in rows if row.seq not in self._gone)
            if not self._fresh:
                self.sent = rows[-1].seq
        return iter(self._fresh)

    def _acknowledged(self, message: Message) -> None:
        message.ack()
        self._heard_at = self._loop_time()
        try:
            ack = decode(self._ranges, message.payload)
        except msgspec.DecodeError as error:
            self._log.warning("acknowledgement not understood", error=str(error))
            return
        self._learn_time(message, ack)
        if ack.epoch != self._journal.epoch:
            return
        before = len(self._gone)
        for first, last in ack.ranges:
            if last > self._journal.seq:
                self._log.warning("acknowledged more than was sent", upto=last)
                continue
            self._gone.update(seq for seq in range(first, last + 1) if self._is_done(seq))
        if len(self._gone) > before:
            self._progress()
            self._on_ack()
        self.pump()

    def _is_done(self, seq: int) -> bool:
        """Count a row as acknowledged; False if it was already. One that we have not sent was
        sent by the process before us."""
        known = self._under_way.pop(seq, None) or self._again.pop(seq, None)
        if known is None and seq > self.sent:
            self._fresh.clear()
            return True
        return known is not None

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
