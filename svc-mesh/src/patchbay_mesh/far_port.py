"""A serial port at the end of a TCP connection, as ``socket://host:port`` finds it.

    edge  == TCP ==  FarPort  --  the port that is named ``link``

For a root that is at another machine than its edge, or in another container. One who connects has
the port; one who connects later takes it over, as one does who plugs the cable elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from patchbay.sockets import notice_power_cuts

READ_BYTES: Final = 65_536


class FarPort:
    """Serves ``link`` on a TCP port. ``async with``."""

    def __init__(self, link: Path, host: str, port: int) -> None:
        self._link = link
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._user: _User | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _User(self), self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.taken_by(None)

    @property
    def port(self) -> int:
        """The port that it listens on: the real one when it was asked for 0."""
        assert self._server is not None  # noqa: S101 - async with
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    def open(self) -> int:
        """The serial port, as a descriptor. Raises OSError while there is none."""
        descriptor = os.open(self._link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        tty.setraw(descriptor, termios.TCSANOW)  # what has come already is kept
        return descriptor

    def taken_by(self, user: _User | None) -> None:
        """This one has the port now."""
        before, self._user = self._user, user
        if before is not None:
            before.close()


class _User(asyncio.Protocol):
    """Who is connected."""

    def __init__(self, port: FarPort) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        notice_power_cuts(transport.get_extra_info("socket"))
        self._port.taken_by(self)
        try:
            self._descriptor = self._port.open()
        except OSError:  # unplugged
            self.close()
        else:
            self._loop.add_reader(self._descriptor, self._readable)

    def data_received(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # unplugged, or nobody reads there: a cable has no memory
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the port and the connection go. Harmless when said twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        if self._transport is not None:
            self._transport.close()

    def _readable(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # unplugged
            data = os.read(self._descriptor, READ_BYTES)
        if data and self._transport is not None:
            self._transport.write(data)
        else:
            self.close()
