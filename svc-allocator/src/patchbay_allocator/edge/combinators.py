"""The combinators' edge: what each is to mix comes from the bus, what it answers goes there.

Each combinator has at most one job in hand. What it has is noted in the outbox's file before a byte
of it is sent, so after a restart we say what we had, and send nothing twice. An answer and the end
of having it in hand are one commit. Commands come as often as it takes; their ``rev`` tells an old
one, their ``command`` a repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.messages import decode, encode, new_id
from patchbay.outbox import Outbox, OutboxFull
from patchbay.runtime import Unit
from patchbay_allocator.edge.link import Link
from patchbay_allocator.messages import (
    DROP,
    FINISHED,
    MIX,
    SERVICE,
    CombinatorState,
    Drop,
    Finished,
    Mix,
    combinator_device,
    combinator_number,
)
from patchbay_allocator.settings import AllocatorSettings, combinators
from patchbay_allocator.wire.combinator import Answer
from patchbay_allocator.wire.combinator import Mix as Wanted

FULL_POLL_S = 0.2
"""How often an answer that the outbox had no room for is tried again."""

REMEMBERED = 16
"""Commands that are over and must not act again: more than replicas have under way of one."""

ONLINE, OFFLINE = b"online", b"offline"

Order = TypeVar("Order", Mix, Drop)


async def run(unit: Unit) -> None:
    """The unit ``allocator.combinators``."""
    settings = unit.settings(AllocatorSettings)
    async with Outbox(
        unit.bus,
        SERVICE,
        unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
        synchronous=settings.outbox_synchronous,
        max_rows=settings.outbox_max_rows,
        max_bytes=settings.outbox_max_bytes,
        in_order=False,
    ) as outbox:
        edge = CombinatorsEdge(unit.bus, outbox)
        for number, (host, port) in combinators(unit.config).items():
            link = edge.add(number, host, port, settings.retry_initial_s, settings.retry_max_s)
            unit.spawn(link.run(), f"combinator {number}")
        unit.info_sources["backlog"] = lambda: outbox.waiting
        unit.info_sources["connections"] = lambda: edge.connections
        unit.info_sources["wrong_device"] = lambda: edge.wrong_device
        unit.info_sources["bad_input"] = lambda: edge.bad_input
        try:
            await unit.serving()
        finally:
            edge.stop()


class CombinatorsEdge:
    """All combinators of this edge."""

    def __init__(self, bus: Bus, outbox: Outbox) -> None:
        self.bus = bus
        self.outbox = outbox
        self.wrong_device = 0
        """Answers that name another combinator than the one that gave them."""
        self.bad_input = 0
        self._hands: dict[int, Hand] = {}
        self._mix = msgspec.json.Decoder(Mix)
        self._drop = msgspec.json.Decoder(Drop)
        topics = bus.topics
        bus.listen(topics.command(SERVICE, "+", MIX), self._told_to_mix)
        bus.listen(topics.command(SERVICE, "+", DROP), self._told_to_drop)
        bus.listen(topics.status(SERVICE, "+"), self._status)

    def add(
        self, number: int, host: str, port: int, retry_initial_s: float, retry_max_s: float
    ) -> Link:
        """A combinator; whoever calls runs its link."""
        hand = Hand(self, number)
        hand.link = Link(hand, host, port, retry_initial_s=retry_initial_s, retry_max_s=retry_max_s)
        self._hands[number] = hand
        hand.tell()
        return hand.link

    @property
    def connections(self) -> int:
        """Combinators that are connected."""
        return sum(hand.has_connection for hand in self._hands.values())

    def stop(self) -> None:
        """We go: from now on nobody is connected to them."""
        for hand in self._hands.values():
            hand.leave()

    def _told_to_mix(self, message: Message) -> None:
        self._command(message, self._mix, lambda hand, command: hand.mix(command))

    def _told_to_drop(self, message: Message) -> None:
        self._command(message, self._drop, lambda hand, command: hand.drop(command))

    def _command(
        self,
        message: Message,
        decoder: msgspec.json.Decoder[Order],
        act: Callable[[Hand, Order], None],
    ) -> None:
        message.ack()
        hand = self._hand(message)
        if hand is None or message.retain:
            return
        try:
            command = decode(decoder, message.payload)
        except msgspec.DecodeError as error:
            self.bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)
            return
        act(hand, command)

    def _status(self, message: Message) -> None:
        """The domain says ``offline`` for us when we are gone; it may say so too late."""
        message.ack()
        hand = self._hand(message)
        if hand is None:
            self._forget(message)
        elif (message.payload == ONLINE) != hand.online:
            hand.tell()

    def _forget(self, message: Message) -> None:
        """An operator has one forgotten that is no longer in the settings."""
        address = self.bus.topics.address(message.topic)
        number = combinator_number(address.device) if address else None
        if number is not None and not message.payload:
            self.outbox.note(f"combinator/{number}", None)

    def _hand(self, message: Message) -> Hand | None:
        address = self.bus.topics.address(message.topic)
        number = combinator_number(address.device) if address else None
        return None if number is None else self._hands.get(number)


class _Note(msgspec.Struct):
    """What is remembered of a combinator in the outbox's file: ``combinator/<n>``."""

    rev: int = 0
    command: str = ""
    job: str = ""
    code: str = ""
    lost_at: str | None = None
    finished: list[str] = []
    answered: str = ""
    """The address where it has answered: what is there is a combinator."""


def _read_note(note: bytes) -> _Note:
    return msgspec.json.decode(note, type=_Note)


class Hand:
    """What one combinator has in hand, and how it comes and goes."""

    link: Link

    def __init__(self, edge: CombinatorsEdge, number: int) -> None:
        self.number = number
        self.has_connection = False
        self._edge = edge
        self._device = combinator_device(number)
        self._log = structlog.get_logger("combinators").bind(combinator=number)
        self._sendable = False
        """It is in hand and was sent on no connection."""
        self._leaving = False
        self._note = _Note()
        noted = edge.outbox.read_notes(f"combinator/{number}", _read_note).get("")
        if noted is not None:
            self._note = noted
        if self._note.command and self._note.lost_at is None:
            # We had it when we died, and so the connection.
            self._note.lost_at = self._edge.outbox.now()

    @property
    def online(self) -> bool:
        """It is connected, and has answered there: what has not may be anything."""
        return self.has_connection and self._note.answered == self.link.address

    # From the domain

    def mix(self, command: Mix) -> None:
        """Have this in hand, in the place of what is there."""
        note = self._note
        over = command.command in note.finished
        if command.rev < note.rev or command.command == note.command or over:
            self.tell()  # who asks again may not have heard of it
            return
        self._put_away()
        note.rev, note.command, note.job = command.rev, command.command, command.job
        note.code, note.lost_at = command.ColorCode, None
        self._save(lambda ok: self._noted(command.command, ok))

    def drop(self, command: Drop) -> None:
        """Have this in hand no more."""
        note = self._note
        if command.rev < note.rev:
            return
        note.rev = command.rev
        if command.command == note.command:
            self._put_away()
        self._save(lambda _ok: self.tell())

    def _put_away(self) -> None:
        """Nobody waits for what is in hand. If the combinator still works on it, only a new
        connection is free of it."""
        note = self._note
        if note.command:
            self._over()
            if self.link.outstanding is not None:
                note.answered = ""  # it has not, in all that time
                self.link.close()

    def _over(self) -> None:
        note = self._note
        note.finished = [*note.finished, note.command][-REMEMBERED:]
        note.command = note.job = note.code = ""
        note.lost_at = None
        self._sendable = False

    def _noted(self, command: str, ok: bool) -> None:
        """It is on disk that we have it: now it may go out."""
        note = self._note
        if note.command != command:
            return
        if not ok:  # we never had it; the domain sends it again
            note.command = note.job = note.code = ""
            return
        self._sendable = True
        self._send()
        if self._sendable:
            note.lost_at = self._edge.outbox.now()
            self._save()
        self.tell()

    def _send(self) -> None:
        if self._sendable and self.link.online and self.link.outstanding is None:
            self._sendable = False
            self.link.send(Wanted(self._note.job, self._note.code))

    # From the combinator

    def connected(self) -> None:
        if self._leaving:
            return
        self.has_connection = True
        if self._sendable:
            self._note.lost_at = None
            self._send()
        self._save()
        self.tell()

    def disconnected(self) -> None:
        if self._leaving:
            return
        self.has_connection = False
        if self._note.command and self._note.lost_at is None:
            self._note.lost_at = self._edge.outbox.now()
        self._save()
        self.tell()

    def answered(self, answer: Answer) -> None:
        if self._leaving:  # its connection is gone, and this with it
            return
        if answer.device is not None and answer.device != self.number:
            self._edge.wrong_device += 1
        self._note.answered = self.link.address
        self._record(answer)

    def refused(self, reason: str, original: bytes) -> None:
        self._edge.bad_input += 1
        self._edge.bus.dead_letter(SERVICE, reason, original, peer=self.link.address)

    def _record(self, answer: Answer) -> None:
        """An answer becomes an event; while there is no room for it, it is tried again."""
        note, before = self._note, msgspec.structs.replace(self._note)
        command = note.command if note.job == answer.id else ""
        try:
            self._edge.outbox.add(
                self._device,
                FINISHED,
                key=f"{command or new_id()}/answer",
                subject=self._device,
                time=self._edge.outbox.now(),
                data=Finished(
                    combinator=self.number,
                    job=answer.id,
                    command=command,
                    status=answer.status,
                    device=answer.device,
                ),
            )
        except OutboxFull as error:
            self._log.error("answer not taken", why=str(error))
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._record, answer)
            return
        if command:
            self._over()

        def committed(ok: bool) -> None:
            if ok:
                self.tell()
                return
            if command and not note.command:
                self._note = before
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._record, answer)

        self._save(committed)

    # What is remembered and told

    def _save(self, done: Callable[[bool], None] | None = None) -> None:
        self._edge.outbox.note(f"combinator/{self.number}", encode(self._note))
        if done is not None:
            self._edge.outbox.after_commit(done)

    def tell(self) -> None:
        """Publish the state and the status."""
        if self._leaving:
            return
        topics, note = self._edge.bus.topics, self._note
        state = CombinatorState(
            combinator=self.number,
            edge=self._edge.bus.client_id,
            address=self.link.address,
            online=self.online,
            connected=self.has_connection,
            command=note.command,
            job=note.job,
            lost_at=note.lost_at,
            rev=note.rev,
            finished=note.finished,
        )
        self._edge.bus.keep(topics.state(SERVICE, self._device), encode(state))
        self._edge.bus.keep(
            topics.status(SERVICE, self._device), ONLINE if self.online else OFFLINE
        )

    def leave(self) -> None:
        """We end: the connection goes with us."""
        self.has_connection = False
        if self._note.command and self._note.lost_at is None:
            self._note.lost_at = self._edge.outbox.now()
            self._save()
        self.tell()
        self._leaving = True
        self.link.close()
