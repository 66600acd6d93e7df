"""Lanterns that speak real bytes: thousands in one process, for the demo, tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

from patchbay.sockets import allow_connections, notice_power_cuts
from patchbay_lantern.commands import COMMANDS, Light, Registry
from patchbay_lantern.messages import Order
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire.tlv import Decoder

if TYPE_CHECKING:
    from patchbay.log import Logger
    from patchbay.settings import Config

AT_ONCE: Final = 200
"""Connections that are being made at the same time: the server's backlog holds more."""

RETRY_S: Final = (0.5, 1.0)
"""Before a lantern connects again: a second, less a little, so that not all come at once."""

ROUNDS: Final = 64
"""Commands that some of a fleet have got and others not yet: the oldest is given up for another."""


@dataclass(slots=True)
class _Round:
    """A command on its way through the fleet: since when, and who has got it."""

    first_at: float
    lanterns: set[SimulatedLantern] = field(default_factory=set)


class SimulatedLantern(asyncio.Protocol):
    """One lantern of a fleet. It connects again until the fleet ends."""

    def __init__(self, fleet: Fleet) -> None:
        self.light = Light()
        self.obeyed = 0
        """Commands obeyed since the start."""
        self.transport: asyncio.Transport | None = None
        self._fleet = fleet
        self._decoder = Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        notice_power_cuts(transport.get_extra_info("socket"))
        self._decoder = Decoder()
        self._fleet.connected += 1

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            order = self._fleet.registry.unpack(frame.type, frame.value)
            if order is not None:
                self.light = self._fleet.registry.obey(self.light, order)
                self.obeyed += 1
                self._fleet.heard(self, order)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fleet.connected -= 1
        self._fleet.lost(self)


class Fleet:
    """Many lanterns of one server. ``async with`` connects them all and ends them.

    ``all_obeyed`` is called when each lantern has got the same command: with it, and the seconds on
    the clock of `time.monotonic` at which the first and the last had it. Lanterns may be several
    commands apart: each connection has its own pace.
    """

    def __init__(
        self,
        host: str,
        port: int,
        count: int,
        *,
        registry: Registry = COMMANDS,
        all_obeyed: Callable[[Order, float, float], None] | None = None,
    ) -> None:
        self.registry = registry
        self.connected = 0
        """Lanterns connected now."""
        self.lanterns = [SimulatedLantern(self) for _ in range(count)]
        self._host = host
        self._port = port
        self._all_obeyed = all_obeyed
        self._rounds: dict[Order, _Round] = {}
        self._ended = False
        self._empty = asyncio.Event()
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._connecting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for lantern in self.lanterns:
            self._connect(lantern)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        for task in list(self._connecting):
            task.cancel()
        if self._connecting:
            await asyncio.wait(self._connecting)
        for lantern in self.lanterns:
            if lantern.transport is not None:
                lantern.transport.close()
        while self.connected:
            self._empty.clear()
            await self._empty.wait()

    def heard(self, lantern: SimulatedLantern, order: Order) -> None:
        """This lantern has got this command."""
        this = self._rounds.get(order)
        if this is None:
            if len(self._rounds) == ROUNDS:
                del self._rounds[next(iter(self._rounds))]
            this = self._rounds[order] = _Round(time.monotonic())
        this.lanterns.add(lantern)
        if len(this.lanterns) == len(self.lanterns):
            del self._rounds[order]
            if self._all_obeyed is not None:
                self._all_obeyed(order, this.first_at, time.monotonic())

    def lost(self, lantern: SimulatedLantern) -> None:
        """A lantern's connection is gone: it comes again, until the fleet ends."""
        if not self.connected:
            self._empty.set()
        if not self._ended:
            self._connect(lantern, pause_s=random.uniform(*RETRY_S))

    def _connect(self, lantern: SimulatedLantern, pause_s: float = 0.0) -> None:
        task = asyncio.create_task(self._keep_connecting(lantern, pause_s))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _keep_connecting(self, lantern: SimulatedLantern, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(pause_s)
        while True:
            with contextlib.suppress(OSError):
                async with self._gate:
                    await loop.create_connection(lambda: lantern, self._host, self._port)
                return
            await asyncio.sleep(random.uniform(*RETRY_S))


async def run(config: Config, stop: asyncio.Event) -> None:
    """The lanterns of ``up --demo``; each change of all is a line in the log."""
    from patchbay.log import get_logger

    settings = config.table("lantern", LanternSettings)
    log = get_logger("lantern.demo")

    def obeyed(order: Order, first: float, last: float) -> None:
        log.info("all lanterns obeyed", command=order.command, value=order.value)

    port, count = config.port(settings.port), settings.demo_lanterns
    async with Fleet(config.runtime.demo_host, port, count, all_obeyed=obeyed):
        await stop.wait()


async def simulate(host: str, port: int, count: int, log: Logger, stop: asyncio.Event) -> None:
    """So many lanterns until ``stop``; how many are connected is a line in the log when it changes,
    and so is each command that all of them have got."""

    def obeyed(order: Order, first: float, last: float) -> None:
        spread_ms = round((last - first) * 1000, 1)
        log.info("all obeyed", command=order.command, value=order.value, spread_ms=spread_ms)

    said = -1
    async with Fleet(host, port, allow_connections(count, log), all_obeyed=obeyed) as fleet:
        while not stop.is_set():
            if fleet.connected != said:
                said = fleet.connected
                log.info("connected", lanterns=said, of=count)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
