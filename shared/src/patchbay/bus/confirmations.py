"""Request and reply, the serving side: may a request be carried out now?

A handler of a command that moves something calls `Request.confirm` before the last step that cannot
be undone. It returns when the request is committed: from then on it may act, within its service's
own deadline. It raises Rejected when the request must not act, and then it never does.

    whoever sent it can be asked    it is asked, with a nonce; only its yes in time commits
    anybody else                    it is committed while it is not older than the command allows
    cmd/cancel came before          it is not

No answer is a no. The clock decides and not which callback runs first, as in `requests`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patchbay.bus.answers import CORRELATION_BYTES
from patchbay.bus.message import Message
from patchbay.bus.requests import NO_SUBSCRIBER
from patchbay.errors import Rejected, Unavailable
from patchbay.messages import Confirm, Question, decode, encode, new_id

if TYPE_CHECKING:
    from patchbay.bus.client import Bus

REMEMBERED: Final = 1024
"""Requests that `Ledger` remembers, some 500 bytes each: minutes of a busy service."""

_confirm = msgspec.json.Decoder(Confirm)


class Questions:
    """The questions of one client to those whose requests it serves."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._topic = bus.topics.confirm(bus.client_id)
        self._open: dict[str, tuple[float, asyncio.Future[bool]]] = {}
        bus.listen(self._topic, self._on_confirm)

    def can_ask(self, message: Message) -> bool:
        """Can a question reach whoever sent this? It must have a reply topic of ours."""
        return bool(message.correlation) and (
            len(message.correlation) <= CORRELATION_BYTES
            and self._bus.topics.is_reply(message.response_topic)
        )

    async def ask(
        self, message: Message, within_s: float, asked: Callable[[asyncio.Future[bool]], None]
    ) -> bool:
        """Is the request still wanted? Raises TimeoutError if nobody says so in time.

        ``asked`` gets the future of the answer, for whoever may cancel the request meanwhile.
        """
        nonce, deadline = new_id(), time.monotonic() + within_s
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asked(answer)
        self._open[nonce] = (deadline, answer)

        def on_ack(code: int | None) -> None:
            if code == NO_SUBSCRIBER and not answer.done():
                answer.set_result(False)

        try:
            self._bus.post(
                message.response_topic,
                encode(Question(nonce)),
                response_topic=self._topic,
                correlation=message.correlation,
                on_ack=on_ack,
            )
            await asyncio.wait([answer], timeout=within_s)
        except Unavailable as error:
            raise TimeoutError(str(error)) from error
        finally:
            del self._open[nonce]
        if not answer.done():
            raise TimeoutError("the requester has not confirmed it in time")
        return answer.result()

    def _on_confirm(self, message: Message) -> None:
        message.ack()
        try:
            confirm = decode(_confirm, message.payload)
        except msgspec.DecodeError:
            return
        deadline, answer = self._open.get(confirm.nonce, (0.0, None))
        if answer is not None and not answer.done() and time.monotonic() < deadline:
            answer.set_result(confirm.confirmed)


class Confirmation:
    """Whether one request may be carried out. It is committed or cancelled, once."""

    def __init__(
        self,
        questions: Questions,
        message: Message,
        *,
        can_be_asked: bool,
        expires_s: float,
        within_s: float,
    ) -> None:
        self.committed = False
        self.cancelled = False
        self._questions = questions
        self._message = message
        self._can_be_asked = can_be_asked and questions.can_ask(message)
        self._within_s = within_s
        self._expires_at = message.received_at + expires_s
        self._answer: asyncio.Future[bool] | None = None

    async def confirm(self, within_s: float | None = None) -> None:
        """Commit the request. Raises Rejected: cancelled, unconfirmed, too_late."""
        if self.committed:
            return
        self._check()
        if self._can_be_asked:
            try:
                wait_s = self._within_s if within_s is None else within_s
                wanted = await self._questions.ask(self._message, wait_s, self._asked)
            except TimeoutError as error:
                self.cancelled = True
                raise Rejected("unconfirmed", f"nothing was done: {error}") from error
            self.cancelled = self.cancelled or not wanted
            self._check()
        elif time.monotonic() > self._expires_at:
            self.cancelled = True
            raise Rejected("too_late", "it waited while nobody could act: send it again")
        self.committed = True

    def cancel(self) -> bool:
        """Cancel the request. False if that is too late."""
        if self.committed:
            return False
        self.cancelled = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(False)
        return True

    def refuse(self) -> None:
        """It was refused, and does not act any more."""
        self.committed, self.cancelled = False, True

    def _asked(self, answer: asyncio.Future[bool]) -> None:
        self._answer = answer

    def _check(self) -> None:
        if self.cancelled:
            raise Rejected("cancelled", "nothing was done: the request was cancelled")


@dataclass(slots=True)
class Entry:
    """What the `Ledger` knows of a request. ``acted``: it was carried out, as far as we know."""

    confirmation: Confirmation
    acted: bool = False


class Ledger:
    """The last requests that may act, and those that must not, by device, id and source."""

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, Entry] = OrderedDict()
        self._cancelled: OrderedDict[_Key, None] = OrderedDict()

    def enter(self, device: str, id: str, source: str, confirmation: Confirmation) -> Entry:
        """The entry of a request that is handled now. Raises Rejected if it was cancelled."""
        if (device, id, source) in self._cancelled or (device, id, "") in self._cancelled:
            raise Rejected("cancelled", "nothing was done: the request was cancelled")
        known = self._entries.get((device, id, source))
        entry = Entry(confirmation, known is not None and known.acted)
        _remember(self._entries, (device, id, source), entry)
        return entry

    def cancel(self, device: str, id: str, source: str) -> bool | None:
        """Cancel a request. False: it is too late; None: it has not come, and is refused then."""
        found = [one for key, one in self._entries.items() if _matches(key, device, id, source)]
        if any(one.acted or not one.confirmation.cancel() for one in found):
            return False
        _remember(self._cancelled, (device, id, source), None)
        return True if found else None


_Key = tuple[str, str, str]


def _matches(key: _Key, device: str, id: str, source: str) -> bool:
    return key[:2] == (device, id) and source in ("", key[2])


def _remember(where: OrderedDict[_Key, Any], key: _Key, value: Any) -> None:
    where.pop(key, None)
    while len(where) >= REMEMBERED:
        where.popitem(last=False)
    where[key] = value
