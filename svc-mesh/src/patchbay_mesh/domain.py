"""The mesh domain service: what nodes say in, histories and states out.

Each round of events is persisted before it is acknowledged: values and messages as facts by an id
that follows from the event, nodes by compare-and-set. A node is away after `active_timeout_s`
without a word, on our own clock: what it was heard at is not asked of another machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import structlog

from patchbay.bus import Bus
from patchbay.bus import Message as BusMessage
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import Unavailable
from patchbay.forms import DataReader, carries_nothing
from patchbay.inbox import Aggregate, Inbox, Keeper, Outgoing, Publisher
from patchbay.messages import Event, capture_time, event_type, new_event, new_id, now, rfc3339
from patchbay.progress import Ticks
from patchbay.runtime import Unit
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay_mesh import rules
from patchbay_mesh.announce import Announcer
from patchbay_mesh.desk import Desk
from patchbay_mesh.messages import (
    DATA,
    MESSAGE,
    NETWORK,
    SERVICE,
    Data,
    Message,
    Network,
    node_device,
)
from patchbay_mesh.recent import Recent
from patchbay_mesh.room import Room
from patchbay_mesh.rules import Node, Publish
from patchbay_mesh.settings import MeshSettings
from patchbay_mesh.store import NODES, MeshStore, message, reading

TICK_S: Final = 0.5
"""How often silence is looked for; a short timeout asks for more."""

LARGE_ROUND: Final = 20
GATHER_S: Final = 0.25
"""After a round of more than so many events the next one gathers for so long: at 2,000 frames a
second of 50 nodes it writes each node once for ten frames, and not for each."""


_data = DataReader(Data)
_message = DataReader(Message)
_network = DataReader(Network)


async def run(unit: Unit) -> None:
    """The unit ``mesh.domain``."""
    settings = unit.settings(MeshSettings)
    stored = unit.config.store
    async with domain_store(unit) as store:
        kept = MeshStore(store, stored.events_ttl_s, settings.readings_ttl_s)
        async with MeshDomain(unit.bus, store, kept, settings, stored) as domain:
            unit.info_sources["backlog"] = lambda: domain.inbox.waiting
            unit.info_sources["nodes"] = lambda: len(kept.nodes)
            unit.info_sources["nodes_forgotten"] = lambda: domain.room.forgotten
            unit.info_sources["reports_refused"] = lambda: domain.room.refused
            unit.info_sources["events"] = lambda: domain.inbox.taken
            await unit.serving()


@dataclass(slots=True)
class _Round:
    """What one round of events comes to."""

    changed: dict[str, Aggregate[Node]] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    readings: list[Document] = field(default_factory=list)
    messages: list[Document] = field(default_factory=list)


def _node_of(event: Event) -> str:
    """The document that an event changes; none for those about all nodes."""
    name = event.type.rpartition(".")[2]
    if carries_nothing(event) or name not in (DATA, MESSAGE):
        return ""
    if name == DATA:
        return node_device(_data.read(event).node)
    said = _message.read(event)
    return "" if said.means_restart else node_device(said.node)


def _nodes_of(events: Iterable[Event]) -> set[str]:
    """The nodes that these events may make."""
    ids = set()
    for event in events:
        name = event.type.rpartition(".")[2]
        if carries_nothing(event):
            continue
        if name == DATA:
            ids.add(node_device(_data.read(event).node))
        elif name == NETWORK:
            ids.update(node_device(one.node) for one in _network.read(event).nodes)
    return ids


class MeshDomain:
    """Owns the nodes. Enter it before the bus connects. ``clock``: seconds, monotonic."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        kept: MeshStore,
        settings: MeshSettings,
        store_settings: StoreSettings,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.bus = bus
        self.kept = kept
        self.settings = settings
        self.recent = Recent(settings.history_length, settings.history_bytes)
        self._keeper = Keeper(
            bus, store, SERVICE, kept.nodes, NODES, kept.prepare, self.keep, self._apply, _node_of
        )
        self.inbox = Inbox(
            bus,
            store,
            store_settings,
            SERVICE,
            [DATA, MESSAGE, NETWORK],
            self._keeper.apply,
            large_round=LARGE_ROUND,
            gather_s=GATHER_S,
        )
        self._announcer = Announcer(bus)
        self.room = Room(kept, self._announcer, self.recent, settings)
        self.desk = Desk(bus, kept, self.recent, self.room, settings, self.keep)
        self._publisher: Publisher[Node] = Publisher(bus, SERVICE)
        self._publisher.follow(self.kept.nodes)
        self._ticks = Ticks(bus.progress, "ticker", lambda: bus.connected)
        self._log = structlog.get_logger("domain").bind(instance=bus.client_id)
        self._clock = clock or asyncio.get_running_loop().time
        self._heard_at: dict[str, float] = {}
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
        await self.inbox.stop()
        self._watcher.cancel()
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker

    # The bus

    async def _connected(self) -> None:
        """After each CONNACK: states again, then events that the broker has not confirmed."""
        nodes = self.kept.nodes
        async with nodes.lock:
            await self.kept.prepare()
            self._listen_anew()
            self.room.count()
            for node in nodes:
                self._announcer.state(node)
                self._announcer.status(node)
            self._publisher.flush(nodes)

    async def _bury(self, letter: BusMessage) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(letter.payload, self.bus.client_id))

    # What nodes say

    async def _apply(self, events: list[Event]) -> None:
        nodes = self.kept.nodes
        async with nodes.lock:
            await self.kept.prepare()
            await self.room.make(_nodes_of(events))
            this = _Round()
            try:
                for event in events:
                    self._fold(event, this)
                self.room.shrink(this.changed.values())
                await self.kept.save_facts(this.readings, this.messages)
                await self.keep(this.changed.values())
            except BaseException:
                # The nodes have taken in what is not kept: else it would count as known next time.
                # What is kept all the same is known then, and not added here.
                nodes.doubt(this.changed)
                self.recent.clear()
                raise
            clock = self._clock()
            self._heard_at.update(dict.fromkeys(this.heard, clock))
            for one in this.readings:
                self.recent.add(one["node"], one["type"], one["at"], one["data"])

    def _fold(self, event: Event, this: _Round) -> None:
        """Fold one event into its node, in memory, unless the node knows it already: then what
        follows from it may still have to be published."""
        if carries_nothing(event):
            return  # it stands for one that was too large for the broker
        at = capture_time(event.time, now())
        time = rfc3339(at)
        name = event.type.rpartition(".")[2]
        if name == DATA:
            self._fold_data(event, _data.read(event), at, time, this)
        elif name == MESSAGE:
            self._fold_message(event, _message.read(event), at, time, this)
        else:
            for member in _network.read(event).nodes:
                node = self._node(member.node, event, this)
                if node is not None:
                    node.state.uuid = member.uuid
                    self._heard(node, event, rules.heard(node.state, time), this)

    def _fold_data(self, event: Event, data: Data, at: datetime, time: str, this: _Round) -> None:
        node = self._node(data.node, event, this)
        if node is None:
            return
        for position, value in enumerate(data.values):
            this.readings.append(reading(event.id, position, data.node, value.type, at, value.data))
        effects = rules.report(node.state, data.values, time, self.settings.max_types)
        self._heard(node, event, effects, this)

    def _fold_message(
        self, event: Event, said: Message, at: datetime, time: str, this: _Round
    ) -> None:
        this.messages.append(message(event.id, said.node, said.type, at, said.payload))
        if said.means_restart:
            for node in self.kept.nodes:
                if node.state.active and not node.knows(event):
                    this.changed[node.id] = node
                    this.heard.discard(node.id)
                    node.apply(event)
                    self._collect(node, rules.left(node.state, rules.ROOT_RESTARTED), event)
        elif self.kept.nodes.get(node_device(said.node)) is not None:
            known = self._node(said.node, event, this)
            if known is not None:
                self._heard(known, event, rules.message(known.state, time), this)

    def _node(self, address: int, event: Event, this: _Round) -> Aggregate[Node] | None:
        """The node, new if it must be; None if it knows the event already, if there is no room for
        it, or if its document cannot be read: then this is one of an event about many nodes."""
        nodes = self.kept.nodes
        id = node_device(address)
        if id in nodes.faults:
            return None
        node = nodes.get(id)
        if node is None:
            if self.room.full:
                self.room.refuse(address)
                return None
            node = Aggregate(id, Node(address))
            nodes.add(node)
        this.changed[id] = node
        this.heard.add(id)
        return None if node.knows(event) else node

    def _heard(
        self, node: Aggregate[Node], event: Event, effects: list[Publish], this: _Round
    ) -> None:
        node.apply(event)
        if effects:
            self._collect(node, effects, event)

    def _collect(self, node: Aggregate[Node], effects: list[Publish], cause: Event) -> None:
        """Events to publish once the node is saved; what follows again has the same id."""
        for effect in effects:
            self._publish(node, effect, f"{cause.id}/{effect.name}/{node.id}", cause.time)

    def _publish(self, node: Aggregate[Node], effect: Publish, id: str, time: str) -> None:
        event = new_event(
            id=id,
            source=self.bus.client_id,
            type=event_type(SERVICE, effect.name),
            subject=node.id,
            time=time,
            data=effect.data,
        )
        node.publish(id, Outgoing(node.id, effect.name, event))

    # Keeping and publishing

    async def keep(self, changed: Iterable[Aggregate[Node]]) -> None:
        """Save nodes, then publish what follows. Hold the nodes' lock. Raises Unavailable; then
        nothing was published, and the nodes are read again."""
        some = list(changed)
        await self.kept.nodes.save(some)
        self._announcer.changed(some)
        self._publisher.flush(some)
        if not self.settings.state_interval_s:
            self._announcer.publish(self.kept.nodes)

    # Time

    async def _tick_for_ever(self) -> None:
        period_s = min(
            TICK_S, self.settings.state_interval_s or TICK_S, self.settings.active_timeout_s / 4
        )
        states_at = 0.0
        while True:
            await asyncio.sleep(period_s)
            try:
                await self.tick()
                if (clock := asyncio.get_running_loop().time()) >= states_at:
                    states_at = clock + self.settings.state_interval_s
                    await self._publish_states()
                self._ticks.good()
            except Unavailable as error:
                self._ticks.failed(error)
                self._log.warning("periodic tick skipped: store unavailable", why=str(error))
            except Exception as error:  # the outermost loop of this task
                self._ticks.failed(error)
                self._log.error("tick failed", exc_info=error)

    async def _publish_states(self) -> None:
        """Publish what has changed and is saved. Raises Unavailable."""
        if not self._announcer.waiting:
            return
        async with self.kept.nodes.lock:
            await self.kept.prepare()
            self._announcer.publish(self.kept.nodes)

    def _listen_anew(self) -> None:
        """Nobody could be heard until now: silence begins here."""
        clock = self._clock()
        self._heard_at = {node.id: clock for node in self.kept.nodes if node.state.active}

    async def tick(self) -> None:
        """Notice silence, and forget what the broker has confirmed. Raises Unavailable."""
        nodes = self.kept.nodes
        if not self.bus.connected:
            self._listen_anew()
            return
        # What has not been taken in yet may be a word of anybody.
        since = self._clock() - self.inbox.waited_s - self.settings.active_timeout_s
        silent = [id for id, at in self._heard_at.items() if at < since]
        if not silent and not self.room.due and not any(node.pruned for node in nodes):
            return
        async with nodes.lock:
            await self.kept.prepare()
            await self.room.tick()
            changed = []
            for id in silent:
                if self._heard_at.get(id, since) >= since:
                    continue  # it was heard while we waited for the lock
                node = nodes.get(id)
                effects = rules.left(node.state, rules.SILENT) if node is not None else []
                if node is not None and effects:
                    node.changed = True
                    for effect in effects:
                        self._publish(node, effect, new_id(), rfc3339(now()))
                    changed.append(node)
            changed += [node for node in nodes if node.pruned and not node.changed]
            await self.keep(changed)
            for id in silent:
                if self._heard_at.get(id, since) < since:
                    del self._heard_at[id]
