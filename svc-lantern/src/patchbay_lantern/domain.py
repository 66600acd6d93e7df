"""The lantern domain service: commands in, one order of them kept and published.

A command is decided by `rules`, saved with the event that follows from it, and only then published:
first the event, by which the edges act, then the state, from which those learn that have missed
one. What could not be published follows after the next connect or start.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec

from patchbay.bus import Bus, Commands, Message, Request
from patchbay.bus.commands import Command
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import Rejected, Unavailable
from patchbay.inbox import Aggregate, Outgoing, Publisher, SetAside
from patchbay.messages import encode, event_type, new_event, new_id, now, rfc3339
from patchbay.runtime import Unit
from patchbay_lantern import rules
from patchbay_lantern.census import Census
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.messages import ALL, COMMANDED, SERVICE, Ask, History, Order, Set
from patchbay_lantern.rules import Lanterns
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.store import LanternStore

STOP_SAVE_S = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

IN_TIME: Final = 0.9
"""The share of ``answer_s`` in which a command must be kept: the answer needs the rest."""

Answer = dict[str, Any]


class Doubt(NamedTuple):
    """A change whose save has failed, and may have landed all the same."""

    before: Lanterns
    events: tuple[str, ...]
    """The ids of the events that follow from it; none is published."""


async def run(unit: Unit) -> None:
    """The unit ``lantern.domain``."""
    settings = unit.settings(LanternSettings)
    async with domain_store(unit) as store:
        kept = LanternStore(store, unit.config.store.events_ttl_s)
        async with LanternDomain(unit.bus, kept, settings) as domain:
            unit.info_sources["commands"] = lambda: domain.commands
            unit.info_sources["lanterns"] = lambda: domain.census.lanterns
            await unit.serving()


class LanternDomain:
    """Owns how the lanterns shine. Enter it before the bus connects."""

    def __init__(
        self,
        bus: Bus,
        kept: LanternStore,
        settings: LanternSettings,
        registry: Registry = COMMANDS,
    ) -> None:
        self.bus = bus
        self.kept = kept
        self.census = Census(bus)
        self.commands = 0
        """Commands applied since the start."""
        self.epoch = new_id()
        """Names the numbering of this process: a store that was put back counts from below."""
        self._settings = settings
        self._registry = registry
        self._publisher: Publisher[Lanterns] = Publisher(bus, SERVICE)
        self._doubts: dict[str, Doubt] = {}
        self._in_time_s = settings.answer_s * IN_TIME
        bus.on_connect(self._connected)
        bus.keep_letter = kept.bury
        kept.documents.report = SetAside(bus, kept.store, SERVICE).report
        bus.subscribe(bus.topics.dead(SERVICE), self._bury)
        Commands(
            bus,
            SERVICE,
            {
                "set": Command(
                    Set,
                    self._set,
                    moves=True,
                    expires_s=self._in_time_s,
                    remembered=self._remembered,
                ),
                "state": Command(Ask, self._state),
                "history": Command(History, self._history),
            },
            device=ALL,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(STOP_SAVE_S), self.kept.documents.lock:
                await self.kept.save(await self._load())

    # The bus

    async def _connected(self) -> None:
        """After each CONNACK: the state, then the events that the broker has not confirmed."""
        async with self.kept.documents.lock:
            document = await self._load()
            self._publish_state(document)
            self._publisher.flush([document])

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # Commands

    async def _set(self, request: Request, body: Set) -> Answer:
        """Obey, save, publish; the same request delivered again gets the same answer.

        What cannot be kept in time is refused, and does not act later either: see `_load`.
        """
        orders = rules.orders_of(body, self._registry)
        async with self.kept.documents.lock:
            try:
                async with asyncio.timeout_at(request.received_at + self._in_time_s):
                    answer = await self._apply(request, orders, body.by)
            except TimeoutError:
                raise Rejected("too_late", "it could not be kept in time: send it again") from None
            self._publish(await self.kept.load())
        return answer

    async def _remembered(self, request: Request, body: Set) -> Answer | None:
        """The answer that this request has had already. One that was refused is not obeyed now,
        though its save has landed: see `_load`."""
        if not request.again:
            return None
        async with self.kept.documents.lock:
            return (await self._load()).answered(request.id)

    async def _apply(self, request: Request, orders: list[Order], by: str) -> Answer:
        """Decide and save. Raises Unavailable; the bus then gives us the request once more."""
        document = await self._load(request.id)
        known = request.again or request.id in self._doubts
        answer: Answer | None = document.answered(request.id) if known else None
        if answer is not None:
            self._doubts.clear()
            return answer
        before = document.state
        events = tuple(self._obey(document, order, by) for order in orders)
        answer = {
            "command": orders[-1].command,
            "value": orders[-1].value,
            "rev": document.state.rev,
            "lanterns": self.census.lanterns,
        }
        document.finish(request.id, encode(answer).decode())
        self._doubts[request.id] = Doubt(before, events)
        await self.kept.save(document)
        self._doubts.clear()  # a save of the same version can land no more
        self.commands += len(orders)
        return answer

    async def _load(self, request: str = "") -> Aggregate[Lanterns]:
        """The document without what was refused since its save failed, but landed all the same.

        Nobody has been told of that, so it is as if it had never been: it must not act late. What
        ``request`` itself has landed stays. Raises Unavailable.
        """
        document = await self.kept.load()
        for id in [one for one in self._doubts if one != request and one in document.done]:
            doubt = self._doubts[id]
            document.state = doubt.before
            for event in doubt.events:
                document.outgoing.pop(event, None)
            del document.done[id]
            document.changed = True
            await self.kept.save(document)
            self._doubts.clear()
            break  # all were made of the same version: only one can have landed
        return document

    def _obey(self, document: Aggregate[Lanterns], order: Order, by: str) -> str:
        """Change the document, in memory. Returns the id of the event that follows."""
        moment = now()
        document.state, told = rules.obey(
            document.state,
            order,
            self._registry,
            by=by,
            at=moment,
            epoch=self.epoch,
            remember=self._settings.history,
        )
        id = f"{self.epoch}/{told.rev}"
        event = new_event(
            id=id,
            source=self.bus.client_id,
            type=event_type(SERVICE, COMMANDED),
            subject=ALL,
            time=rfc3339(moment),
            data=told,
        )
        document.publish(id, Outgoing(ALL, COMMANDED, event))
        return id

    def _publish(self, document: Aggregate[Lanterns]) -> None:
        """Publish what follows from a document that is kept: the events, then the state."""
        self._publisher.flush([document])
        self._publish_state(document)

    def _publish_state(self, document: Aggregate[Lanterns]) -> None:
        state = rules.state(document.state, self._registry, self.epoch)
        with contextlib.suppress(Unavailable):  # the next connect publishes it
            self.bus.post(self.bus.topics.state(SERVICE, ALL), encode(state), retain=True)

    # Questions

    async def _state(self, request: Request, body: Ask) -> Answer:
        async with self.kept.documents.lock:
            document = await self._load()
        state = rules.state(document.state, self._registry, self.epoch)
        return {**msgspec.to_builtins(state), "lanterns": self.census.lanterns}

    async def _history(self, request: Request, body: History) -> Answer:
        async with self.kept.documents.lock:
            document = await self._load()
        past = msgspec.to_builtins(rules.given(document.state, body.limit))
        return {"history": past, "total": len(document.state.history)}
