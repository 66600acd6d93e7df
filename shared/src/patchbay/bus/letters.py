"""Dead letters: what could not be handled, published on ``patchbay/dead/<service>``.

Writing one cannot fail: whatever the original, the reason or the topic contain, and however little
the broker takes, what is left of it is published, or it is counted. A dead letter about a message
on ``patchbay/dead/#`` is never written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
import structlog

from patchbay.bus.connection import OnAck
from patchbay.errors import TooLarge, Unavailable
from patchbay.messages import (
    MAX_LEVEL,
    DeadLetter,
    decode,
    encode,
    new_id,
    now,
    parse_time,
    rfc3339,
)
from patchbay.rate import TokenBucket
from patchbay.settings import BrokerSettings

SHOWN_BYTES: Final = 1024
"""How much of an original stands in its dead letter on the bus, as hex. Where it is stored it is
whole: see `KeepLetter`."""

REASON_CHARS: Final = 1024
"""How much of a reason: a store's error repeats the documents, and no packet would hold them."""

PLACE_CHARS: Final = 512
"""How much of a topic or a peer's address."""

LOGGED_CHARS: Final = 200
"""How much of a reason is logged."""

IN_FLIGHT: Final = 50
"""Letters that were sent and are not confirmed; what the bus client is given it holds without a
bound."""

KeepLetter = Callable[[DeadLetter, bytes, str], Awaitable[None]]
"""Stores a dead letter with its whole original and that one's content type. Raises Unavailable."""

_letter = msgspec.json.Decoder(DeadLetter)


class Post(Protocol):
    """How a letter is sent: `Bus.post`."""

    def __call__(self, topic: str, payload: bytes, *, on_ack: OnAck) -> None: ...


def write_letter(
    source: str, reason: str, original: bytes, *, topic: str = "", peer: str = "", id: str = ""
) -> DeadLetter:
    """A dead letter about ``original``, which came from ``topic`` or ``peer``. Never raises."""
    shown = original[:SHOWN_BYTES]
    return DeadLetter(
        id=id or new_id(),
        reason=_text(reason, REASON_CHARS),
        time=rfc3339(now()),
        source=_text(source, MAX_LEVEL),
        topic=_text(topic, PLACE_CHARS),
        peer=_text(peer, PLACE_CHARS),
        size=len(original),
        hex=shown.hex(),
        text=shown.decode() if shown.isascii() else "",
    )


def reason_of(error: BaseException) -> str:
    """Why something could not be handled, from its exception. Never raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an exception whose text cannot be made
        return type(error).__name__


def _text(text: str, limit: int) -> str:
    """The beginning of a text, which UTF-8 can express."""
    return text[:limit].encode(errors="replace").decode()


class DeadLetters:
    """Letters of one client, at a bounded rate.

    A refusal is one dead letter and one log line, as long as there are no more than
    ``dead_letters_per_s``. The others are only counted, and one letter and line in
    ``dead_letter_summary_s`` says how many there were. Letters that the broker has not taken yet
    wait, the newest ``dead_letter_queue`` of them.
    """

    def __init__(
        self, source: str, settings: BrokerSettings, post: Post, ready: Callable[[], bool]
    ) -> None:
        """``post`` sends a letter when the client is ``ready``."""
        self._source = source
        self._settings = settings
        self._post_letter = post
        self._ready = ready
        self._bucket = TokenBucket(settings.dead_letters_per_s, settings.dead_letters_per_s)
        self._waiting: deque[tuple[str, DeadLetter]] = deque()
        self._in_flight = 0
        self._sending = False
        self._last_left_out = ("", "", "", "")
        self._summary: asyncio.TimerHandle | None = None
        self._uncounted = 0
        self._log = structlog.get_logger("bus").bind(client=source)
        self.written = 0
        self.left_out = 0
        """Refusals without a letter of their own: there were too many at once, or while the broker
        was away."""
        self.dropped = 0
        """Letters that the broker never took, however short."""

    def refuse(
        self, dead: str, reason: str, original: bytes, *, topic: str = "", peer: str = ""
    ) -> None:
        """Write a letter about invalid input, and log it, unless there are too many. Never
        raises."""
        if self._bucket.take():
            letter = write_letter(self._source, reason, original, topic=topic, peer=peer)
            where = {"topic": letter.topic} if topic else {"peer": letter.peer}
            self._log.warning("invalid input", reason=letter.reason[:LOGGED_CHARS], **where)
            self.put(dead, letter)
        else:
            self._leave_out(dead, reason, topic, peer)

    def notify(self, dead: str, letter: DeadLetter) -> None:
        """Publish a letter that is stored already, unless there are too many."""
        if self._bucket.take():
            self.put(dead, letter)
        else:
            self._leave_out(dead, letter.reason, letter.topic, letter.peer)

    def put(self, dead: str, letter: DeadLetter) -> None:
        """Publish a letter on the topic ``dead``, as soon as the broker is there."""
        self.written += 1
        self._wait(dead, letter)
        self.send()

    def send(self) -> None:
        """Publish what waits. What the broker does not confirm waits again."""
        if self._sending:  # it goes on with what waits
            return
        self._sending = True
        try:
            self._send()
        finally:
            self._sending = False

    def _send(self) -> None:
        while self._waiting and self._in_flight < IN_FLIGHT and self._ready():
            waiting = self._waiting.popleft()

            def settled(code: int | None, waiting: tuple[str, DeadLetter] = waiting) -> None:
                self._in_flight -= 1
                if code is None:
                    self._wait(*waiting)
                else:
                    self.send()

            self._in_flight += 1
            try:
                if not self._post(*waiting, settled):
                    self._in_flight -= 1
            except Unavailable:
                self._in_flight -= 1
                self._waiting.appendleft(waiting)
                return

    def close(self) -> None:
        """Say now how many were left out."""
        if self._summary is not None:
            self._summary.cancel()
            self._summarize()

    def _wait(self, dead: str, letter: DeadLetter) -> None:
        self._waiting.append((dead, letter))
        if len(self._waiting) > self._settings.dead_letter_queue:
            dead, letter = self._waiting.popleft()
            self._leave_out(dead, letter.reason, letter.topic, letter.peer)

    def _leave_out(self, dead: str, reason: str, topic: str, peer: str) -> None:
        self.left_out += 1
        self._uncounted += 1
        self._last_left_out = dead, reason[:REASON_CHARS], topic[:PLACE_CHARS], peer[:PLACE_CHARS]
        if self._summary is None:
            self._summarize_later()

    def _summarize_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._summary = loop.call_later(self._settings.dead_letter_summary_s, self._look)

    def _look(self) -> None:
        if self._ready():
            self._summarize()
        else:  # each would push a letter out, which would have to be said again
            self._summarize_later()

    def _summarize(self) -> None:
        self._summary = None
        number, self._uncounted = self._uncounted, 0
        dead, last, topic, peer = self._last_left_out
        reason = f"{number} dead letters left out, the last one: {last}"
        letter = write_letter(self._source, reason, b"", topic=topic, peer=peer)
        self._log.warning("dead letters left out", number=number, last=last[:LOGGED_CHARS])
        self.put(dead, letter)

    def _post(self, dead: str, letter: DeadLetter, on_ack: OnAck) -> bool:
        """Publish a letter, or as much of it as the broker takes. False: it takes nothing of it.
        Raises Unavailable."""
        for some in _ever_shorter(letter):
            try:
                self._post_letter(dead, encode(some), on_ack=on_ack)
            except TooLarge:
                continue
            except Unavailable:
                raise
            except Exception as error:  # nothing that is published must keep the others waiting
                self._log.error("dead letter not published", error=repr(error))
            else:
                return True
            break
        self.dropped += 1
        self._log.error("dead letter dropped", size=letter.size, dropped=self.dropped)
        return False


def _ever_shorter(letter: DeadLetter) -> tuple[DeadLetter, ...]:
    replace = msgspec.structs.replace
    without_original = replace(letter, hex="", text="")
    return (
        letter,
        replace(letter, hex=letter.hex[:256], text=""),
        replace(without_original, reason=letter.reason[:100], topic="", peer=""),
    )


def read_letter(payload: bytes, reader: str) -> DeadLetter:
    """The letter in a payload of ``patchbay/dead/<service>``.

    Anybody can publish there: what is no letter becomes one about itself, written by ``reader``
    (an instance id), so that it is kept too and never makes a letter of its own.
    """
    try:
        letter = decode(_letter, payload)
        parse_time(letter.time)
    except (msgspec.DecodeError, ValueError) as error:
        return DeadLetter(
            id=new_id(),
            reason=_text(f"invalid dead letter: {error}", REASON_CHARS),
            time=rfc3339(now()),
            source=reader,
            size=len(payload),
            hex=payload[:SHOWN_BYTES].hex(),
        )
    return letter
