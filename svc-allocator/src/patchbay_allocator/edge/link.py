"""The connection to one combinator. We connect, for ever: combinators are switched off at night.

What may be sent when is not the link's affair; it only knows whether what was sent on **this**
connection has been answered.
"""

from __future__ import annotations

import asyncio
import random
from typing import Protocol, cast

import structlog

from patchbay.sockets import notice_power_cuts
from patchbay_allocator.wire.combinator import Answer, Decoder, Mix, Refused, encode
from patchbay_allocator.wire.json_objects import WireError

CONNECT_TIMEOUT_S = 10.0
"""A combinator that is switched off does not refuse: packets to it just vanish."""


class Owner(Protocol):
    """Who is told what happens on a link. Called in the loop; must not block."""

    def connected(self) -> None:
        """A connection is there; nothing was sent on it yet."""

    def disconnected(self) -> None:
        """It is gone."""

    def answered(self, answer: Answer) -> None:
        """The combinator said so."""

    def refused(self, reason: str, original: bytes) -> None:
        """The combinator said what is no answer."""


class Link(asyncio.Protocol):
    """One combinator's address. `run` it; it keeps a connection there."""

    def __init__(
        self, owner: Owner, host: str, port: int, *, retry_initial_s: float, retry_max_s: float
    ) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.outstanding: str | None = None
        """The job that was sent on this connection and has no answer."""
        self._owner = owner
        self._host = host
        self._port = port
        self._retry_s = (retry_initial_s, retry_max_s)
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._ended = asyncio.Event()
        self._log = structlog.get_logger("combinators").bind(combinator=self.address)

    @property
    def online(self) -> bool:
        """Is there a connection now?"""
        return self._transport is not None and not self._transport.is_closing()

    async def run(self) -> None:
        """Connect, and again whenever the connection is gone: pauses double up to the longest,
        with jitter. Ends when cancelled."""
        first, longest = self._retry_s
        pause, said = first, ""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._ended.clear()
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await loop.create_connection(lambda: self, self._host, self._port)
                except (OSError, TimeoutError) as error:
                    why = str(error) or "no answer"
                    if why != said:
                        self._log.warning("combinator not reached", why=why)
                        said = why
                else:
                    since = loop.time()
                    await self._ended.wait()
                    said = ""
                    if loop.time() - since > pause:
                        pause = first
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, longest)
        finally:
            self.close()

    def send(self, mix: Mix) -> None:
        """Send a job, in one write. Only when there is a connection and nothing outstanding."""
        assert self._transport is not None  # noqa: S101
        assert self.outstanding is None  # noqa: S101  two in one read silence a combinator for ever
        self.outstanding = mix.id
        self._transport.write(encode(mix))

    def close(self) -> None:
        """End this connection; `run` makes another."""
        if self._transport is not None:
            self._transport.abort()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # as uvloop's is, not by its class
        notice_power_cuts(transport.get_extra_info("socket"))
        self._decoder = Decoder()
        self.outstanding = None
        self._log.info("combinator connected")
        self._owner.connected()

    def data_received(self, data: bytes) -> None:
        try:
            self._take(self._decoder.feed(data))
        except WireError as error:
            self._take(error.before)
            self._owner.refused(error.reason, error.original)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.outstanding = None
        self._log.info("combinator gone", why=str(exc) if exc else "it closed the connection")
        try:
            try:
                self._decoder.finish()
            except WireError as error:
                self._owner.refused(error.reason, error.original)
            self._owner.disconnected()
        finally:  # whatever the owner makes of it: `run` connects again
            self._ended.set()

    def _take(self, frames: list[Answer | Refused]) -> None:
        for frame in frames:
            if isinstance(frame, Refused):
                self._owner.refused(frame.reason, frame.original)
                continue
            if frame.id == self.outstanding:
                self.outstanding = None
            self._owner.answered(frame)
