"""What the locker domain does about the time that it keeps (`patchbay.clock`).

After a boot with a clock that nobody has set yet, no rental from before it ends: its board keeps
its code. When the clock is set, what was made meanwhile moves with it, and edges are told the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

import structlog

from patchbay.bus import Bus
from patchbay.clock_guard import Guard
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import Ack, encode, event_type, new_event, new_id, now
from patchbay_locker import rules
from patchbay_locker.messages import ALL, SERVICE, Alarm
from patchbay_locker.rules import Board, Rental, SaveRental
from patchbay_locker.store import LockerStore

MAX_EDGES = 1_000
"""Edges that are remembered: whoever may say that he is one could go on inventing them."""

UNSURE = "the clock of this machine is not synchronized: no rental from before its start ends yet"

Keep = Callable[[Iterable[Aggregate[Board]]], Awaitable[None]]


class Timekeeper:
    """Says when rentals end. ``keep`` saves changed boards and publishes what follows."""

    def __init__(self, bus: Bus, kept: LockerStore, guard: Guard, keep: Keep) -> None:
        self.guard = guard
        self.listening_since = now()
        """Silence counts from then on: what was not heard before was not said to us."""
        self.edges: set[str] = set()
        """The edges that are online."""
        self._bus = bus
        self._kept = kept
        self._keep = keep
        self._since = now()
        self._held_until: datetime | None = None
        self._settled = False
        self._log = structlog.get_logger("timekeeper").bind(instance=bus.client_id)
        guard.clock.before_step(self._move)

    def close(self) -> None:
        """Take no more part in the life of the clock."""
        self.guard.clock.forget(self._move)

    def ends(self, rental: Rental) -> datetime:
        """When this rental ends."""
        held = self._held_until if self._settled else self.guard.held_until
        if held is None or self.guard.moves(rental.clock):
            return rental.expires_at
        return max(rental.expires_at, held)

    @property
    def due(self) -> bool:
        """Has `settle` something to do?"""
        return not self._settled or self.guard.held_until != self._held_until

    async def settle(self) -> None:
        """It has become sure what time it is, or we have just started. Hold the boards' lock, with
        the boards loaded. Raises Unavailable."""
        boards = self._kept.boards
        if not self._settled:
            times = (time for one in boards for time in _times(one.state))
            self.guard.not_before(max(times, default=now()))
            self._since = self.listening_since = now()
        old, until = self._held_until, self.guard.held_until
        before = {board.id for board in boards if rules.hold(board.state, self.ends)}
        self._held_until = until
        held = {board.id for board in boards if rules.hold(board.state, self.ends)}
        changed = []
        for board in boards:
            ahead = until is None and board.state.last_seen > now()
            if ahead:  # seen while the clock was wrong, by a version that believed it
                board.state.last_seen = now()
            if ahead or board.id in before | held:
                board.changed = True
                changed.append(board)
        try:
            await self._keep(changed)
        except BaseException:
            self._held_until = old  # tried again
            raise
        self._settled = True
        if held or self.guard.blind:
            self._log.warning("clock unsure", held_boards=len(held), until=str(self._held_until))
            self._publish_alarm()

    async def _move(self, step: timedelta) -> None:
        """The clock is about to be set by this step."""
        boards = self._kept.boards
        async with boards.lock:
            await self._kept.prepare(now())
            changed = []
            for board in boards:
                effects = rules.move(board.state, step, self.guard.moves, self._since, now())
                for effect in effects:
                    if isinstance(effect, SaveRental):
                        self._kept.record(effect)
                if effects or board.state.online:
                    board.changed = True
                    changed.append(board)
            await self._keep(changed)
            self._since += step
            self.listening_since = now() + step
            for edge in self.edges:
                self.tell_time(edge, step)

    def edge_came(self, edge: str) -> None:
        """An edge is online: it is told the time, unless that would end codes that we hold."""
        if len(self.edges) < MAX_EDGES:
            self.edges.add(edge)
        if self._settled:
            self.tell_time(edge)

    def tell_time(self, edge: str, step: timedelta = timedelta()) -> None:
        """Tell an edge what time it is, in an acknowledgement that acknowledges nothing."""
        time_s = self.guard.clock.time() + step.total_seconds()
        with contextlib.suppress(Unavailable, ValueError, TooLarge):
            self._bus.post(self._bus.topics.ack(edge), encode(Ack("", 0, time=time_s)))

    def _publish_alarm(self) -> None:
        event = new_event(
            id=new_id(),
            source=self._bus.client_id,
            type=event_type(SERVICE, "alarm"),
            subject=ALL,
            data=Alarm(ALL, "clock_unsure", UNSURE),
        )
        with contextlib.suppress(Unavailable):
            self._bus.post(self._bus.topics.event(SERVICE, ALL, "alarm"), event)


def _times(board: Board) -> Iterable[datetime]:
    yield board.first_seen
    yield board.last_seen
    for rental in board.rentals.values():
        yield rental.created_at
