"""The floor of bench/lantern.py: a loop that writes the same bytes to every connection.

python bench/bare_lantern.py PORT CONTROL_PORT

Who connects to the control port is told how many lanterns there are, in one line. What comes there
is written to all of them, six bytes a time.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar, cast

import uvloop

from patchbay.log import get_logger
from patchbay.net import BACKLOG
from patchbay.sockets import allow_connections

COMMAND = 6


class Bare(asyncio.Protocol):
    """A connection that is only written to."""

    connected: ClassVar[set[asyncio.Transport]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connected.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected.discard(self.transport)


class Control(asyncio.Protocol):
    """Where the commands come from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"%d\n" % len(Bare.connected))

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), COMMAND):
            for transport in Bare.connected:
                transport.write(data[at : at + COMMAND])


async def main(port: int, control: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", port, backlog=BACKLOG)
    await loop.create_server(Control, "127.0.0.1", control)
    await server.serve_forever()


if __name__ == "__main__":
    allow_connections(20_000, get_logger("bare"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
