"""A server whose sessions are at hand and say again what they hear, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from patchbay.log import get_logger
from patchbay.net import Limits, Peer, Server
from patchbay.testing import PATIENCE_S, until

LOG = get_logger("test")


def on_both_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on asyncio's own loop and on uvloop, whose transports differ."""

    @pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test())

    return run


class Echo:
    """Answers what it hears, and keeps it."""

    def __init__(self, peer: Peer, all_of_them: list[Echo]) -> None:
        self.peer = peer
        self.heard = b""
        self.whole: list[bool] = []
        self.gone = 0
        all_of_them.append(self)

    def received(self, data: bytes) -> None:
        self.heard += data
        if b"crash" in data:
            raise RuntimeError("a mistake in a session")
        if b"bye" in data:
            self.whole.append(self.peer.write(b"bye"))
            self.peer.close()
        else:
            self.whole.append(self.peer.write(data))

    def lost(self) -> None:
        self.gone += 1


class House:
    """A server whose sessions are at hand."""

    def __init__(self, **limits: Any) -> None:
        self.sessions: list[Echo] = []
        self.server = Server(
            lambda peer: Echo(peer, self.sessions), "127.0.0.1", 0, Limits(**limits), LOG
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A device whose connection the server has taken."""
        taken = len(self.sessions)
        streams = await asyncio.open_connection("127.0.0.1", self.server.port)
        await until(lambda: len(self.sessions) > taken)
        return streams


@contextlib.asynccontextmanager
async def house(**limits: Any) -> AsyncIterator[House]:
    one = House(**limits)
    async with one.server:
        yield one


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes, until the server closes."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
