"""The socket that paho believes to have: an asyncio transport behind recv and send.

    broker -> transport -> `Pipe.received` -> recv -> paho parses
    paho packs -> send -> `Pipe.flush`, once a turn of the loop -> transport -> broker

So connecting, TLS and back-pressure are asyncio's, and paho never blocks.
"""

from __future__ import annotations

import asyncio


class Pipe:
    """Has the methods of a socket that paho calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.held = False

    def recv(self, size: int) -> bytes:
        if not self.received:
            raise BlockingIOError
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def send(self, data: bytes) -> int:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        if not self._sent:
            self._loop.call_soon(self.flush)
        self._sent.append(data)
        return len(data)

    def flush(self) -> None:
        """Write what was sent so far."""
        sent, self._sent = self._sent, []
        if sent and self.transport is not None:
            self.transport.write(b"".join(sent))

    def hold(self, held: bool) -> None:
        """Read nothing more from the broker, or go on."""
        transport = self.transport
        if held == self.held or transport is None or transport.is_closing():
            return
        self.held = held
        if held:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def pending(self) -> int:
        return len(self.received)

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """The transport never blocks."""

    def close(self) -> None:
        self.flush()
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.close()
