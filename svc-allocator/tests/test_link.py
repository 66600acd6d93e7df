"""The connection to one combinator, whatever its owner makes of what it is told."""

from __future__ import annotations

import asyncio

from patchbay.testing import until
from patchbay_allocator.edge.link import Link
from patchbay_allocator.wire.combinator import Answer


class Clumsy:
    """Makes a mistake whenever its connection is gone."""

    def __init__(self) -> None:
        self.came = self.gone = 0

    def connected(self) -> None:
        self.came += 1

    def disconnected(self) -> None:
        self.gone += 1
        raise RuntimeError("a mistake of the owner")

    def answered(self, answer: Answer) -> None: ...

    def refused(self, reason: str, original: bytes) -> None: ...


async def test_a_mistake_of_the_owner_does_not_end_the_connecting() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    owner = Clumsy()
    link = Link(owner, host, port, retry_initial_s=0.01, retry_max_s=0.02)
    running = asyncio.create_task(link.run())
    await until(lambda: owner.came >= 3)
    assert owner.gone >= 2
    running.cancel()
    server.close()
