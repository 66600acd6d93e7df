"""Takes the durable events of a service's edges, each once and in order.

One round: all that has arrived is judged against the watermarks, what is next of its source is
handed to ``apply`` as one list, which persists it; then the watermarks are saved, then the MQTT
messages are acknowledged, then the edges are told. A domain that dies anywhere in between meets the
same events again and finds them applied.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.errors import Unavailable
from patchbay.forms import decode_events, in_json
from patchbay.inbox.watermarks import Verdict, Watermarks
from patchbay.messages import (
    MAX_LEVEL,
    Event,
    Faulty,
    decode,
    encode,
    event_type,
    new_id,
    now,
    rfc3339,
)
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.topics import BATCH, device_id

Apply = Callable[[list[Event]], Awaitable[None]]
"""Persists events, in order. Raises Unavailable while it cannot; it is then called again, with the
same events. Any other exception makes it be called event by event, to find the one at fault."""

STOP_TIMEOUT_S = 2.0
"""A unit that stops has 3.5 seconds for all it does; a round that takes longer comes again."""

LARGE_ROUND = 200
GATHER_S = 0.02
"""After a large round, so long for the edges' windows to fill again: what costs is a write of an
aggregate, and a round of twice the size has no more of them. Nobody waits for a backlog's end."""

ROUND_EVENTS = 1000
"""Events to one round, an edge's window: the larger a round, the fewer writes of each aggregate."""

_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Info(msgspec.Struct):
    """What counts here of a unit's info."""

    epoch: Annotated[str, msgspec.Meta(max_length=MAX_LEVEL)] = ""


_info = msgspec.json.Decoder(_Info)


class Inbox:
    """Subscribes to the durable events ``names`` of ``service`` and to its batches.

    ``device``: of this one only, for a service whose domain has events of the same names. What a
    batch has of other devices is somebody else's: it is neither taken nor answered.

    After a round of more than ``large_round`` events it waits for more, for at most ``gather_s``
    seconds.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        settings: StoreSettings,
        service: str,
        names: Sequence[str],
        apply: Apply,
        *,
        device: str = "+",
        large_round: int = LARGE_ROUND,
        gather_s: float = GATHER_S,
    ) -> None:
        self._bus = bus
        self._large_round = large_round
        self._gather_s = gather_s
        self._settings = settings
        self._service = service
        self._apply = apply
        self._device = device
        self._log = structlog.get_logger("inbox").bind(service=service)
        self._watermarks = Watermarks(store)
        self._loaded = False
        self._arrived: deque[Message] = deque()
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._store_is_away = False
        self.taken = 0
        topics = bus.topics
        for name in names:
            bus.listen(self._pattern(topics.event(service, device, name)), self._deliver)
        bus.listen(self._pattern(topics.batch(service, "+")), self._deliver)
        bus.listen(topics.unit_info("+"), self._unit_info)

    @property
    def waiting(self) -> int:
        """Messages that have arrived and are not persisted yet."""
        return len(self._arrived)

    @property
    def waited_s(self) -> float:
        """How long the oldest of them has waited, in seconds; 0 if there is none."""
        if not self._arrived:
            return 0.0
        return asyncio.get_running_loop().time() - self._arrived[0].received_at

    def start(self) -> None:
        self._task = self._bus.tasks.spawn(self._work(), "inbox")

    async def stop(self) -> None:
        """Stop after the round in hand; what has not been acknowledged comes again."""
        if self._task is None:
            return
        self._stopping = True
        self._something.set()
        if not self._store_is_away:
            await asyncio.wait([self._task], timeout=STOP_TIMEOUT_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _pattern(self, pattern: str) -> str:
        """The filter to subscribe to for what ``pattern`` matches."""
        return pattern

    async def _load(self) -> None:
        """Before the first round, and after one that failed. Raises Unavailable."""
        await self._watermarks.load()

    def _deliver(self, message: Message) -> None:
        self._arrived.append(message)
        self._something.set()

    def _unit_info(self, message: Message) -> None:
        """A unit says which epoch it sends; the broker lets nobody else publish that."""
        message.ack()
        with contextlib.suppress(msgspec.DecodeError):
            info = decode(_info, message.payload) if message.payload else _Info()
            self._watermarks.announce(message.topic.split("/")[-2], info.epoch)

    async def _work(self) -> None:
        pause = self._settings.backoff_initial_s
        batch: list[tuple[Message, list[Event]]] = []
        while not self._stopping:
            if not batch:
                await self._something.wait()
                batch = self._gather()
            try:
                if not self._loaded:
                    await self._load()
                    self._loaded = True
                await self._round(batch)
            except Exception as error:  # the outermost loop of this task
                self._loaded = False
                self._store_is_away = True
                if isinstance(error, Unavailable):
                    self._log.warning("nothing can be persisted", why=str(error), next_try_s=pause)
                else:
                    self._log.error("a round failed", next_try_s=pause, exc_info=error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._settings.backoff_max_s)
                continue
            self._store_is_away = False
            pause = self._settings.backoff_initial_s
            if sum(len(events) for _, events in batch) > self._large_round:
                await self._let_gather()
            batch = []

    async def _let_gather(self) -> None:
        """Wait while more comes, ``gather_s`` at most: an edge whose window is full sends nothing
        until we acknowledge."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._gather_s
        before = -1
        while len(self._arrived) != before and loop.time() < end and not self._stopping:
            before = len(self._arrived)
            await asyncio.sleep(GATHER_S)

    def _gather(self) -> list[tuple[Message, list[Event]]]:
        """What has arrived, decoded, up to a round's worth."""
        batch: list[tuple[Message, list[Event]]] = []
        events = 0
        while self._arrived and events < ROUND_EVENTS:
            message = self._arrived.popleft()
            decoded = self._decode(message)
            events += len(decoded)
            batch.append((message, decoded))
        if not self._arrived:
            self._something.clear()
        return batch

    def _decode(self, message: Message) -> list[Event]:
        """The events of a message; what is none becomes a dead letter."""
        try:
            events = decode_events(message.payload, message.content_type, message.topic)
        except msgspec.DecodeError as error:
            bare = self._bare(message)
            if bare is not None:
                return [bare]
            self._bus.dead_letter(
                self._service, f"invalid event: {error}", message.payload, topic=message.topic
            )
            return []
        address = self._bus.topics.address(message.topic)
        if address is not None and address.name == BATCH:
            events = self._own(events, address.device, message)
        return events if self._device == "+" else [one for one in events if self._ours(one)]

    def _own(self, events: list[Event], instance: str, message: Message) -> list[Event]:
        """Those of a batch that are of the instance whose topic it came on: the broker lets nobody
        else publish there. Others become a dead letter."""
        own = [
            one
            for one in events
            if one.source == instance or (isinstance(one, Faulty) and not one.sequence)
        ]
        if len(own) < len(events):
            why = f"invalid batch: it has events of others than {instance}"
            self._bus.dead_letter(self._service, why, message.payload, topic=message.topic)
        return own

    def _ours(self, event: Event) -> bool:
        return device_id(event.subject) == self._device

    def _bare(self, message: Message) -> Event | None:
        """An object without an envelope, as a person publishes it; it gets an id on arrival."""
        address = self._bus.topics.address(message.topic)
        try:
            body = decode(_anything, message.payload)
        except msgspec.DecodeError:
            return None
        if address is None or not isinstance(body, dict) or "specversion" in body:
            return None
        return Event(
            id=new_id(),
            source="",
            type=event_type(self._service, address.name),
            subject=address.device,
            time=rfc3339(now()),
            data=msgspec.Raw(message.payload),
        )

    async def _round(self, batch: list[tuple[Message, list[Event]]]) -> None:
        take: list[Event] = []
        told: dict[tuple[str, str], Verdict] = {}
        for _, events in batch:
            for event in events:
                if not event.sequence:
                    take.append(event)
                    continue
                verdict = self._watermarks.judge(event)
                if verdict is Verdict.TAKE:
                    take.append(event)
                told[event.source, event.epoch] = verdict
        if take:
            await self._persist(take)
            self.taken += len(take)
        await self._watermarks.save()
        for message, _ in batch:
            message.ack()
        for (source, epoch), verdict in told.items():
            over = verdict is Verdict.OVER
            nak = over or verdict is Verdict.GAP
            ack = self._watermarks.ack(source, epoch, nak=nak, over=over)
            with contextlib.suppress(Unavailable, ValueError):  # no topic can name some sources
                self._bus.post(self._bus.topics.ack(source), encode(ack))

    async def _persist(self, round_: list[Event]) -> None:
        """Persist what is valid; what is not becomes a dead letter, and counts as handled."""
        events = [event for event in round_ if not isinstance(event, Faulty)]
        await self._persist_valid(events)
        for event in round_:
            if isinstance(event, Faulty):
                self._bus.dead_letter(self._service, event.fault, event.original, topic=event.topic)

    async def _persist_valid(self, events: list[Event]) -> None:
        if not events:
            return
        try:
            await self._apply(events)
            return
        except Unavailable:
            raise
        except Exception as error:  # one of them is at fault: the others must not wait for it
            self._log.error("a round failed", error=repr(error), events=len(events), exc_info=error)
        for event in events:
            try:
                await self._apply([event])
            except Unavailable:
                raise
            except Exception as error:  # the outermost handling of this one event
                self._bus.dead_letter(
                    self._service,
                    f"{type(error).__name__}: {error}",
                    in_json(event),
                    topic=event.type,
                )
