"""The locker domain service: reports and commands in, decisions kept and published.

Each change is decided by `rules`, saved by compare-and-set, and only then published: events for
everybody, the desired state for the edges, the reported state for who looks. What could not be
published is published again after the next connect or start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
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
from patchbay.forms import in_json
from patchbay.inbox import Aggregate, Inbox, Keeper, Outgoing, Publisher
from patchbay.messages import (
    Event,
    capture_time,
    event_type,
    new_event,
    now,
    rfc3339,
)
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.topics import device_id, twin_id
from patchbay_locker import rules
from patchbay_locker.announce import Announcer
from patchbay_locker.desk import Desk
from patchbay_locker.housekeeping import Housekeeping
from patchbay_locker.messages import REPORT, SERVICE, Report
from patchbay_locker.registry import Registry
from patchbay_locker.rules import Access, Board, Effect, Publish, SaveRental
from patchbay_locker.settings import LockerSettings
from patchbay_locker.store import BOARDS, LockerStore, access
from patchbay_locker.ticker import Ticker
from patchbay_locker.timekeeper import Timekeeper

SAVED = 200
"""Boards that are saved in one go: each takes 10 KB meanwhile."""

STOP_SAVE_S = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

NEW_AT_ONCE = 50
"""New boards that are stored together: until then a board takes some 30 KB beside what it takes for
good, and whoever invents boards brings a thousand in one round."""

LAG = timedelta(seconds=5)
"""A report that is so old when it comes is part of a backlog: until that is worked off, a board's
silence means nothing."""

_reports = msgspec.json.Decoder(Report)


async def run(unit: Unit) -> None:
    """The unit ``locker.domain``."""
    settings = unit.settings(LockerSettings)
    stored = unit.config.store
    async with domain_store(unit) as store:
        kept = LockerStore(
            store, stored.events_ttl_s, settings.rentals_ttl_s, settings.accesses_ttl_s
        )
        async with LockerDomain(unit.bus, store, kept, settings, stored, unit.clock) as domain:
            unit.info_sources["clock_unsure"] = lambda: int(unit.clock.unsure)
            unit.info_sources["clock_step_s"] = lambda: int(unit.clock.step_s)
            unit.info_sources["backlog"] = lambda: domain.inbox.waiting
            unit.info_sources["boards"] = lambda: len(kept.boards)
            unit.info_sources["boards_evicted"] = lambda: domain.registry.evicted
            unit.info_sources["boards_refused"] = lambda: domain.registry.refused
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
        self.registry = Registry(bus, store, kept, self.announcer, settings.max_boards)
        self._housekeeping = Housekeeping(bus, kept, self.registry, lambda: self.time.guard.unsure)
        self.desk = Desk(
            bus,
            kept,
            settings,
            self.keep,
            self.time.ends,
            mark=lambda: self.time.guard.mark,
            clear=self.announcer.clear,
        )
        self._ticker = Ticker(
            bus,
            kept,
            settings,
            self.time,
            self.announcer,
            self._prepare,
            self.keep,
            lambda board, effects, cause, time: self._collect(board, effects, cause, time, []),
        )
        self._publisher: Publisher[Board] = Publisher(bus, SERVICE)
        self._publisher.follow(self.kept.boards)
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._held_elsewhere: dict[str, int] = {}
        self._ticking: asyncio.Task[None] | None = None
        bus.on_connect(self._connected)
        bus.subscribe(bus.topics.dead(SERVICE), self._bury)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._ticking = self.bus.tasks.spawn(self._ticker.run(), "ticker")
        self._watcher = self.bus.tasks.spawn(self._keeper.watch(), "unreadable documents")
        self._housekeeper = self.bus.tasks.spawn(self._housekeeping.run(), "housekeeping")
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
        self._housekeeper.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait([self._ticking], timeout=STOP_SAVE_S)
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
                self._ticker.watch(board)
        await self.announcer.publish_everything()
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
        for part in self._parts(events):
            await self._apply_part(part)

    def _parts(self, events: list[Event]) -> Iterator[list[Event]]:
        """The events in parts with at most `NEW_AT_ONCE` new boards each; one part at least."""
        part: list[Event] = []
        new: set[str] = set()
        for event in events:
            part.append(event)
            device = device_id(event.subject)
            if self.kept.boards.get(device) is None:
                new.add(device)
                if len(new) == NEW_AT_ONCE:
                    yield part
                    part, new = [], set()
        if part or not events:
            yield part

    async def _apply_part(self, events: list[Event]) -> None:
        boards = self.kept.boards
        async with boards.lock:
            await self._prepare()
            changed: dict[str, Aggregate[Board]] = {}
            facts: list[Document] = []
            moment = now()
            if self.registry.surplus:
                await self.registry.find_surplus(self._documents_of(events), moment)
            try:
                for event in events:
                    self._fold(event, moment, changed, facts)
                await self.registry.evict(changed, facts)
                await self.kept.save_facts(facts)
                self._recall(changed)
                await self.keep(changed.values())
            except BaseException:
                # The boards have taken in what is not kept: else it would count as known next time.
                boards.doubt(changed)
                self.registry.cancel()
                raise

    def _document_of(self, event: Event) -> str:
        """The document that a report changes, or that its board could have (see `_device`)."""
        board = _reports.decode(event.data).board
        twin = twin_id(board)
        return twin if twin in self.kept.boards.faults else device_id(board)

    def _documents_of(self, events: list[Event]) -> list[str]:
        ids = []
        for event in events:
            with contextlib.suppress(msgspec.DecodeError):  # it is refused below
                ids.append(self._document_of(event))
        return ids

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
            self.registry.stays(device)
            if board.knows(event):
                return
        elif not self._is_new(device, event, at, moment):
            return
        state, effects = rules.report(board.state if board else None, report, at)
        if board is None:
            state.since = moment
            if (gone := self.kept.forgotten.get(device)) is not None:
                state.rev = max(state.rev, gone.rev) + 1  # above what an edge may still hold
            board = changed[device] = Aggregate(device, state)
            boards.add(board)
        board.apply(event)
        self._collect(board, effects, event.id, event.time, facts)

    def _is_new(
        self,
        device: str,
        event: Event,
        at: datetime,
        moment: datetime,
    ) -> bool:
        """Does this report make a board known? Not if it is from before that board was removed, or
        if there is no room."""
        gone = self.kept.forgotten.get(device)
        if gone is not None and at <= gone.at:
            return False
        if self.registry.admit(device, moment):
            return True
        why = f"there are {self.registry.max_boards} boards, and none makes room (max_boards)"
        topic = self.bus.topics.event(SERVICE, device, REPORT)
        self.bus.dead_letter(SERVICE, why, in_json(event), topic=topic)
        return False

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
        for start in range(0, len(some), SAVED):
            await self.kept.boards.save(some[start : start + SAVED])
        await self.kept.save_records()
        for board in some:
            self._ticker.watch(board)
        self.announcer.saved(some)
        self._publisher.flush(some)
        if not self.settings.state_interval_s:
            self.announcer.publish_states()
