"""A domain that folds each event into the state of its device, once, and publishes the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Annotated, Any, Final, Generic, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from patchbay.bus import Bus, Commands, Message, Request
from patchbay.bus.commands import Command
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import Rejected, Unavailable
from patchbay.inbox import Aggregate, Aggregates, Inbox, Keeper
from patchbay.messages import Event, capture_time, encode, now
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.topics import device_id
from patchbay.unit import Unit

E = TypeVar("E", bound=Struct)
S = TypeVar("S", bound=Struct)

DEAD: Final = "dead"
ALL: Final = "all"
"""The device of commands that are for no device in particular."""

PAGE: Final = 200
"""Devices in one answer of `list`: its payload stays below the broker's maximum packet size."""

_BSON_TYPES: Final = (bytes, datetime)


class List(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/list`` of the device `all`: devices by id."""

    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 100
    skip: Annotated[int, Meta(ge=0, le=2**53)] = 0


@dataclass(frozen=True)
class Table(Generic[E, S]):
    """What a service stores of its devices.

    ``event`` is the name of the event and ``data`` the type of its data. ``fold`` makes the new
    state of a device from the one before (None: it is new) and the data; what it raises sets the
    event aside. ``show`` makes what is published as the device's retained state.
    """

    service: str
    event: str
    data: type[E]
    state: type[S]
    fold: Callable[[S | None, E], S]
    states: str
    """The collection of one document a device."""
    facts: str = ""
    """The collection of one document an event: its data, ``device`` and ``at``. Empty: none."""
    facts_ttl_s: int = 0
    """Facts are deleted after so long. 0: never."""
    show: Callable[[S], Struct] = lambda state: state


class Ledger(Generic[E, S]):
    """Owns the states. Enter it before the bus connects."""

    def __init__(self, bus: Bus, store: Store, settings: StoreSettings, table: Table[E, S]) -> None:
        self.bus = bus
        self.states: Aggregates[S] = Aggregates(store, table.states, table.state)
        self._store = store
        self._settings = settings
        self._table = table
        self._decoder = msgspec.json.Decoder(table.data)
        self._prepared = False
        self._keeper = Keeper(
            bus,
            store,
            table.service,
            self.states,
            table.states,
            self._prepare,
            self._save,
            self._apply,
            lambda event: device_id(event.subject),
        )
        self.inbox = Inbox(bus, store, settings, table.service, [table.event], self._keeper.apply)
        bus.on_connect(self._connected)
        bus.subscribe(bus.topics.dead(table.service), self._bury)
        Commands(bus, table.service, {"list": Command(List, self._list)}, device=ALL)

    async def __aenter__(self) -> Self:
        self.inbox.start()
        self._watch = self.bus.tasks.spawn(self._keeper.watch(), "unreadable documents")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.cancel()
        await self.inbox.stop()

    async def _connected(self) -> None:
        async with self.states.lock:
            await self._prepare()
            for one in self.states:
                self._publish(one)

    async def _prepare(self) -> None:
        """Make indexes and load the states. Hold their lock. Raises Unavailable."""
        if not self._prepared:
            table, ttl_s = self._table, self._settings.events_ttl_s
            await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=ttl_s)
            if table.facts and table.facts_ttl_s:
                await self._store.ensure_index(
                    table.facts, [("at", 1)], expireAfterSeconds=table.facts_ttl_s
                )
            self._prepared = True
        await self.states.load()

    async def _bury(self, message: Message) -> None:
        await self._store.bury(DEAD, read_letter(message.payload, self.bus.client_id))

    async def _apply(self, events: list[Event]) -> None:
        """Persist events, each once. Raises Unavailable; it is then called again."""
        async with self.states.lock:
            await self._prepare()
            changed: dict[str, Aggregate[S]] = {}
            facts: list[Document] = []
            try:
                for event in events:
                    self._fold(event, changed, facts)
                if self._table.facts:
                    await self._store.insert_new(self._table.facts, facts)
                await self._save(changed.values())
            except BaseException:
                # They have taken in what is not stored: else it would count as known next time.
                self.states.doubt(changed)
                raise

    def _fold(self, event: Event, changed: dict[str, Aggregate[S]], facts: list[Document]) -> None:
        data = self._decoder.decode(event.data)
        facts.append(
            {
                "_id": event.id,
                "device": event.subject,
                "at": capture_time(event.time, now()),
                **msgspec.to_builtins(data, builtin_types=_BSON_TYPES),
            }
        )
        id = device_id(event.subject)
        one = self.states.get(id)
        if one is None:
            one = Aggregate(id, self._table.fold(None, data))
            self.states.add(one)
        elif one.knows(event):
            return
        else:
            one.state = self._table.fold(one.state, data)
        one.apply(event)
        changed[id] = one

    async def _save(self, changed: Iterable[Aggregate[S]]) -> None:
        """Save states, then publish them. Hold their lock. Raises Unavailable."""
        some = list(changed)
        await self.states.save(some)
        for one in some:
            self._publish(one)

    def _publish(self, one: Aggregate[S]) -> None:
        topic = self.bus.topics.state(self._table.service, one.id)
        try:
            self.bus.post(topic, encode(self._table.show(one.state)), retain=True)
        except Unavailable:
            return  # the next connect publishes it

    async def _list(self, _request: Request, body: List) -> dict[str, Any]:
        try:
            async with self.states.lock:
                await self._prepare()
        except Unavailable as error:
            raise Rejected("unavailable", str(error)) from error
        found = sorted(self.states, key=lambda one: one.id)
        page = found[body.skip : body.skip + body.limit]
        return {
            "total": len(found),
            self._table.states: [
                {"device": one.id, **msgspec.to_builtins(self._table.show(one.state))}
                for one in page
            ],
        }


async def run_ledger(unit: Unit, table: Table[E, S]) -> None:
    """Run a whole domain until the unit stops."""
    async with (
        domain_store(unit) as store,
        Ledger(unit.bus, store, unit.config.store, table) as ledger,
    ):
        unit.info_sources["backlog"] = lambda: ledger.inbox.waiting
        unit.info_sources[table.states] = lambda: len(ledger.states)
        unit.info_sources["events"] = lambda: ledger.inbox.taken
        await unit.serving()
