"""Serves the commands of a service: ``patchbay/<service>/<device>/cmd/<name>``.

A command is a small JSON object. With an MQTT 5 response topic it is answered there,
``{"ok": true, ...}`` or ``{"ok": false, "error": {"code", "message"}}``; without one, a refusal
goes to ``patchbay/<service>/<device>/event/rejected``. A retained command is ignored: it would act
again at each start. A command that moves something is refused when it was queued while we were
away, unless it was carried out before: then it is redelivered, and gets its first answer. It acts
only when whoever sent it confirms it (`patchbay.bus.confirmations`), and an error in an answer is
final: the command has not acted and never will.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from patchbay.bus.answers import topic_complaint
from patchbay.bus.client import Bus
from patchbay.bus.confirmations import Confirmation, Entry, Ledger, Questions
from patchbay.bus.envelope import Envelope, arrival_id, unwrap
from patchbay.bus.message import Message
from patchbay.bus.requests import OUTCOME_UNKNOWN
from patchbay.errors import OutcomeUnknown, Rejected, TooLarge, Unavailable
from patchbay.messages import Cancel, answer, event_type, new_event, new_id, refusal
from patchbay.topics import Address, shared
from patchbay.validation import convert

MOVING_EXPIRY_S = 30.0
"""A command that moves something and could not act for so long is refused: nobody stands there any
more and expects it."""

CANCEL: Final = "cancel"
"""The command that cancels another one."""

MESSAGE_CHARS: Final = 1000
"""The longest message of an error: some repeat what was sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler learns about the request itself.

    ``device`` is the id in the topic. When ``again`` is true this may be a repeat: a handler that
    remembers what it did for ``id`` answers the same and does nothing twice. ``received_at``: when
    it came, on the loop's clock. ``envelope_id``: its id as whoever sent it knows it, empty if it
    came without an envelope.
    """

    device: str
    name: str
    id: str
    again: bool = False
    received_at: float = 0.0
    envelope_id: str = ""
    confirmation: Confirmation | None = field(default=None, repr=False, compare=False)

    async def confirm(self, within_s: float | None = None) -> None:
        """Ask whoever sent this whether it may be carried out now; wait ``within_s`` at most, or
        as long as the setting `confirm_s` says.

        Call it before the last step that cannot be undone: the command is committed when this
        returns. Raises Rejected if it must not act; then it never does. It may be called twice.
        """
        if self.confirmation is not None:
            await self.confirmation.confirm(within_s)


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the type of its body, who handles it, and whether it moves something.

    One that moves something and was queued while we were away, or has waited here for
    ``expires_s``, is never handled. ``remembered`` is asked for the answer that it has had already,
    and changes nothing; without one, it is refused. Its second argument is None where only the id
    is known.

    ``confirms``: the handler calls `Request.confirm` itself, before its last step; else a command
    that moves something is confirmed before it is handled.

    ``desired``: it changes a desired state, which may take effect late by its nature, so it is
    handled also if it was queued or has waited. Still it is confirmed by whoever can be asked:
    after an error the store holds nothing of it.

    One that is ``urgent`` waits for no other command, and a body that makes no sense counts as
    ``type()``: a stop stops, however it is said.
    """

    type: type[Any]
    handle: Callable[[Request, Any], Awaitable[dict[str, Any]]]
    moves: bool = False
    expires_s: float = MOVING_EXPIRY_S
    remembered: Callable[[Request, Any], Awaitable[dict[str, Any] | None]] | None = None
    urgent: bool = False
    confirms: bool = False
    desired: bool = False


class Commands:
    """Subscribes to a service's commands and answers each one, in order but for what is urgent.

    With a ``group`` the replicas of a domain share them: each command reaches one of them.
    ``device``: of this one only, for a service that itself commands other devices. ``elsewhere``:
    devices whose commands another unit serves. ``cancels``: ``cmd/cancel`` is one of its commands.
    """

    def __init__(
        self,
        bus: Bus,
        service: str,
        table: Mapping[str, Command],
        group: str | None = None,
        device: str = "+",
        elsewhere: Collection[str] = (),
        *,
        cancels: bool = False,
    ) -> None:
        self.failures = 0
        """Commands whose handler has raised what it must not."""
        self._bus = bus
        self._service = service
        self._table = dict(table)
        self._elsewhere = elsewhere
        self._ledger = Ledger()
        self._current: tuple[Message, Entry] | None = None
        self._questions = Questions(bus)
        for name in (name for name, command in table.items() if command.urgent):
            bus.divert(bus.topics.command(service, device, name), self._handle_at_once)
        if cancels:
            self._table[CANCEL] = Command(Cancel, self._cancel)
            bus.divert(bus.topics.command(service, device, CANCEL), self._handle)
        bus.subscribe(shared(group, bus.topics.command(service, device, "+")), self._handle)

    async def _handle(self, message: Message) -> None:
        address = self._address(message)
        if address is None:
            return
        device, name = address.device, address.name
        try:
            fields = await self._execute(message, device, name)
        except Rejected as error:
            self._bus.log.info("refused", topic=message.topic, code=error.code)
            await self._refuse(message, device, name, error)
        except OutcomeUnknown as error:
            await self._refuse(message, device, name, Rejected(OUTCOME_UNKNOWN, error.why))
        except Unavailable:
            raise
        except Exception as error:  # the outermost frame of a handler
            await self._refuse(message, device, name, self._failed(message, error))
        else:
            if message.response_topic:
                await self._reply(message, answer(fields))

    async def _handle_at_once(self, message: Message) -> None:
        """Act, and only then look who wants to hear of it."""
        address = self._address(message)
        if address is None:
            return
        command = self._table[address.name]
        try:
            envelope = unwrap(message)
            value = convert(envelope.body, command.type)
        except (Rejected, msgspec.ValidationError):
            envelope = Envelope(arrival_id(message), message.dup, None)
            value = command.type()
        request = _request(message, address.device, address.name, envelope)
        try:
            payload = answer(await command.handle(request, value))
        except Unavailable:
            raise
        except Rejected as error:
            payload = refusal(error)
        except Exception as error:  # the outermost frame of a handler
            payload = refusal(self._failed(message, error))
        if message.response_topic and self._may_answer(message.response_topic):
            await self._reply(message, payload)

    def _failed(self, message: Message, error: Exception) -> Rejected:
        """What is answered when a handler has raised what it must not."""
        self.failures += 1
        self._bus.log.error("command failed", topic=message.topic, exc_info=error)
        why = f"the service failed: {type(error).__name__}"
        entry = self._entry_of(message)
        if entry is not None and entry.acted:
            return Rejected(OUTCOME_UNKNOWN, why)
        return Rejected("internal_error", why)

    def _address(self, message: Message) -> Address | None:
        """Whom a command is for; None if it is not for us."""
        address = self._bus.topics.address(message.topic)
        if address is None or message.retain or address.device in self._elsewhere:
            return None
        return address

    def _may_answer(self, topic: str) -> bool:
        """Below ``reply`` only: else whoever may send a request could publish through us where it
        may not publish itself, also to other systems (``homeassistant/...``)."""
        return self._bus.topics.is_reply(topic) and not topic_complaint(topic)

    async def _execute(self, message: Message, device: str, name: str) -> dict[str, Any]:
        if message.response_topic and not self._may_answer(message.response_topic):
            below = self._bus.topics.reply("<client>")
            raise Rejected("bad_request", f"the response topic must be {below} or below it")
        command = self._table.get(name)
        if command is None:
            raise Rejected("unknown_command", f"{name}: there are {', '.join(self._table)}")
        envelope = unwrap(message)
        try:
            value = convert(envelope.body, command.type)
        except msgspec.ValidationError as error:
            raise Rejected("bad_request", f"{name}: {error}") from error
        request = _request(message, device, name, envelope)
        if not (command.moves or command.desired):
            return await command.handle(request, value)
        waited = time.monotonic() - message.received_at
        if command.desired or not (message.late or waited > command.expires_s):
            return await self._carry_out(message, request, envelope, command, value)
        before = await command.remembered(request, value) if command.remembered else None
        if before is not None:
            return before
        entry = self._entry_of(message)
        if entry is not None and entry.confirmation.committed:
            raise OutcomeUnknown(request.envelope_id, f"{name} could not be completed in time")
        raise Rejected("too_late", f"{name} waited while nobody could act: send it again")

    async def _carry_out(
        self, message: Message, request: Request, envelope: Envelope, command: Command, value: Any
    ) -> dict[str, Any]:
        """Have a command that moves something carried out, if it may be."""
        entry = self._entry_of(message) or self._enter(message, request, envelope, command)
        confirmation = entry.confirmation
        request = replace(request, confirmation=confirmation)
        try:
            if not command.confirms:
                await request.confirm()
            fields = await command.handle(request, value)
        except Rejected:
            confirmation.refuse()
            raise
        except Unavailable:
            raise  # it is handled once more
        except Exception:
            entry.acted = entry.acted or confirmation.committed
            confirmation.cancel()  # if it was not committed: it never is
            raise
        entry.acted = True
        return fields

    def _enter(
        self, message: Message, request: Request, envelope: Envelope, command: Command
    ) -> Entry:
        confirmation = Confirmation(
            self._questions,
            message,
            can_be_asked=envelope.confirm,
            expires_s=math.inf if command.desired else command.expires_s,
            within_s=self._bus.settings.confirm_s,
        )
        if envelope.id:
            entry = self._ledger.enter(request.device, envelope.id, envelope.source, confirmation)
        else:
            entry = Entry(confirmation)
        self._current = message, entry
        return entry

    def _entry_of(self, message: Message) -> Entry | None:
        """The entry of the message that is handled now; also when it is handled once more."""
        if self._current is not None and self._current[0] is message:
            return self._current[1]
        return None

    async def _cancel(self, request: Request, body: Cancel) -> dict[str, Any]:
        cancelled = self._ledger.cancel(request.device, body.id, body.source)
        if cancelled is None and await self._acted_before(request, body):
            cancelled = False
        outcome = "too_late" if cancelled is False else "cancelled"
        return {"outcome": outcome, "seen": cancelled is not None}

    async def _acted_before(self, request: Request, body: Cancel) -> bool:
        """Has an earlier run of this service carried this request out?"""
        for name, command in self._table.items():
            if command.remembered is None:
                continue
            topic = self._bus.topics.command(self._service, request.device, name)
            asked = Request(request.device, name, f"{body.source} {topic} {body.id}", again=True)
            try:
                if await command.remembered(asked, None) is not None:
                    return True
            except Rejected as error:
                if error.code == "unavailable":
                    raise
        return False

    async def _refuse(self, message: Message, device: str, name: str, error: Rejected) -> None:
        error = Rejected(error.code, _shown(error.message))
        if message.response_topic and self._may_answer(message.response_topic):
            await self._reply(message, refusal(error))
            return
        self._bus.post(
            self._bus.topics.event(self._service, device, "rejected"),
            new_event(
                id=new_id(),
                source=self._bus.client_id,
                type=event_type(self._service, "rejected"),
                subject=device,
                data={"command": name, "code": error.code, "message": error.message},
            ),
        )

    async def _reply(self, message: Message, payload: bytes) -> None:
        """Answer a request. Who asked may be gone, or have named a topic that is none."""
        try:
            await self._bus.answers.publish(message.response_topic, payload, message.correlation)
        except Rejected as error:
            self._bus.dead_letter(
                self._service, error.message, message.payload, topic=message.topic
            )
        except TooLarge:
            refused = Rejected(
                "too_large", "the answer is larger than the broker takes: ask for less"
            )
            await self._reply(message, refusal(refused))
        except (Unavailable, ValueError) as error:
            self._bus.log.info("answer not sent", topic=message.response_topic, why=str(error))


def _request(message: Message, device: str, name: str, envelope: Envelope) -> Request:
    return Request(
        device,
        name,
        envelope.identity,
        envelope.again,
        message.received_at,
        envelope.id,
    )


def _shown(text: str) -> str:
    """The message of an error, such that it can be sent whatever it quotes."""
    return text[:MESSAGE_CHARS].encode("utf-8", "replace").decode()
