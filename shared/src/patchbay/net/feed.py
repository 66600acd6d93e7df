"""What peers have sent, handed on in parts, so that no peer holds the event loop.

One read brings up to 4 KB. That may be one report, or two thousand objects of two bytes, and the
next read brings as many, which would keep the loop for as long as all of them take. So a connection
gets `PART_BYTES` of what it has sent at a time: the first part at once, the others in turn with all
other connections of its server that have more, for `TURN_S` of each turn of the loop. Until all is
handed on nothing more is read from it: the rest waits in the kernel's buffers, then at the peer.

    transport -> Feed.received(bytes) -> deliver(part)    at once
                        Turns         -> deliver(part)    in later turns, one peer after the other
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

PART_BYTES: Final = 1024
"""Handed on at a time: the frames of a device that sends one or some, and no more objects of two
bytes than are refused in a few milliseconds."""

READ_BYTES: Final = 4096
"""Read from one connection at a time. A thousand that send all that they can take 4 MB until their
turn comes."""

TURN_S: Final = 0.005
"""How long one turn of the loop goes on handing on what waits. Whoever sends one frame meanwhile
waits for so long."""

_NOTHING: Final = memoryview(b"")


class Turns:
    """Divides the event loop's time among the connections of one server."""

    def __init__(self) -> None:
        self._feeds: deque[Feed] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        """Connections that have sent more than was handed on yet."""
        return len(self._feeds)

    def add(self, feed: Feed) -> None:
        """Hand on what waits there, after the others' next parts."""
        self._feeds.append(feed)
        self._schedule()

    def _schedule(self) -> None:
        if self._feeds and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        end = time.monotonic() + TURN_S
        try:
            while self._feeds:
                feed = self._feeds.popleft()
                if feed.hand_on():
                    self._feeds.append(feed)
                if time.monotonic() >= end:
                    break
        finally:
            self._schedule()


class Feed:
    """What one peer has sent. ``deliver`` gets it in order, in parts, and must not raise."""

    __slots__ = ("_deliver", "_held", "_queued", "_transport", "_turns", "_unread")

    def __init__(
        self, turns: Turns, transport: asyncio.Transport, deliver: Callable[[bytes], None]
    ) -> None:
        self._turns = turns
        self._transport = transport
        self._deliver = deliver
        self._held = False
        self._queued = False
        self._unread = _NOTHING

    @property
    def waiting(self) -> int:
        """Bytes that were received and not delivered."""
        return len(self._unread)

    def received(self, data: bytes) -> None:
        """Bytes came: deliver what may be delivered now."""
        if self._unread:  # the transport had read them before it was paused
            self._unread = memoryview(b"".join((self._unread, data)))
        elif self._held:
            self._unread = memoryview(data)
        elif len(data) <= PART_BYTES:
            self._deliver(data)
            return
        else:
            self._unread = memoryview(data)
            self._next()
        self._go_on()

    def hold(self, held: bool) -> None:
        """Deliver nothing and read nothing, or go on."""
        self._held = held
        self._go_on()

    def hand_on(self) -> bool:
        """Deliver one part. Is there more that may be delivered now?"""
        try:
            if not self._held and self._next() and self._unread and not self._held:
                return True
        except Exception:
            self._transport.abort()
            raise
        self._queued = False
        self._go_on()
        return False

    def _next(self) -> bool:
        """Deliver one part, unless the connection is closing: what it has sent is dropped then."""
        if self._transport.is_closing():
            self._unread = _NOTHING
        if not self._unread:
            return False
        part = bytes(self._unread[:PART_BYTES])
        self._unread = self._unread[PART_BYTES:]
        self._deliver(part)
        return True

    def _go_on(self) -> None:
        if self._transport.is_closing():
            self._unread = _NOTHING
        elif self._held or self._unread:
            self._transport.pause_reading()
            if not self._held and not self._queued:
                self._queued = True
                self._turns.add(self)
        else:
            self._transport.resume_reading()
