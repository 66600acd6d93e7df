"""Request and reply, the requesting side: MQTT 5's response topic and correlation data.

A request that *actuates* moves something. It stays open until it is committed or has ended, and it
is settled once. Before the last step that cannot be undone its service asks here whether it is
still wanted (a question on our reply topic); only an open request is confirmed, and that commits
it.

    open, and the time is over      an error: it has not acted, and it never will
    open, and a question comes      committed: confirmed to the service
    committed, the time is over     `OutcomeUnknown`
    anything else, and a question   not confirmed

The clock decides and not which callback runs first: a process that was stopped wakes with its
timers due and its sockets full.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from patchbay.bus.connection import FAILURE
from patchbay.bus.message import Message
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.messages import (
    Confirm,
    Event,
    Failure,
    Question,
    decode,
    encode,
    event_type,
    new_id,
    now,
    rfc3339,
)
from patchbay.topics import matches

if TYPE_CHECKING:
    from patchbay.bus.client import Bus

NO_SUBSCRIBER = 0x10
"""PUBACK reason code: nobody has subscribed, the message is gone."""

OUTCOME_UNKNOWN: Final = "outcome_unknown"
"""The one code in an answer that does not say that the request has not acted."""


class _Answer(Struct):
    ok: bool = True
    error: Failure | None = None


_question = msgspec.json.Decoder(Question)
_answer = msgspec.json.Decoder(_Answer)


class _Open:
    """A request that waits for its answer. ``deadline`` is monotonic time."""

    def __init__(self, deadline: float, *, actuates: bool) -> None:
        self.deadline = deadline
        self.actuates = actuates
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.committed = ""
        """The nonce of the question that was confirmed."""

    def may_commit(self, nonce: str) -> bool:
        if self.committed:
            return nonce == self.committed  # the broker has delivered the question twice
        in_time = time.monotonic() < self.deadline and not self.answer.done()
        return self.actuates and in_time


class Requests:
    """The requests of one client; all their answers come on its own reply topic."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._topic = bus.topics.reply(bus.client_id)
        self._waiting: dict[bytes, _Open] = {}
        self._subscription = bus.listen(self._topic, self._on_reply)

    async def request(
        self,
        topic: str,
        payload: bytes,
        timeout_s: float,
        expiry_s: int | None,
        *,
        actuates: bool = False,
        id: str = "",
    ) -> bytes:
        """Send a request and return the answer's payload.

        ``expiry_s``: the broker throws it away after so long. ``actuates``: ``payload`` (JSON) is
        sent as a CloudEvent with ``id``, a fresh one if that is empty, and the service asks before
        it acts.

        Raises Unavailable at once if nobody has subscribed to the topic, Rejected if we may not
        publish there, TimeoutError after ``timeout_s`` seconds. A request that actuates has not
        acted then and never will. Else it raises OutcomeUnknown: it was confirmed, and no answer
        says what became of it.
        """
        id = id or new_id()
        opened = _Open(time.monotonic() + timeout_s, actuates=actuates)
        correlation = new_id().encode()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(
                    topic,
                    self._envelope(topic, payload, id) if actuates else payload,
                    correlation,
                    expiry_s,
                    opened,
                )
                # Shielded: an answer that comes together with the timeout still counts.
                answer = await asyncio.shield(opened.answer)
        except (TimeoutError, Unavailable) as error:
            if not opened.answer.done():
                if opened.committed:
                    raise OutcomeUnknown(id) from error
                raise
            answer = opened.answer.result()
        finally:
            self._waiting.pop(correlation, None)
        if actuates:
            _raise_unknown(answer, id)
        return answer

    def _envelope(self, topic: str, payload: bytes, id: str) -> bytes:
        address = self._bus.topics.address(topic)
        kind = event_type(address.service, address.name) if address is not None else topic
        return encode(
            Event(
                id=id,
                source=self._bus.client_id,
                type=kind,
                time=rfc3339(now()),
                confirm=True,
                data=Raw(payload or b"{}"),
            )
        )

    async def _send(
        self,
        topic: str,
        payload: bytes,
        correlation: bytes,
        expiry_s: int | None,
        opened: _Open,
    ) -> None:
        await self._bus.wait_connected()
        if self._subscription.adding is not None:
            # Shielded: who is cancelled or has no more time must not take it from the others.
            await asyncio.shield(self._subscription.adding)
        self._waiting[correlation] = opened
        code = await self._bus.publish(
            topic,
            payload,
            expiry_s=expiry_s,
            response_topic=self._topic,
            correlation=correlation,
        )
        if code >= FAILURE:
            raise Rejected("not_allowed", f"the broker does not let us publish {topic}")
        if code == NO_SUBSCRIBER:
            raise Unavailable(f"nobody has subscribed to {topic}")

    def _on_reply(self, message: Message) -> None:
        message.ack()
        opened = self._waiting.get(message.correlation)
        if message.response_topic:
            self._on_question(message, opened)
        elif opened is not None and not opened.answer.done():
            opened.answer.set_result(message.payload)

    def _on_question(self, message: Message, opened: _Open | None) -> None:
        """Confirm a request that is open. Any other gets a no, so that its service need not wait.

        Only on topics for that: who may publish a question could make us publish anything else.
        """
        if not matches(self._bus.topics.confirm("+"), message.response_topic):
            return
        with contextlib.suppress(msgspec.DecodeError, Unavailable):
            nonce = decode(_question, message.payload).nonce
            confirmed = opened is not None and opened.may_commit(nonce)
            self._bus.post(message.response_topic, encode(Confirm(nonce, confirmed)))
            if confirmed and opened is not None:
                opened.committed = nonce


def _raise_unknown(answer: bytes, id: str) -> None:
    """Raise OutcomeUnknown if that is what the service answers."""
    with contextlib.suppress(msgspec.DecodeError):
        error = decode(_answer, answer).error
        if error is not None and error.code == OUTCOME_UNKNOWN:
            raise OutcomeUnknown(id, error.message)
