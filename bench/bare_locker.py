"""The floor of bench/locker.py: a server that only finds CLOSE and writes 52 bytes back.

python bench/bare_locker.py PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = b"ACon_V1.0\nID=1953\nSEND=141349\nRESET=0\nSTATE=0\nCLOSE\n"


class Bare(asyncio.Protocol):
    """Answers once for each CLOSE, whatever stands before it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.tail = b""

    def data_received(self, data: bytes) -> None:
        data = self.tail + data
        found = data.count(b"\nCLOSE")
        self.tail = data[data.rfind(b"\nCLOSE") + 6 :] if found else data
        if found:
            self.transport.write(ANSWER * found)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
