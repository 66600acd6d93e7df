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
from patchbay.clock_guard import Guard
from patchbay.domain_store import domain_store
from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate, Inbox, Keeper, Outgoing, Publisher
from patchbay.messages import (
    Event,
    capture_time,
    event_type,
    new_event,
    new_id,
    now,
    rfc3339,
)
from patchbay.progress import Ticks
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.topics import device_id, twin_id
from patchbay_locker import rules
from patchbay_locker.announce import Announcer
from patchbay_locker.desk import Desk
from patchbay_locker.messages import REPORT, SERVICE, Report
from patchbay_locker.rules import Access, Board, Effect, Publish, SaveRental
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import BOARDS, LockerStore, access
from patchbay_locker.timekeeper import Timekeeper

TICK_S = 0.5
"""How often time is looked at: an expiry is at most so late."""

STOP_SAVE_S = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

SHOWN = 128
"""Characters of an id in the log."""

FAILED = timedelta(minutes=1)
"""A board for which time could not do what was due is tried again after so long."""

LAG = timedelta(seconds=5)
"""A report that is so old when it comes is part of a backlog: until that is worked off, a board's
silence means nothing."""

_reports = msgspec.json.Decoder(Report)


async def run(unit: Unit) -> None:
    """The unit ``locker.domain``."""
    settings = unit.settings(LockerSettings)
    stored = unit.config.store
    async with domain_store(unit) as store:
        kept = LockerStore(store, stored.events_ttl_s)
        async with LockerDomain(unit.bus, store, kept, settings, stored, unit.clock) as domain:
            unit.info_sources["clock_unsure"] = lambda: int(unit.clock.unsure)
            unit.info_sources["clock_step_s"] = lambda: int(unit.clock.step_s)
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
        guard: Guard | None = None,
    ) -> None:
        """``guard``: how far the time can be trusted; None: it can."""
        self.bus = bus
        self.kept = kept
        self.settings = settings
        self._keeper = Keeper(
            bus,
            store,
            SERVICE,
            kept.boards,
            BOARDS,
            self._prepare,
            self.keep,
            self._apply,
            self._document_of,
        )
        self.inbox = Inbox(bus, store, store_settings, SERVICE, [REPORT], self._keeper.apply)
        self.time = Timekeeper(bus, kept, guard or Guard(), self.keep)
        self.announcer = Announcer(bus, kept, self.time, self._prepare)
        self.desk = Desk(
            bus, kept, settings, self.keep, self.time.ends, lambda: self.time.guard.mark
        )
        self._publisher: Publisher[Board] = Publisher(bus, SERVICE)
        self._publisher.follow(self.kept.boards)
        self._ticks = Ticks(bus.progress, "ticker", lambda: bus.connected)
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._due: dict[str, datetime | None] = {}
        self._held_elsewhere: dict[str, int] = {}
        self._ticker: asyncio.Task[None] | None = None
        bus.on_connect(self._connected)
        bus.subscribe(bus.topics.dead(SERVICE), self._bury)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._ticker = self.bus.tasks.spawn(self._tick_for_ever(), "ticker")
        self._watcher = self.bus.tasks.spawn(self._keeper.watch(), "unreadable documents")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.time.close()
        self.announcer.close()
        await self.inbox.stop()
        self._watcher.cancel()
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
            await self._prepare()
            self.time.listening_since = now()
            for board in boards:
                self._watch(board)
                self.announcer.publish_all(board)
            for edge in self.time.edges:  # after the boards' lists, which go by this time
                self.time.tell_time(edge)
            self._publisher.flush(boards)

    async def _prepare(self) -> None:
        """Load what is not loaded, and what time has to do with it. Hold the boards' lock."""
        await self.kept.prepare(now())
        if self.time.due:
            await self.time.settle()

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # Reports

    async def _apply(self, events: list[Event]) -> None:
        boards = self.kept.boards
        async with boards.lock:
            await self._prepare()
            changed: dict[str, Aggregate[Board]] = {}
            facts: list[Document] = []
            moment = now()
            try:
                for event in events:
                    self._fold(event, moment, changed, facts)
                await self.kept.save_facts(facts)
                self._recall(changed)
                await self.keep(changed.values())
            except BaseException:
                # The boards have taken in what is not kept: else it would count as known next time.
                boards.doubt(changed)
                raise

    def _document_of(self, event: Event) -> str:
        """The document that a report changes, or that its board could have (see `_device`)."""
        board = _reports.decode(event.data).board
        twin = twin_id(board)
        return twin if twin in self.kept.boards.faults else device_id(board)

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
        at = capture_time(event.time, moment)
        if moment - at > LAG:
            self.time.listening_since = moment
        device = self._device(event, report, moment, changed)
        board = boards.get(device)
        if board is not None:
            if report.rev != board.state.rev:
                self._held_elsewhere[device] = report.rev
            changed[device] = board
            if board.knows(event):
                return
        state, effects = rules.report(board.state if board else None, report, at)
        if board is None:
            board = changed[device] = Aggregate(device, state)
            boards.add(board)
        board.apply(event)
        self._collect(board, effects, event.id, event.time, facts)

    def _device(
        self,
        event: Event,
        report: Report,
        moment: datetime,
        changed: dict[str, Aggregate[Board]],
    ) -> str:
        """The device that a report is of: of two boards whose ids differ only in case, the second
        has one of its own, and both have an alarm."""
        device = device_id(report.board)
        first = self.kept.boards.get(device)
        if first is None or first.state.id == report.board:
            return device
        twin = twin_id(report.board)
        if self.kept.boards.get(twin) is None and rules.adopts(first.state, report.board):
            return device
        effects = rules.rival(first.state, report.board)
        first.changed = True
        changed[device] = first
        self._collect(first, effects, f"{event.id}/rival", rfc3339(moment), [])
        return twin

    def _recall(self, changed: dict[str, Aggregate[Board]]) -> None:
        """An edge that holds another list than ours gets ours again."""
        held, self._held_elsewhere = self._held_elsewhere, {}
        for device, rev in held.items():
            board = changed.get(device)
            if board is not None and rev != board.state.rev:
                self.announcer.correct(board, rev)

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
        self.announcer.saved(some)
        self._publisher.flush(some)
        if not self.settings.state_interval_s:
            self.announcer.publish_states()

    # Time

    async def _tick_for_ever(self) -> None:
        period_s = min(TICK_S, self.settings.state_interval_s or TICK_S)
        states_at = 0.0
        while True:
            await asyncio.sleep(period_s)
            try:
                await self._tick()
                self._ticks.good()
            except Unavailable as error:
                self._ticks.failed(error)
                self._log.warning("periodic tick skipped: store unavailable", error=str(error))
            except Exception as error:  # the outermost loop of this task
                self._ticks.failed(error)
                self._log.error("tick failed", exc_info=error)
            if (clock := asyncio.get_running_loop().time()) >= states_at:
                states_at = clock + self.settings.state_interval_s
                await self.announcer.publish_saved_states()

    def _watch(self, board: Aggregate[Board]) -> None:
        """Note when time will have something to do with this board."""
        self._due[board.id] = rules.due(
            board.state,
            self.settings.offline_after_s,
            self.time.listening_since,
            self.time.ends,
        )

    async def _tick(self) -> None:
        """Do what is due: end rentals, notice silence, forget what the broker has confirmed."""
        moment = now()
        if not self.bus.connected:
            self.time.listening_since = moment
        boards = self.kept.boards
        due = {id: None for id, at in self._due.items() if at is not None and at <= moment}
        if not due and not self.time.due and not any(board.pruned for board in boards):
            return
        ids = [*due, *(board.id for board in boards if board.pruned and board.id not in due)]
        try:
            await self._tick_boards(ids, moment)
            return
        except Unavailable:
            raise
        except Exception as error:  # one of them is at fault: time goes on for the others
            self._log.error("tick failed, now board by board", boards=len(ids), error=repr(error))
            boards.doubt(ids)
        for id in ids:
            try:
                await self._tick_boards([id], moment)
            except Unavailable:
                raise
            except Exception as error:
                self._log.error("tick of a board failed", board=id[:SHOWN], error=repr(error))
                boards.doubt([id])
                self._due[id] = moment + FAILED

    async def _tick_boards(self, ids: Iterable[str], moment: datetime) -> None:
        boards = self.kept.boards
        async with boards.lock:
            await self._prepare()
            changed = []
            for id in ids:
                board = boards.get(id)
                if board is None:
                    self._due.pop(id, None)
                    continue
                effects = rules.tick(
                    board.state,
                    moment,
                    self.settings.offline_after_s,
                    self.time.listening_since,
                    self.time.ends,
                )
                if effects:
                    board.changed = True
                    self._collect(board, effects, new_id(), rfc3339(moment), [])
                self._watch(board)
                changed.append(board)
            await self.keep(changed)
