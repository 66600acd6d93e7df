"""What the locker domain keeps retained on the bus, and what it says to an edge that comes.

Everything is published from what is saved. An edge must not depend on retained messages: some
brokers do not deliver them to a subscription with a wildcard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import TooLarge, Unavailable
from patchbay.inbox import Aggregate
from patchbay.messages import encode
from patchbay_locker import rules
from patchbay_locker.messages import SERVICE
from patchbay_locker.rules import Board
from patchbay_locker.store import LockerStore
from patchbay_locker.timekeeper import Timekeeper

EDGE_PREFIX = f"{SERVICE}-edge"

GREETED = 100
"""Desired states published in one go for an edge that has come: others need the boards too."""

RETRY_S = 0.5
"""An edge that could not be greeted, since the store is away, is greeted after so long."""

SHOWN = 128
"""Characters of a topic in the log."""


class Announcer:
    """Publishes desired states, states and status. ``prepare`` loads the boards (with their lock
    held) and raises Unavailable."""

    def __init__(
        self,
        bus: Bus,
        kept: LockerStore,
        timekeeper: Timekeeper,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._kept = kept
        self._time = timekeeper
        self._prepare = prepare
        self._desired: dict[str, int] = {}
        self._online: dict[str, bool] = {}
        self._restate: set[str] = set()
        self._quiet: set[str] = set()
        self._greeting: asyncio.Task[None] | None = None
        self._greet_again = False
        self._log = structlog.get_logger("announcer").bind(instance=bus.client_id)
        bus.listen(bus.topics.unit_status("+"), self._unit_status)

    def close(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()

    # Edges

    def _unit_status(self, message: Message) -> None:
        """An edge that has come is told the time and all that boards are to know, and must then see
        us say ``online`` itself: a retained one may be old."""
        message.ack()
        instance = message.topic.rpartition("/")[2]
        if not instance.startswith(EDGE_PREFIX):
            return
        if message.payload != b"online":
            self._time.edges.discard(instance)
            return
        self._time.edge_came(instance)
        if message.retain:
            return
        self._greet_again = True
        if self._greeting is None or self._greeting.done():
            self._greeting = self._bus.tasks.spawn(self._greet(), "greeting of edges")

    async def _greet(self) -> None:
        while self._greet_again:
            self._greet_again = False
            try:
                await self._publish_all_desired()
            except Exception as error:  # the outermost loop: edges wait, and so do their boards
                self._log.warning("edge not greeted", error=repr(error))
                self._greet_again = True
                await asyncio.sleep(RETRY_S)
            else:
                self._bus.repeat_online()

    async def _publish_all_desired(self) -> None:
        boards = self._kept.boards
        ids: list[str] | None = None
        while ids is None or ids:
            await self._flushed()
            async with boards.lock:
                await self._prepare()
                if ids is None:
                    ids = [board.id for board in boards]
                for id in ids[:GREETED]:
                    board = boards.get(id)
                    if board is not None and not self._is_quiet(board):
                        self._publish_desired(board)
                if not ids[GREETED:]:
                    self._publish_forgotten()
                del ids[:GREETED]

    def _publish_forgotten(self) -> None:
        """An edge that was away when a board was removed must not serve it from memory."""
        for id in self._kept.forgotten:
            if self._kept.boards.get(id) is None:
                self._retain(self._bus.topics.desired(SERVICE, id), b"")

    async def publish_everything(self) -> None:
        """All that is retained, after a connect: a page at a time, since what waits for the broker
        waits in memory. Takes the boards' lock itself. Raises Unavailable."""
        boards = self._kept.boards
        async with boards.lock:
            await self._prepare()
            ids = [board.id for board in boards]
        for start in range(0, len(ids), GREETED):
            async with boards.lock:
                await self._prepare()
                for id in ids[start : start + GREETED]:
                    board = boards.get(id)
                    if board is not None:
                        self.publish_all(board)
            await self._flushed()
        await self.clear([id for id in self._kept.forgotten if boards.get(id) is None])

    async def _flushed(self) -> None:
        """Wait until the broker has what was published before. Raises Unavailable."""
        topic = self._bus.topics.fence(self._bus.client_id)
        await self._bus.publish(topic, b"")

    def hush(self, id: str) -> None:
        """Retain nothing of this board until it is used."""
        self._quiet.add(id)

    def _is_quiet(self, board: Aggregate[Board]) -> bool:
        if board.id not in self._quiet:
            return False
        if board.state.stranger():
            return True
        self._quiet.discard(board.id)
        return False

    async def clear(self, ids: Sequence[str]) -> None:
        """Clear all that the broker retains of these boards; edges forget them. Returns when the
        broker has confirmed it. Raises Unavailable."""
        topics = self._bus.topics
        shown = [id for id in ids if id not in self._quiet]
        self._quiet.difference_update(ids)
        for start in range(0, len(shown), GREETED):
            for id in shown[start : start + GREETED]:
                self._desired.pop(id, None)
                self._online.pop(id, None)
                self._restate.discard(id)
                for topic in (topics.desired, topics.state, topics.status):
                    self._clear(topic(SERVICE, id))
            await self._flushed()

    def _clear(self, topic: str) -> None:
        """Raises Unavailable."""
        with contextlib.suppress(TooLarge, ValueError):  # then nothing was retained there
            self._bus.post(topic, b"", retain=True)

    # Boards: hold their lock, with the boards loaded

    def publish_all(self, board: Aggregate[Board]) -> None:
        """All that is retained of a board."""
        if self._is_quiet(board):
            return
        self._publish_desired(board)
        self._publish_state(board)
        self._publish_status(board)

    def saved(self, boards: Iterable[Aggregate[Board]]) -> None:
        """These are saved: publish what they are to know, and soon what is known of them."""
        for board in boards:
            if self._is_quiet(board):
                continue
            if self._desired.get(board.id) != board.state.rev:
                self._publish_desired(board)
            self._restate.add(board.id)

    def publish_states(self) -> None:
        """States of the boards that have been saved since the last time."""
        waiting, self._restate = self._restate, set()
        for id in waiting:
            board = self._kept.boards.get(id)
            if board is None:
                continue
            self._publish_state(board)
            if self._online.get(board.id) != board.state.online:
                self._publish_status(board)

    async def publish_saved_states(self) -> None:
        """The same, by one who holds no lock: at most so often, however often they report."""
        if not self._restate:
            return
        boards = self._kept.boards
        try:
            async with boards.lock:
                await boards.load()  # what could not be saved is not published
                self.publish_states()
        except Unavailable as error:
            self._log.warning("states not published: store unavailable", error=str(error))

    def correct(self, board: Aggregate[Board], rev: int) -> None:
        """An edge holds this revision, and not ours: ours is published with the next save. One that
        is higher than any that we follow was forged: the edge has to forget it first."""
        if rev > board.state.rev:
            self._retain(self._bus.topics.desired(SERVICE, board.id), b"")
        self._desired.pop(board.id, None)

    def _publish_desired(self, board: Aggregate[Board]) -> None:
        topic = self._bus.topics.desired(SERVICE, board.id)
        if self._retain(topic, encode(rules.desired(board.state, self._time.ends))):
            self._desired[board.id] = board.state.rev

    def _publish_state(self, board: Aggregate[Board]) -> None:
        self._retain(self._bus.topics.state(SERVICE, board.id), encode(rules.state(board.state)))

    def _publish_status(self, board: Aggregate[Board]) -> None:
        status = b"online" if board.state.online else b"offline"
        self._retain(self._bus.topics.status(SERVICE, board.id), status)
        self._online[board.id] = board.state.online

    def _retain(self, topic: str, payload: bytes) -> bool:
        """Publish a retained message. While the broker is away the next connect will do it; what
        the broker would not take must keep nothing else from being published."""
        try:
            self._bus.post(topic, payload, retain=True)
        except Unavailable:
            return False
        except (TooLarge, ValueError) as error:
            self._log.error("not published", topic=topic[:SHOWN], error=str(error))
        return True
