"""Dead letters: what could not be handled, said on ``patchbay/dead/<service>``."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from patchbay.bus.connection import OnAck
from patchbay.errors import TooLarge, Unavailable
from patchbay.messages import DeadLetter, encode, new_id, now, parse_time, rfc3339

SHOWN_BYTES = 1024
"""How much of an original stands in its dead letter, as hex."""

REASON_CHARS = 1024
"""How much of a reason: a store's error repeats the documents, and no packet would hold them."""


class Post(Protocol):
    """How a letter is sent: `Bus.post`."""

    def __call__(self, topic: str, payload: bytes, *, on_ack: OnAck) -> None: ...


class DeadLetters:
    """Letters of one client. While the broker is away the newest ``limit`` of them wait."""

    def __init__(self, source: str, limit: int) -> None:
        self._source = source
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=limit)
        self.written = 0

    def add(
        self, dead: str, reason: str, original: bytes, *, topic: str = "", peer: str = ""
    ) -> None:
        """Write a letter for the topic ``dead`` about ``original``, which came from ``topic`` or
        ``peer``."""
        self.written += 1
        shown = original[:SHOWN_BYTES]
        letter = DeadLetter(
            id=new_id(),
            reason=reason[:REASON_CHARS],
            time=rfc3339(now()),
            source=self._source,
            topic=topic,
            peer=peer,
            size=len(original),
            hex=shown.hex(),
            text=shown.decode() if shown.isascii() else "",
        )
        self._waiting.append((dead, encode(letter)))

    def send(self, post: Post) -> None:
        """Send what waits. What the broker does not confirm waits again."""
        while self._waiting:
            letter = self._waiting.popleft()

            def settled(code: int | None, letter: tuple[str, bytes] = letter) -> None:
                if code is None:
                    self._waiting.appendleft(letter)

            try:
                post(*letter, on_ack=settled)
            except (Unavailable, TooLarge):
                self._waiting.appendleft(letter)
                return


def read_letter(payload: bytes, reader: str) -> DeadLetter:
    """The letter in a payload of ``patchbay/dead/<service>``.

    Anybody can publish there: what is no letter becomes one about itself, written by ``reader``
    (an instance id), so that it is kept too and never makes a letter of its own.
    """
    try:
        letter = msgspec.json.decode(payload, type=DeadLetter)
        parse_time(letter.time)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return DeadLetter(
            id=new_id(),
            reason=f"a dead letter that is none: {error}"[:REASON_CHARS],
            time=rfc3339(now()),
            source=reader,
            size=len(payload),
            hex=payload[:SHOWN_BYTES].hex(),
        )
    return letter
