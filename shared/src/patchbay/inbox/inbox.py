"""Takes the durable events of a service's edges, each once and in order.

One round: all that has arrived is judged against the watermarks, what is next of its source is
handed to ``apply`` as one list, which persists it; then the watermarks are saved, then the MQTT
messages are acknowledged, then the edges are told. A domain that dies anywhere in between meets the
same events again and finds them applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Annotated, Any

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.bus.letters import reason_of
from patchbay.clock import CLOCK
from patchbay.errors import DocumentRejected, QueryRejected, Rejected, Unavailable
from patchbay.forms import decode_events, in_json
from patchbay.inbox.forgetting import serve_forget
from patchbay.inbox.set_aside import SetAside
from patchbay.inbox.watermarks import Verdict, Watermarks
from patchbay.messages import (
    MAX_LEVEL,
    Ack,
    AckRanges,
    DeadLetter,
    Event,
    Faulty,
    decode,
    encode,
    event_type,
    faulty,
    new_id,
    now,
    rfc3339,
)
from patchbay.progress import STORE
from patchbay.rate import TokenBucket
from patchbay.settings import StoreSettings
from patchbay.store import DEAD_LETTERS, Store
from patchbay.topics import BATCH, device_id

Apply = Callable[[list[Event]], Awaitable[None]]
"""Persists events, in order. Raises Unavailable while it cannot; it is then called again, with the
same events. Any other exception makes it be called with some of them, to find the one at fault; an
error that it raises without any event, too, is no event's fault."""

GENERAL_ERRORS = (QueryRejected, OSError, TimeoutError)
"""Never an event's fault, as Unavailable."""

EVENT_ERRORS = (DocumentRejected, Rejected, ValueError)
"""What an event contains is the reason; msgspec's errors are a ValueError."""

STOP_TIMEOUT_S = 2.0
"""A unit that stops has 3.5 seconds for all it does; a round that takes longer comes again."""

LARGE_ROUND = 200
GATHER_S = 0.02
"""After a large round, so long for the edges' windows to fill again: what costs is a write of an
aggregate, and a round of twice the size has no more of them. Nobody waits for a backlog's end."""

LARGE_BYTES = 140_000
"""A larger message is no batch of an edge's outbox."""

ROUND_EVENTS = 1000
"""Events to one round, an edge's window: the larger a round, the fewer writes of each aggregate."""

_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Info(msgspec.Struct):
    """What counts here of a unit's info."""

    epoch: Annotated[str, msgspec.Meta(max_length=MAX_LEVEL)] = ""


_info = msgspec.json.Decoder(_Info)


def _content(message: Message) -> tuple[str, bytes]:
    return message.topic, message.payload


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
        self._store = store
        self._watermarks = Watermarks(store)
        self._watermarks.report = SetAside(bus, store, service).report
        self._loaded = False
        self._arrived: deque[Message] = deque()
        self._contents: dict[tuple[str, bytes], Message] = {}
        self._in_hand: list[tuple[Message, list[Event]]] = []
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._store_is_away = False
        rate = bus.settings.dead_letters_per_s
        self._bucket = TokenBucket(rate, rate)
        self._progress = bus.progress.watch("inbox", lambda: self.waited_s > 0, self._cause)
        self.taken = 0
        bus.keep_letter = self._keep_letter
        topics = bus.topics
        for name in names:
            bus.listen(self._pattern(topics.event(service, device, name)), self._deliver)
        bus.listen(self._pattern(topics.batch(service, "+")), self._deliver)
        bus.listen(topics.unit_info("+"), self._unit_info)
        bus.info_sources["sources"] = lambda: len(self._watermarks)
        bus.info_sources["sources_refused"] = lambda: self._watermarks.refused
        serve_forget(bus, service, self._pattern(topics.forget(service)), self._forget)

    @property
    def waiting(self) -> int:
        """Messages that have arrived and are not persisted yet."""
        return len(self._arrived)

    @property
    def waited_s(self) -> float:
        """How long the oldest message that is not persisted has waited, in seconds; 0 if there is
        none."""
        first = [message for message, _ in self._in_hand[:1]] + [*islice(self._arrived, 1)]
        clock = asyncio.get_running_loop().time()
        return max((clock - message.received_at for message in first), default=0.0)

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

    def _cause(self) -> str:
        return STORE if self._store_is_away else ""

    def _pattern(self, pattern: str) -> str:
        """The filter to subscribe to for what ``pattern`` matches."""
        return pattern

    async def _load(self) -> None:
        """Before the first round, and after one that failed. Raises Unavailable."""
        await self._watermarks.load()

    def _deliver(self, message: Message) -> None:
        if self._arrived and self._arrived[-1].connection is not message.connection:
            # The first of a new connection: what came on the last one is sent again.
            self._arrived = deque(one for one in self._arrived if not self._comes_again(one))
            self._contents = {_content(one): one for one, _ in self._in_hand}
            self._contents |= {_content(one): one for one in self._arrived}
        content = _content(message)
        copy = self._contents.get(content)
        if copy is not None and copy.connection is message.connection and self._numbered(message):
            message.ack()  # its edge has sent it again, since it waits for so long
            return
        if len(message.payload) > LARGE_BYTES and self._rejected(self._decode(message)):
            message.ack()
            return
        self._contents[content] = message
        self._arrived.append(message)
        self._something.set()

    def _comes_again(self, message: Message) -> bool:
        """It will be sent again: by the broker, which keeps our session, or by its edge."""
        if self._bus.comes_again(message):
            return True
        return message.connection is not self._bus.connection and self._numbered(message)

    def _numbered(self, message: Message) -> bool:
        """Does its edge send all of it until we have acknowledged it?"""
        return all(event.sequence for event in self._decode(message))

    def _rejected(self, events: list[Event]) -> bool:
        """Is nothing of it numbered by an edge, and all of it invalid? Then it is refused now: a
        thousand of the largest messages must not wait in memory."""
        invalid = [one for one in events if isinstance(one, Faulty) and not one.sequence]
        if len(invalid) < len(events):
            return False
        for one in invalid:
            self._bus.dead_letter(self._service, one.fault, one.original, topic=one.topic)
        return True

    def _unit_info(self, message: Message) -> None:
        """A unit says which epoch it sends; the broker lets nobody else publish that."""
        message.ack()
        with contextlib.suppress(msgspec.DecodeError):
            info = decode(_info, message.payload) if message.payload else _Info()
            self._watermarks.announce(message.topic.split("/")[-2], info.epoch)

    async def _forget(self, unit: str) -> bool:
        """Forget a unit that is gone; was anything stored of it? Raises Unavailable, Rejected."""
        if not self._loaded:
            await self._watermarks.load()
            self._loaded = True
        return await self._watermarks.forget(unit, self._settings.events_ttl_s)

    async def _work(self) -> None:
        pause = self._settings.backoff_initial_s
        while not self._stopping:
            self._in_hand = [one for one in self._in_hand if not self._bus.comes_again(one[0])]
            if not self._in_hand:
                await self._something.wait()
                self._in_hand = self._gather()
                continue
            try:
                if not self._loaded or self._watermarks.due:
                    await self._load()
                    self._loaded = True
                await self._round(self._in_hand)
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
            self._progress.moved()
            pause = self._settings.backoff_initial_s
            done, self._in_hand = self._in_hand, []
            for message, _ in done:
                self._contents.pop(_content(message), None)
            if sum(len(events) for _, events in done) > self._large_round:
                await self._let_gather()

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
            if self._bus.comes_again(message):
                self._contents.pop(_content(message), None)
                continue
            decoded = self._decode(message)
            events += len(decoded)
            batch.append((message, decoded))
        if not self._arrived:
            self._something.clear()
        return batch

    def _decode(self, message: Message) -> list[Event]:
        """The events of a message; in the place of what is none stands a `Faulty`."""
        try:
            events = decode_events(message.payload, message.content_type, message.topic)
        except msgspec.DecodeError as error:
            bare = self._bare(message)
            if bare is not None:
                return [bare]
            return [faulty(str(error), message.payload, topic=message.topic)]
        address = self._bus.topics.address(message.topic)
        foreign: list[Event] = []
        if address is not None and address.name == BATCH:
            events, foreign = self._own(events, address.device, message)
        ours = events if self._device == "+" else [one for one in events if self._ours(one)]
        return [*ours, *foreign]

    @staticmethod
    def _own(
        events: list[Event], instance: str, message: Message
    ) -> tuple[list[Event], list[Event]]:
        """Those of a batch that are of the instance whose topic it came on, since the broker lets
        nobody else publish there; and in the place of all others a `Faulty`."""
        own = [
            one
            for one in events
            if one.source == instance or (isinstance(one, Faulty) and not one.sequence)
        ]
        if len(own) == len(events):
            return own, []
        why = f"it is in a batch of {instance} and not of it"
        return own, [faulty(why, message.payload, topic=message.topic)]

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
                if verdict is not Verdict.WAIT:
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
            self._tell(source, self._watermarks.ack(source, epoch, nak=nak, over=over))

    def _tell(self, source: str, ack: Ack | AckRanges) -> None:
        """Acknowledge to an edge, and tell it the time. One that does not hear it sends its events
        again."""
        timed = msgspec.structs.replace(ack, time=CLOCK.time())
        try:
            self._bus.post(self._bus.topics.ack(source), encode(timed))
        except Unavailable:
            return
        except Exception as error:  # nothing that a source is called must keep the others waiting
            self._log.warning("acknowledgement not sent", source=source[:64], why=repr(error)[:200])

    async def _persist(self, round_: list[Event]) -> None:
        """Persist what is valid. What is not, and what is at fault, is set aside, and counts as
        handled. Raises Unavailable."""
        await self._persist_valid([one for one in round_ if not isinstance(one, Faulty)])
        for event in round_:
            if isinstance(event, Faulty):
                await self._reject(event)

    async def _reject(self, event: Faulty) -> None:
        """What an edge has numbered is stored whole: nobody else has it. Anybody can publish what
        has no number, so of that only some are stored, and the rest are counted."""
        if event.sequence or self._bucket.take():
            await self._set_aside(event, event.fault, event.original, event.topic)
        else:
            self._bus.dead_letter(self._service, event.fault, event.original, topic=event.topic)

    async def _persist_valid(self, events: list[Event]) -> None:
        if not events:
            return
        try:
            await self._apply(events)
            return
        except Unavailable:
            raise
        except GENERAL_ERRORS as error:
            raise Unavailable(reason_of(error)) from error
        except Exception as error:  # one of them is at fault: the others must not wait for it
            failure = error
        if len(events) > 1:
            middle = len(events) // 2
            await self._persist_valid(events[:middle])
            await self._persist_valid(events[middle:])
            return
        [event] = events
        if not isinstance(failure, EVENT_ERRORS):
            await self._apply_none(failure)
        self._log.error("event set aside", id=event.id, source=event.source, exc_info=failure)
        name = event.type.rpartition(".")[2]
        topic = self._bus.topics.event(self._service, device_id(event.subject), name)
        await self._set_aside(event, reason_of(failure), in_json(event), topic)

    async def _apply_none(self, failure: Exception) -> None:
        """Raises Unavailable if it is not the event that is at fault."""
        try:
            await self._apply([])
        except Unavailable:
            raise
        except Exception as error:  # of a handler that has nothing to handle
            self._log.error("no event can be persisted", exc_info=error)
            raise Unavailable(reason_of(failure)) from error

    async def _set_aside(self, event: Event, why: str, original: bytes, topic: str) -> None:
        """Have a dead letter stored, once, however often the round is repeated. Raises
        Unavailable."""
        place = f"{event.source} {event.epoch} {event.sequence or event.id} ".encode()
        id = hashlib.sha256(place + original).hexdigest()[:32]
        await self._bus.set_aside(self._service, why, original, topic=topic, id=id)

    async def _keep_letter(self, letter: DeadLetter, original: bytes, content_type: str) -> None:
        await self._store.bury(DEAD_LETTERS, letter, original, content_type)
