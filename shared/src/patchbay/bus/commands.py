"""Serves the commands of a service: ``patchbay/<service>/<device>/cmd/<name>``.

A command is a small JSON object. With an MQTT 5 response topic it is answered there,
``{"ok": true, ...}`` or ``{"ok": false, "error": {"code", "message"}}``; without one, a refusal
goes to ``patchbay/<service>/<device>/event/rejected``. A retained command is ignored: it would act
again at each start. A command that moves something is refused when it was queued while we were
away, unless it was obeyed before: then it comes again, and is answered as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from patchbay.bus.answers import topic_complaint
from patchbay.bus.client import Bus
from patchbay.bus.message import Message
from patchbay.errors import Rejected, TooLarge, Unavailable
from patchbay.messages import answer, decode, event_type, new_event, new_id, refusal
from patchbay.topics import Address, matches, shared

MOVING_EXPIRY_S = 30.0
"""A command that moves something and could not act for so long is refused: nobody stands there any
more and expects it."""

_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler learns about the request itself.

    ``device`` is the id in the topic. When ``again`` is true this may be a repeat: a handler that
    remembers what it did for ``id`` answers the same and does nothing twice. ``received_at``: when
    it came, on the loop's clock.
    """

    device: str
    name: str
    id: str
    again: bool = False
    received_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the type of its body, who handles it, and whether it moves something.

    One that moves something and was queued while we were away, or has waited here for
    ``expires_s``, is never handled. ``remembered`` is asked for the answer that it has had already,
    and changes nothing; without one, it is refused.

    One that is ``urgent`` waits for no other command, and a body that makes no sense counts as
    ``type()``: a stop stops, however it is said.
    """

    type: type[Any]
    handle: Callable[[Request, Any], Awaitable[dict[str, Any]]]
    moves: bool = False
    expires_s: float = MOVING_EXPIRY_S
    remembered: Callable[[Request, Any], Awaitable[dict[str, Any] | None]] | None = None
    urgent: bool = False


class Commands:
    """Subscribes to a service's commands and answers each one, in order but for what is urgent.

    With a ``group`` the replicas of a domain share them: each command reaches one of them.
    ``device``: of this one only, for a service that itself commands other devices. ``elsewhere``:
    devices whose commands another unit serves.
    """

    def __init__(
        self,
        bus: Bus,
        service: str,
        table: Mapping[str, Command],
        group: str | None = None,
        device: str = "+",
        elsewhere: Collection[str] = (),
    ) -> None:
        self._bus = bus
        self._service = service
        self._table = table
        self._elsewhere = elsewhere
        for name in (name for name, command in table.items() if command.urgent):
            bus.divert(bus.topics.command(service, device, name), self._handle_at_once)
        bus.subscribe(shared(group, bus.topics.command(service, device, "+")), self._handle)

    async def _handle(self, message: Message) -> None:
        address = self._address(message)
        if address is None:
            return
        try:
            fields = await self._execute(message, address.device, address.name)
        except Rejected as error:
            self._bus.log.info("refused", topic=message.topic, code=error.code)
            await self._refuse(message, address.device, address.name, error)
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
            identity, again, body = _unwrap(message)
            value = msgspec.convert(body, command.type)
        except (Rejected, msgspec.ValidationError):
            identity, again, value = _arrival_id(message), message.dup, command.type()
        request = Request(address.device, address.name, identity, again, message.received_at)
        fields = await command.handle(request, value)
        if message.response_topic and self._may_answer(message.response_topic):
            await self._reply(message, answer(fields))

    def _address(self, message: Message) -> Address | None:
        """Whom a command is for; None if it is not for us."""
        address = self._bus.topics.address(message.topic)
        if address is None or message.retain or address.device in self._elsewhere:
            return None
        return address

    def _may_answer(self, topic: str) -> bool:
        """Not on another topic of ours: who may only ask could publish there by our hand."""
        topics = self._bus.topics
        if topic_complaint(topic):
            return False
        return matches(topics.reply("+"), topic) or not matches(topics.everything(), topic)

    async def _execute(self, message: Message, device: str, name: str) -> dict[str, Any]:
        if message.response_topic and not self._may_answer(message.response_topic):
            raise Rejected("bad_request", f"answers go to {self._bus.topics.reply('<client>')}")
        command = self._table.get(name)
        if command is None:
            raise Rejected("unknown_command", f"{name}: there are {', '.join(self._table)}")
        identity, again, body = _unwrap(message)
        try:
            value = msgspec.convert(body, command.type)
        except msgspec.ValidationError as error:
            raise Rejected("bad_request", f"{name}: {error}") from error
        request = Request(device, name, identity, again, message.received_at)
        waited = asyncio.get_running_loop().time() - message.received_at
        if not command.moves or not (message.late or waited > command.expires_s):
            return await command.handle(request, value)
        before = await command.remembered(request, value) if command.remembered else None
        if before is None:
            raise Rejected("too_late", f"{name} waited while nobody could act: send it again")
        return before

    async def _refuse(self, message: Message, device: str, name: str, error: Rejected) -> None:
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


def _unwrap(message: Message) -> tuple[str, bool, Any]:
    """The id of a command, whether it may be a repeat, and its body.

    A CloudEvent brings its own id. A bare object, as a person publishes it, gets one on arrival.
    """
    try:
        body = decode(_anything, message.payload or b"{}")
    except msgspec.DecodeError as error:
        raise Rejected("bad_request", f"not JSON: {error}") from error
    if isinstance(body, dict) and "specversion" in body and body.get("id"):
        # Two senders may use one id, and so may one for two commands.
        identity = f"{body.get('source', '')} {message.topic} {body['id']}"
        return identity, True, body.get("data") or {}
    return _arrival_id(message), message.dup, body


def _arrival_id(message: Message) -> str:
    """An id that is the same when the broker delivers this message again.

    A redelivery has the packet identifier of the first delivery, and the DUP flag that tells it
    from a new message with the same content (MQTT 5, 3.3.1.1).
    """
    parts = (message.topic, str(message.mid), message.response_topic)
    digest = hashlib.sha256("\n".join(parts).encode() + message.correlation + message.payload)
    return digest.hexdigest()[:32]
