"""A GUI that speaks real messages: for tests, load, and the demo, where it orders a drink at times.

It needs no bus, as the real one does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from patchbay_bartender.settings import BartenderSettings
from patchbay_bartender.wire.gui import (
    Answer,
    Blend,
    Error,
    Frame,
    Status,
)
from patchbay_bartender.wire.gui_side import AnswerDecoder, encode_frame

if TYPE_CHECKING:
    from patchbay.settings import Config

ANSWER_TIMEOUT_S: Final = 20.0
BACKOFF_S: Final = 1.0
DEMO_CUP_L: Final = 0.04
"""A small glass: the seed's example, some six seconds."""

Wanted = TypeVar("Wanted")


class Gui:
    """One GUI. ``async with`` connects; what it hears is in ``heard``, in order.

    ``patience_s``: how long it waits for what it wants to hear.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", patience_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self.patience_s = patience_s
        self.heard: list[Answer] = []
        self._url = f"ws://{host}:{port}"
        self._decoder = AnswerDecoder()
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self._looked = 0

    async def __aenter__(self) -> Self:
        self._connection = await connect(self._url, compression=None)
        self._reader = asyncio.create_task(self._read(self._connection), name="a GUI")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.connection.close()
        if self._reader is not None:
            await self._reader

    @property
    def connection(self) -> ClientConnection:
        """The connection itself, for those who want to say nonsense."""
        assert self._connection is not None  # noqa: S101 - async with
        return self._connection

    @property
    def statuses(self) -> list[int]:
        """The remaining times that it heard."""
        return [one.remaining_time for one in self.heard if isinstance(one, Status)]

    async def say(self, frame: Frame) -> None:
        """Send a message."""
        await self.connection.send(encode_frame(frame))

    async def hear(
        self,
        kind: type[Wanted],
        such: Callable[[Wanted], bool] = lambda _one: True,
    ) -> Wanted:
        """The next message of this kind, after the last one that was asked for.

        Raises TimeoutError, and ConnectionError if the server has closed.
        """
        async with asyncio.timeout(self.patience_s), self._news:
            while True:
                while self._looked < len(self.heard):
                    one = self.heard[self._looked]
                    self._looked += 1
                    if isinstance(one, kind) and such(one):
                        return one
                if self._reader is None or self._reader.done():
                    raise ConnectionError("the server has closed the connection")
                await self._news.wait()

    async def pour(self, blend: Blend) -> list[int]:
        """Order a blend and wait for its end: the remaining times, down to 0.

        Raises RuntimeError with the text of an error.
        """
        before = len(self.statuses)
        await self.say(blend)
        last = await self.hear(
            (Status | Error),  # type: ignore[arg-type]  # a union is a kind too
            lambda one: isinstance(one, Error) or one == Status(0),
        )
        if isinstance(last, Error):
            raise RuntimeError(last.msg)
        return self.statuses[before:]

    async def _read(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                async with self._news:
                    self.heard += self._decoder.feed(message)
                    self._news.notify_all()
        async with self._news:
            self._news.notify_all()


async def run(config: Config, stop: asyncio.Event) -> None:
    """The GUI of ``up --demo``: it orders a small drink now and then, and waits for it."""
    settings = config.table("bartender", BartenderSettings)
    work = asyncio.create_task(
        _order_for_ever(
            config.runtime.demo_host, config.port(settings.port), settings.demo_interval_s
        )
    )
    await stop.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def _order_for_ever(host: str, port: int, interval_s: float) -> None:
    chance = random.Random()
    while True:
        try:
            async with Gui(port, host) as gui:
                while True:
                    await asyncio.sleep(interval_s * chance.uniform(0.8, 1.2))
                    some = chance.sample(range(8), 3)
                    ratios = {str(pump): round(chance.uniform(0.1, 0.6), 2) for pump in some}
                    with contextlib.suppress(RuntimeError):  # somebody else was quicker
                        await gui.pour(Blend(DEMO_CUP_L, ratios))
        except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake):
            await asyncio.sleep(BACKOFF_S)  # the service starts, or is killed and comes back
