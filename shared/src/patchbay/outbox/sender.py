"""Sends what is committed, in order, and starts again where the domain service stopped.

At most `WINDOW` events beyond the last acknowledged are under way. An event travels alone on its
own topic while the bus keeps up; when more than `ALONE` wait, up to `BATCH_EVENTS` consecutive ones
travel as one CloudEvents batch (measured: 50 to a message is 12 times cheaper for domain and
broker). PUBACK does not mean that a subscriber will get a message, so only the domain's own
acknowledgement counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import TooLarge, Unavailable
from patchbay.forms import JSON_FORM, Form
from patchbay.messages import Ack, AckRanges, Event, decode
from patchbay.outbox.journal import Journal, Row
from patchbay.outbox.patience import Patience
from patchbay.outbox.writer import Writer
from patchbay.progress import BROKER, DOMAIN

WINDOW = 1000
"""Events under way beyond the last acknowledged: what a domain must be ready to hold in memory."""

ALONE = 8
"""So many may wait and still travel alone, each on its own topic, where people can watch them."""

MESSAGES = 64
"""Messages without PUBACK at once. A broker that is cut off is noticed after half a minute, and
until then each one under way weighs 4 KB: beyond these, events wait on disk and become batches
(measured, an edge of ten busy boards that was cut off: 1.2 MB more instead of 4.7)."""

AHEAD = 200
"""Rows that are held ready to be sent; what comes after them is read from the file when its turn
comes. While nobody takes them they would be megabytes of memory, and they are on disk."""

BATCH_EVENTS = 50
BATCH_BYTES = 131_072
"""Half of the broker's maximum packet size, so a batch never is what the broker refuses."""

LOOK_S = 1.0
"""How often the sender looks whether its patience is over."""

USELESS_S = 10.0
"""Acknowledgements that have not helped for so long show that the cause is here; one that is only
repeated after the last that helped does not."""

SILENCE_S = 90.0
"""A domain service that is there answers sooner: all is sent again after 60 s at most."""

NO_SUBSCRIBER_PAUSE_S = 0.25
NO_SUBSCRIBER_PAUSE_MAX_S = 5.0

SHOWN = 256
"""Characters of key and subject in the place of an event that is too large."""

NAK_PAUSE_S = 0.5
"""One gap makes many naks, one for each message behind it: obey the first."""


class Sender:
    """The window over the journal. ``on_ack`` hears of rows that can be forgotten."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        service: str,
        on_ack: Callable[[], None],
        form: Form = JSON_FORM,
        writer: Writer | None = None,
    ) -> None:
        self._journal = journal
        self._writer = writer or Writer()
        self._bus = bus
        self._service = service
        self._form = form
        self._on_ack = on_ack
        self._log = structlog.get_logger("outbox").bind(instance=bus.client_id)
        self._batch_topic = bus.topics.batch(service, bus.client_id)
        self._decoder = msgspec.json.Decoder(Ack)
        self._fresh: deque[Row] = deque()
        self._patience = Patience()
        self._pause_s = NO_SUBSCRIBER_PAUSE_S
        self._pausing: asyncio.TimerHandle | None = None
        self._unsettled = 0
        self._watch: asyncio.Task[None] | None = None
        self._heard_at = self._progressed_at = 0.0
        self._asked_at = -NAK_PAUSE_S
        self._asked_for = -1
        self._doubted: tuple[str, int] | None = None
        self.acked = journal.acked
        self.sent = journal.acked
        self._reached = journal.acked
        self._announced = ""
        self.on_time: Callable[[float], None] = lambda _time: None
        """Hears of the domain service's time in each acknowledgement."""
        bus.listen(bus.topics.ack(bus.client_id), self._acknowledged)
        bus.on_connect(self._connected)

    @property
    def waiting(self) -> int:
        """Events that no domain service has persisted yet."""
        return min(self._journal.rows, self._journal.seq - self.acked)

    @property
    def epoch(self) -> str:
        """The epoch that is being sent: those before it are persisted."""
        return self._journal.epoch_at(self.acked + 1).name

    def ranges(self) -> list[tuple[int, int]]:
        """Acknowledged rows beyond ``acked``, first and last: none, since all is in order."""
        return []

    def forgotten(self, ranges: list[tuple[int, int]]) -> None:
        """These ranges are in the file no more."""

    def start(self) -> None:
        self._patience.begin(self._loop_time())
        self._watch = self._bus.tasks.spawn(self._watch_progress(), "outbox watch")

    async def stop(self) -> None:
        if self._pausing is not None:
            self._pausing.cancel()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    def committed(self, rows: list[Row]) -> None:
        """These rows are in the file now: send them when the window allows."""
        last = self._fresh[-1].seq if self._fresh else self.sent
        if rows and rows[0].seq == last + 1 and len(self._fresh) + len(rows) <= AHEAD:
            self._fresh.extend(rows)
        self.pump()

    def pump(self) -> None:
        """Send what the window allows."""
        if self._pausing is not None or not self._bus.connected:
            return
        with contextlib.suppress(Unavailable, sqlite3.Error):  # the journal tells of damage
            while (
                self.sent < self._journal.seq
                and self.sent - self.acked < WINDOW
                and self._unsettled < MESSAGES
            ):
                rows = self._next(min(BATCH_EVENTS, WINDOW - (self.sent - self.acked)))
                if not rows:
                    return
                self._publish(rows)
                self.sent = rows[-1].seq
                self._reached = max(self._reached, self.sent)

    def _next(self, limit: int) -> list[Row]:
        """The next rows to send together: one while few wait, else as many as make a batch.

        All of one epoch: those of the next have to wait until it is persisted, since the domain
        service takes nothing of an epoch after the first event of another.
        """
        if not self._fresh or self._fresh[0].seq != self.sent + 1:
            if self._writer.busy:
                self._writer.when_idle(self.pump)
                return []
            self._fresh = deque(self._journal.after(self.sent, AHEAD))
            if not self._fresh:
                return []
        last = self._last(self._fresh[0].seq)
        if self._journal.seq - self.sent <= ALONE and self._fresh[0].seq <= last:
            return [self._fresh.popleft()]
        rows: list[Row] = []
        size = 0
        while self._fresh and len(rows) < limit and self._fresh[0].seq <= last:
            size += len(self._fresh[0].body) + 512
            if rows and size > BATCH_BYTES:
                break
            rows.append(self._fresh.popleft())
        return rows

    def _last(self, first: int) -> int:
        """The last number that may be sent now, if the next event is ``first``."""
        epoch = self._journal.epoch_at(self.acked + 1)
        if first > epoch.last and self.sent == self.acked:  # nothing of that epoch is left
            self.acked = self.sent = first - 1
            epoch = self._journal.epoch_at(first)
        if epoch.name != self._announced:
            self._announced = epoch.name
            self._bus.info_changed()  # the domain takes no epoch that our info does not name
        return epoch.last

    def _publish(self, rows: list[Row]) -> None:
        bodies = [self._envelope(row) for row in rows]
        try:
            if len(rows) == 1:
                self._post(rows[0].topic, bodies[0], self._form.event_type)
            else:
                self._post(self._batch_topic, self._form.batch(bodies), self._form.batch_type)
        except TooLarge as error:
            if len(rows) > 1:
                for row in rows:
                    self._publish([row])
                return
            self._set_aside(rows[0], error)

    def _set_aside(self, row: Row, error: TooLarge) -> None:
        """An event over the packet size: the sequence goes on with what says so in its place."""
        self._log.error("event too large for the broker", key=row.key[:SHOWN], error=str(error))
        self._bus.dead_letter(self._service, str(error), row.body, topic=row.topic, accepted=True)
        shown = row._replace(body=self._form.null, key=row.key[:SHOWN], subject=row.subject[:SHOWN])
        self._post(row.topic, self._envelope(shown), self._form.event_type)

    def _post(self, topic: str, payload: bytes, content_type: str) -> None:
        self._bus.post(topic, payload, content_type=content_type, on_ack=self._settled)
        self._unsettled += 1

    def _settled(self, code: int | None) -> None:
        """A PUBACK, or the end of the connection that it did not come on."""
        full = self._unsettled >= MESSAGES
        self._unsettled -= 1
        self._accepted(code)
        if full:
            self.pump()

    def _envelope(self, row: Row) -> bytes:
        epoch = self._journal.epoch_at(row.seq)
        return self._form.encode(
            Event(
                id=row.key,
                source=self._bus.client_id,
                type=row.type,
                subject=row.subject,
                time=row.time,
                sequence=row.seq - epoch.base,
                epoch=epoch.name,
                data=msgspec.Raw(row.body),
            )
        )

    # Starting again

    async def _connected(self) -> None:
        self._patience = Patience()  # the link is new: what was learnt of the old one says nothing
        self._pause_s = NO_SUBSCRIBER_PAUSE_S
        self._restart("connected")

    def _accepted(self, code: int | None) -> None:
        """A PUBACK: with no subscriber yet, or refused, the broker has dropped the message."""
        if code is None or code == 0 or self._pausing is not None:
            return
        self._log.info("no subscriber yet, retrying", code=code, next_try_s=self._pause_s)
        self._pausing = asyncio.get_running_loop().call_later(self._pause_s, self._resume)
        self._pause_s = min(self._pause_s * 2, NO_SUBSCRIBER_PAUSE_MAX_S)

    def _resume(self) -> None:
        self._pausing = None
        self._restart("no subscriber")

    def cause(self) -> str:
        """What keeps events from being persisted. A domain service that acknowledges, and nothing
        that helps, is not it: then we are, or our file is."""
        if not self._bus.connected:
            return BROKER
        useless_s = self._heard_at - self._progressed_at
        silent_s = self._loop_time() - self._heard_at
        return "" if useless_s > USELESS_S and silent_s < useless_s else DOMAIN

    def _hear(self) -> None:
        """The domain service has acknowledged something. One that comes back after a silence has
        not been useless before."""
        now = self._loop_time()
        if now - self._heard_at > SILENCE_S:
            self._progressed_at = now
        self._heard_at = now

    def _acknowledged(self, message: Message) -> None:
        message.ack()
        self._hear()
        try:
            ack = decode(self._decoder, message.payload)
        except msgspec.DecodeError as error:
            self._log.warning("acknowledgement not understood", error=str(error))
            return
        self._learn_time(message, ack)
        epoch = self._journal.find_epoch(ack.epoch)
        if epoch is None:
            return
        upto = epoch.base + ack.upto
        if epoch.name == self._journal.epoch and upto > self._reached:
            self._log.warning("acknowledged more than was sent", upto=upto, sent=self._reached)
            return
        upto = min(upto, epoch.last)  # a power cut may have taken what was sent after it
        if upto > self.acked:
            self.acked = upto
            self.sent = max(self.sent, upto)
            self._progress()
            self._on_ack()
        if not ack.nak:
            self.pump()
        elif self._loop_time() - self._asked_at > NAK_PAUSE_S or self._asked_for != self.acked:
            self._asked_at, self._asked_for = self._loop_time(), self.acked
            self._writer.when_idle(partial(self._obey, ack))

    def _obey(self, ack: Ack) -> None:
        """The domain service asks for what comes after ``upto``: send it, if that can help.

        It cannot if that event is not in the file any more: the domain's store is new or an older
        one, or the file was damaged. Nor can it if the domain takes nothing more of this epoch.
        Then what is left becomes a new epoch. What the domain has persisted before, it may count
        again; nothing is lost, and facts have the same ids.
        """
        epoch = self._journal.find_epoch(ack.epoch)
        if epoch is None:  # it is persisted meanwhile
            return
        upto = min(epoch.base + ack.upto, epoch.last)
        try:
            first = self._journal.next_after(max(upto, self.acked))
        except sqlite3.Error:  # the journal tells of damage
            return
        if first > epoch.last and epoch.name != self._journal.epoch:
            self.acked = self.sent = max(self.acked, epoch.last)  # nothing of it is left
            self._restart("asked to")
        elif ack.over:
            self._renew(first, "the domain takes nothing more of the epoch")
        elif upto >= self.acked and first == upto + 1:
            self._doubted = None
            self._restart("asked to")
        elif ack.upto == 0 or upto >= self.acked or self._doubted == (ack.epoch, upto):
            self._renew(first, "the domain asks for what is not in the file")
        else:  # it may have been on its way for long: only if it is said again
            self._doubted = (ack.epoch, upto)
            self._restart("asked to")

    def _learn_time(self, message: Message, ack: Ack | AckRanges) -> None:
        if not message.retain:  # a retained one would be old
            self.on_time(ack.time)

    def renumbered(self) -> None:
        """The file's oldest events were given up and the rest has new numbers: begin with them."""
        self.acked = self._journal.acked
        self._fresh.clear()
        self._restart("a new epoch")

    def _renew(self, first: int, why: str) -> None:
        """What is left from ``first`` on is a new epoch."""

        def begun(error: Exception | None) -> None:
            if error is not None:  # the next nak tries again
                self._asked_for = -1
                self._log.error("new epoch not written", error=str(error))
                return
            self._doubted = None
            self.acked = self.sent = max(self.acked, first - 1)
            self._log.error("a new epoch begins", why=why, left=self.waiting)
            self._on_ack()
            self._restart("new epoch")

        self._writer.run(partial(self._journal.begin_epoch, first), begun)

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    def _progress(self) -> None:
        self._progressed_at = self._loop_time()
        self._patience.progressed(self._loop_time())
        self._pause_s = NO_SUBSCRIBER_PAUSE_S

    def _restart(self, why: str) -> None:
        self._patience.begin(self._loop_time())
        self._send_again(why)

    def _send_again(self, why: str) -> None:
        if self.sent > self.acked:
            self._log.debug("sending again", why=why, after=self.acked, sent=self.sent)
        self.sent = self.acked
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self.pump()

    def _check_place(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the journal tells of it
            if not self._writer.busy:
                self._journal.check_place()

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._check_place()
            if self.sent == self.acked:
                self._patience.begin(self._loop_time())
                self.pump()
            elif self._bus.connected and self._patience.is_over(self._loop_time()):
                self._send_again("no progress")
