"""The locker domain service: reports and commands in, decisions kept and published.

Each change is decided by `rules`, saved by compare-and-set, and only then published: events for
everybody, the desired state for the edges, the reported state for who looks. What could not be
published is published again after the next connect or start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.bus.letters import read_letter
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate, Inbox, Outgoing, Publisher
from patchbay.messages import (
    Event,
    encode,
    event_type,
    new_event,
    new_id,
    now,
    parse_time,
    rfc3339,
)
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.topics import device_id
from patchbay_locker import rules
from patchbay_locker.desk import Desk
from patchbay_locker.messages import REPORT, SERVICE, Report
from patchbay_locker.rules import Access, Board, Effect, Publish, SaveRental
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import LockerStore, access

EDGE_PREFIX = f"{SERVICE}-edge"
TICK_S = 0.5
"""How often time is looked at: an expiry is at most so late."""

STOP_SAVE_S = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

LAG = timedelta(seconds=5)
"""A report that is so old when it comes is part of a backlog: until that is worked off, a board's
silence means nothing."""

_reports = msgspec.json.Decoder(Report)


async def run(unit: Unit) -> None:
    """The unit ``locker.domain``."""
    settings = unit.settings(LockerSettings)
    stored = unit.config.store
    async with Store(stored, unit.config.store_uri) as store:
        kept = LockerStore(store, stored.events_ttl_s)
        async with LockerDomain(unit.bus, store, kept, settings, stored) as domain:
            unit.info_sources["backlog"] = lambda: domain.inbox.waiting
            unit.info_sources["boards"] = lambda: len(kept.boards)
            unit.info_sources["reports"] = lambda: domain.inbox.taken
            await unit.serving()


class LockerDomain:
    """Owns the boards. Enter it before the bus connects."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        kept: LockerStore,
        settings: LockerSettings,
        store_settings: StoreSettings,
    ) -> None:
        self.bus = bus
        self.kept = kept
        self.settings = settings
        self.inbox = Inbox(bus, store, store_settings, SERVICE, [REPORT], self._apply)
        self.desk = Desk(bus, kept, settings, self.keep)
        self._publisher: Publisher[Board] = Publisher(bus, SERVICE)
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._due: dict[str, datetime | None] = {}
        self._listening_since = now()
        self._desired: dict[str, int] = {}
        self._online: dict[str, bool] = {}
        self._restate: dict[str, Aggregate[Board]] = {}
        self._ticker: asyncio.Task[None] | None = None
        bus.on_connect(self._connected)
        bus.listen(bus.topics.unit_status("+"), self._unit_status)
        bus.subscribe(bus.topics.dead(SERVICE), self._bury)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._ticker = self.bus.tasks.spawn(self._tick_for_ever(), "ticker")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inbox.stop()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker], timeout=STOP_SAVE_S)
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(STOP_SAVE_S), self.kept.boards.lock:
                await self.kept.boards.load()
                await self.kept.boards.save(one for one in self.kept.boards if one.pruned)

    # The bus

    async def _connected(self) -> None:
        """After each CONNACK: all that we keep on the bus is published again, then events that the
        broker has not confirmed. ``online`` follows: who sees it has seen every desired state."""
        boards = self.kept.boards
        async with boards.lock:
            await self.kept.prepare(now())
            self._listening_since = now()
            for board in boards:
                self._watch(board)
                self._publish_desired(board)
                self._publish_state(board)
                self._publish_status(board)
            self._publisher.flush(boards)

    def _unit_status(self, message: Message) -> None:
        """An edge that has come must see us say ``online`` itself: a retained one may be old."""
        message.ack()
        instance = message.topic.rpartition("/")[2]
        came = not message.retain and message.payload == b"online"
        if came and instance.startswith(EDGE_PREFIX):
            self.bus.repeat_online()

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # Reports

    async def _apply(self, events: list[Event]) -> None:
        boards = self.kept.boards
        async with boards.lock:
            await self.kept.prepare(now())
            changed: dict[str, Aggregate[Board]] = {}
            facts: list[Document] = []
            moment = now()
            try:
                for event in events:
                    self._fold(event, moment, changed, facts)
                await self.kept.save_facts(facts)
                await self.keep(changed.values())
            except BaseException:
                # The boards have taken in what is not kept: else it would count as known next time.
                boards.doubt(changed)
                raise

    def _fold(
        self,
        event: Event,
        moment: datetime,
        changed: dict[str, Aggregate[Board]],
        facts: list[Document],
    ) -> None:
        """Fold one report into its board, in memory, unless the board knows it already: then what
        follows from it may still have to be published."""
        boards = self.kept.boards
        report = _reports.decode(event.data)
        at = parse_time(event.time)
        if moment - at > LAG:
            self._listening_since = moment
        device = device_id(report.board)
        board = boards.get(device)
        if board is not None:
            changed[device] = board
            if board.knows(event):
                return
        state, effects = rules.report(board.state if board else None, report, at)
        if board is None:
            board = changed[device] = Aggregate(device, state)
            boards.add(board)
        board.apply(event)
        self._collect(board, effects, event.id, event.time, facts)

    def _collect(
        self,
        board: Aggregate[Board],
        effects: Iterable[Effect],
        cause: str,
        time: str,
        facts: list[Document],
    ) -> None:
        """Sort effects: facts to insert, records to save, events to publish once it is saved.

        ``cause`` names what they follow from; an event that follows again has the same id.
        """
        for position, effect in enumerate(effects):
            if isinstance(effect, Access):
                facts.append(access(cause, board.state.id, effect))
            elif isinstance(effect, SaveRental):
                self.kept.record(effect)
            else:
                id = f"{cause}/{position}"
                event = self._event(id, effect, board.state.id, time)
                board.publish(id, Outgoing(board.id, effect.name, event))

    def _event(self, id: str, effect: Publish, subject: str, time: str) -> bytes:
        return new_event(
            id=id,
            source=self.bus.client_id,
            type=event_type(SERVICE, effect.name),
            subject=subject,
            time=time,
            data=effect.data,
        )

    # Keeping and publishing

    async def keep(self, changed: Iterable[Aggregate[Board]]) -> None:
        """Save boards and what goes with them, then publish what follows. Hold the boards' lock.

        Raises Unavailable; then nothing was published, and the boards are read again.
        """
        some = list(changed)
        await self.kept.boards.save(some)
        await self.kept.save_records()
        for board in some:
            self._watch(board)
            if self._desired.get(board.id) != board.state.rev:
                self._publish_desired(board)
            self._restate[board.id] = board
        self._publisher.flush(some)
        if not self.settings.state_interval_s:
            self._publish_states()

    def _publish_desired(self, board: Aggregate[Board]) -> None:
        topic = self.bus.topics.desired(SERVICE, board.id)
        if self._retain(topic, encode(rules.desired(board.state))):
            self._desired[board.id] = board.state.rev

    def _publish_state(self, board: Aggregate[Board]) -> None:
        self._retain(self.bus.topics.state(SERVICE, board.id), encode(rules.state(board.state)))

    def _publish_status(self, board: Aggregate[Board]) -> None:
        said = b"online" if board.state.online else b"offline"
        self._retain(self.bus.topics.status(SERVICE, board.id), said)
        self._online[board.id] = board.state.online

    def _publish_states(self) -> None:
        """States of boards that have changed: at most so often, however often they report."""
        waiting, self._restate = self._restate, {}
        for board in waiting.values():
            self._publish_state(board)
            if self._online.get(board.id) != board.state.online:
                self._publish_status(board)

    def _retain(self, topic: str, payload: bytes) -> bool:
        """Publish a retained message. While the broker is away the next connect will do it."""
        try:
            self.bus.post(topic, payload, retain=True)
        except Unavailable:
            return False
        return True

    # Time

    async def _tick_for_ever(self) -> None:
        period_s = min(TICK_S, self.settings.state_interval_s or TICK_S)
        states_at = 0.0
        while True:
            await asyncio.sleep(period_s)
            try:
                await self._tick()
            except Unavailable as error:
                self._log.warning("time stands still", why=str(error))
            except Exception as error:  # the outermost loop of this task
                self._log.error("tick failed", exc_info=error)
            if (clock := asyncio.get_running_loop().time()) >= states_at:
                states_at = clock + self.settings.state_interval_s
                self._publish_states()

    def _watch(self, board: Aggregate[Board]) -> None:
        """Note when time will have something to do with this board."""
        self._due[board.id] = rules.due(
            board.state, self.settings.offline_after_s, self._listening_since
        )

    async def _tick(self) -> None:
        """Do what is due: end rentals, notice silence, forget what the broker has confirmed."""
        moment = now()
        if not self.bus.connected:
            self._listening_since = moment
        boards = self.kept.boards
        due = [id for id, at in self._due.items() if at is not None and at <= moment]
        if not due and not any(board.pruned for board in boards):
            return
        async with boards.lock:
            await self.kept.prepare(moment)
            changed = []
            for id in due:
                board = boards.get(id)
                if board is None:
                    continue
                effects = rules.tick(
                    board.state, moment, self.settings.offline_after_s, self._listening_since
                )
                if effects:
                    board.changed = True
                    self._collect(board, effects, new_id(), rfc3339(moment), [])
                self._watch(board)
                changed.append(board)
            changed.extend(board for board in boards if board.pruned and not board.changed)
            await self.keep(changed)
