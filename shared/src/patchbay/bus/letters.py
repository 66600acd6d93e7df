"""Dead letters: what could not be handled, published on ``patchbay/dead/<service>``.

Writing one cannot fail: whatever the original, the reason or the topic contain, and however little
the broker takes, what is left of it is published, or it is counted. A dead letter about a message
on ``patchbay/dead/#`` is never written.
"""

from __future__ import annotations

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

SHOWN_BYTES: Final = 1024
"""How much of an original stands in its dead letter on the bus, as hex. Where it is stored it is
whole: see `KeepLetter`."""

REASON_CHARS: Final = 1024
"""How much of a reason: a store's error repeats the documents, and no packet would hold them."""

PLACE_CHARS: Final = 512
"""How much of a topic or a peer's address."""

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
    """Letters of one client. While the broker is away the newest ``limit`` of them wait."""

    def __init__(self, source: str, limit: int) -> None:
        self._source = source
        self._waiting: deque[tuple[str, DeadLetter]] = deque(maxlen=limit)
        self._log = structlog.get_logger("bus").bind(client=source)
        self.written = 0
        self.dropped = 0
        """Letters that the broker never took, however short."""

    def add(
        self, dead: str, reason: str, original: bytes, *, topic: str = "", peer: str = ""
    ) -> None:
        """Write a letter and `put` it. Never raises."""
        self.put(dead, write_letter(self._source, reason, original, topic=topic, peer=peer))

    def put(self, dead: str, letter: DeadLetter) -> None:
        """Count a letter, and have it published on the topic ``dead`` with the next `send`."""
        self.written += 1
        self._waiting.append((dead, letter))

    def send(self, post: Post) -> None:
        """Publish what waits. What the broker does not confirm waits again."""
        while self._waiting:
            waiting = self._waiting.popleft()

            def settled(code: int | None, waiting: tuple[str, DeadLetter] = waiting) -> None:
                if code is None:
                    self._waiting.appendleft(waiting)

            try:
                self._post(post, *waiting, settled)
            except Unavailable:
                self._waiting.appendleft(waiting)
                return

    def _post(self, post: Post, dead: str, letter: DeadLetter, on_ack: OnAck) -> None:
        """Publish a letter, or as much of it as the broker takes. Raises Unavailable."""
        for some in _ever_shorter(letter):
            try:
                post(dead, encode(some), on_ack=on_ack)
            except TooLarge:
                continue
            except Unavailable:
                raise
            except Exception as error:  # nothing that is published must keep the others waiting
                self._log.error("dead letter not published", error=repr(error))
            else:
                return
            break
        self.dropped += 1
        self._log.error("dead letter dropped", size=letter.size, dropped=self.dropped)


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
