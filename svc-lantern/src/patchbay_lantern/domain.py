"""The lantern domain service: commands in, one order of them kept and published.

A command is decided by `rules`, confirmed by whoever sent it, saved with the event that follows
from it, and only then published: first the event, by which the edges act, then the state, from
which those learn that have missed one. What could not be published follows after the next connect
or start.

Before the confirmation the store has nothing of a command: so after an error it never acts. After
it a save that looks failed may have landed, and its outcome is unknown until `settle` has looked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from patchbay.bus import Bus, Commands, Message, Request
from patchbay.bus.commands import Command
from patchbay.bus.letters import read_letter
from patchbay.domain_store import domain_store
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.inbox import Aggregate, Outgoing, Publisher, SetAside
from patchbay.messages import encode, event_type, new_event, new_id, now, rfc3339
from patchbay.runtime import Unit
from patchbay_lantern import rules
from patchbay_lantern.census import Census
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.messages import (
    ALL,
    COMMANDED,
    SERVICE,
    SET,
    Ask,
    History,
    Order,
    Outcome,
    Set,
)
from patchbay_lantern.rules import Lanterns
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.store import LanternStore

STOP_SAVE_S = 0.5
"""How long a stop may take to note what the broker has confirmed; else that is published again."""

IN_TIME: Final = 0.9
"""The share of ``answer_s`` in which a command must be kept: the answer needs the rest."""

RETRY_S: Final = 0.1
"""A save that has failed is tried again after so long, within its command's time."""

SETTLE_S: Final = 1.0
"""How often the store is asked what became of a save that looked failed, while it is away."""

Answer = dict[str, Any]
Handle = Callable[[Request, Any], Awaitable[Answer]]


async def run(unit: Unit) -> None:
    """The unit ``lantern.domain``."""
    settings = unit.settings(LanternSettings)
    async with domain_store(unit) as store:
        kept = LanternStore(store, unit.config.store.events_ttl_s)
        async with LanternDomain(unit.bus, kept, settings) as domain:
            unit.info_sources["commands"] = lambda: domain.commands
            unit.info_sources["lanterns"] = lambda: domain.census.lanterns
            unit.spawn(domain.settle_for_ever(), "settle")
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
        self._publisher.follow(self.kept.documents)
        self._unsettled = asyncio.Event()
        """A save may have landed though it looked failed."""
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
                    confirms=True,
                    expires_s=self._in_time_s,
                    remembered=self._remembered,
                ),
                "outcome": Command(Outcome, _question(self._outcome)),
                "state": Command(Ask, _question(self._state)),
                "history": Command(History, _question(self._history)),
            },
            device=ALL,
            cancels=True,
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
                await self.kept.save(await self.kept.load())

    # The bus

    async def _connected(self) -> None:
        """After each CONNACK: the state, then the events that the broker has not confirmed."""
        async with self.kept.documents.lock:
            document = await self._settled()
            self._publish_state(document)
            self._publisher.flush([document])

    async def _bury(self, message: Message) -> None:
        """Keep a dead letter, also one that somebody else made up."""
        await self.kept.bury(read_letter(message.payload, self.bus.client_id))

    # Commands

    async def _set(self, request: Request, body: Set) -> Answer:
        """Confirm, save, publish; the same request delivered again gets the same answer.

        Raises Rejected (too_late) before the confirmation, and OutcomeUnknown after it.
        """
        orders = rules.orders_of(body, self._registry)
        async with self.kept.documents.lock:
            try:
                async with asyncio.timeout_at(request.received_at + self._in_time_s):
                    answer = await self._apply(request, orders, body.by)
            except TimeoutError:
                if _committed(request):
                    why = "the store has not confirmed it in time"
                    raise OutcomeUnknown(request.envelope_id, why) from None
                raise Rejected("too_late", "it could not be kept in time: send it again") from None
            self._publish(await self.kept.load())
        return answer

    async def _remembered(self, request: Request, body: Set | None) -> Answer | None:
        """The answer that this request has had already."""
        if not request.again:
            return None
        async with self.kept.documents.lock:
            return (await self._settled()).answered(request.id)

    async def _apply(self, request: Request, orders: list[Order], by: str) -> Answer:
        """Decide, confirm and save. What was confirmed is tried again while the store is away;
        before that Unavailable is raised, and the bus gives us the request once more."""
        while True:
            try:
                return await self._confirm_and_save(request, orders, by)
            except Unavailable:
                if not _committed(request):
                    raise
            await asyncio.sleep(RETRY_S)

    async def _confirm_and_save(self, request: Request, orders: list[Order], by: str) -> Answer:
        document = await self.kept.load()
        known = request.again or _committed(request)
        before: Answer | None = document.answered(request.id) if known else None
        if before is not None:
            return before
        if not _committed(request):
            await self.kept.reach()  # what cannot be saved is refused, not unknown
        await request.confirm(
            max(0.0, request.received_at + self._in_time_s - asyncio.get_running_loop().time())
        )
        for order in orders:
            self._obey(document, order, by)
        answer: Answer = {
            "command": orders[-1].command,
            "value": orders[-1].value,
            "rev": document.state.rev,
            "lanterns": self.census.lanterns,
        }
        document.finish(request.id, encode(answer).decode())
        self._unsettled.set()
        await self.kept.save(document)
        self._unsettled.clear()
        self.commands += len(orders)
        return answer

    # What became of a save that looked failed

    async def settle_for_ever(self) -> None:
        """After a save that looked failed, find out what the store has: see `_settled`."""
        while True:
            await self._unsettled.wait()
            with contextlib.suppress(Unavailable):
                async with self.kept.documents.lock:
                    await self._settled()
            await asyncio.sleep(SETTLE_S)

    async def _settled(self) -> Aggregate[Lanterns]:
        """The document as it is stored, and no save that looked failed can still land; what one
        has left there is published. Raises Unavailable."""
        document = await self.kept.load()
        if self._unsettled.is_set():
            document.changed = True  # a new version: what was made of the old one lands no more
            await self.kept.save(document)
            self._unsettled.clear()
            self._publish(document)
        return document

    def _obey(self, document: Aggregate[Lanterns], order: Order, by: str) -> None:
        """Change the document, in memory."""
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

    def _publish(self, document: Aggregate[Lanterns]) -> None:
        """Publish what follows from a document that is kept: the events, then the state."""
        self._publisher.flush([document])
        self._publish_state(document)

    def _publish_state(self, document: Aggregate[Lanterns]) -> None:
        state = rules.state(document.state, self._registry, self.epoch)
        with contextlib.suppress(Unavailable):  # the next connect publishes it
            self.bus.post(self.bus.topics.state(SERVICE, ALL), encode(state), retain=True)

    # Questions

    async def _outcome(self, request: Request, body: Outcome) -> Answer:
        """Was this `Set` accepted?"""
        async with self.kept.documents.lock:
            document = await self._settled()
        topic = self.bus.topics.command(SERVICE, ALL, SET)
        for id in document.done:
            source, _, rest = id.partition(f" {topic} ")
            if rest == body.id and body.source in ("", source):
                return {"outcome": "accepted", **(document.answered(id) or {})}
        return {"outcome": "not_accepted"}

    async def _state(self, request: Request, body: Ask) -> Answer:
        async with self.kept.documents.lock:
            document = await self.kept.load()
        state = rules.state(document.state, self._registry, self.epoch)
        return {**msgspec.to_builtins(state), "lanterns": self.census.lanterns}

    async def _history(self, request: Request, body: History) -> Answer:
        async with self.kept.documents.lock:
            document = await self.kept.load()
        past = msgspec.to_builtins(rules.given(document.state, body.limit))
        return {"history": past, "total": len(document.state.history)}


def _committed(request: Request) -> bool:
    """Was it confirmed? From then on it may act."""
    return request.confirmation is not None and request.confirmation.committed


def _question(answer: Handle) -> Handle:
    """While the store is away whoever asks learns it at once: commands wait behind a question."""

    async def asked(request: Request, body: Any) -> Answer:
        try:
            return await answer(request, body)
        except Unavailable as error:
            raise Rejected("unavailable", str(error)) from error

    return asked
