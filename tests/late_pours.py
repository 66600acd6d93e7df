"""A bar whose units are processes, each behind a link of its own to the broker; who orders there.

One order after the other, each for the next pump: pins tell whose they are. What its sender was
told (`Order.told`) is held against when that pump went on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from websockets.exceptions import ConnectionClosed

from patchbay.bus import Bus
from patchbay.chaos.link import Link, Way
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.messages import encode
from patchbay.testing import (
    PATIENCE_S,
    Part,
    broker_settings,
    free_port,
    mosquitto_part,
    store_part,
    until,
)
from patchbay.topics import Topics
from patchbay_bartender import messages
from patchbay_bartender.edge.simulated import changes
from patchbay_bartender.settings import BOARD_PINS, PUMPS
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Blend, Error, Refill, Status
from tests.bartender_bar import Heard
from tests.house import UnitPart, house_environ

Told = Literal["accepted", "error", "unknown"]

UNITS = ("bartender.gui", "bartender.domain", "bartender.pumps")
BROKER, STORE, OPERATOR = "broker", "store", "operator"

CUP_L = 0.005
"""A tenth of a second, at 20 s a litre."""

BETWEEN_S = 0.02

AFTER_S = 0.05
"""How long after its end a GUI waits for an error."""


@dataclass(slots=True)
class Order:
    """One order. Times are monotonic, as those of the pins."""

    kind: str
    pump: int
    at: float
    told: Told = "unknown"
    told_at: float = 0.0

    def tell(self, told: Told) -> None:
        self.told, self.told_at = told, time.monotonic()


class OrderedBar:
    """Broker, store, three units, their links, a GUI and the command line. ``async with``."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.orders: list[Order] = []
        self.broker = mosquitto_part(directory / "broker")
        self.store = store_part(directory / "store")
        self.links: dict[str, Link] = {}
        """By unit: its link to the broker. ``store``: the scheduler's to the store."""
        self.units: dict[str, UnitPart] = {}
        self.patience_s = 5.0
        """How long the command line waits."""
        self.gui_patience_s = 5.0
        """How long a GUI waits for a word before the next order."""
        self._pins = directory / "state" / "units" / "bartender-pumps-test" / "pins"
        self._directory = directory
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._numbers = itertools.count()
        self._port = free_port()
        self._operator: Bus
        self._watcher: Bus
        self._heard: Heard

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        for part in (self.broker, self.store):
            self._stack.callback(part.kill)
            await asyncio.to_thread(part.start)
        for name in (*UNITS, OPERATOR):
            self.links[name] = await self._link(self.broker)
        self.links[STORE] = await self._link(self.store)
        self._watcher = await self._bus("watcher", self.broker.port)
        self._heard = Heard(self._watcher)
        self._operator = await self._bus(OPERATOR, self.links[OPERATOR].port)
        for name in UNITS:
            unit = UnitPart(name, self._directory, 0, self._environ(name))
            self._stack.callback(unit.kill)
            unit.spawn()
            self.units[name] = unit
        await until(self.is_open)

    async def _link(self, part: Part) -> Link:
        return await self._stack.enter_async_context(Link("127.0.0.1", part.port))

    async def _bus(self, name: str, port: int) -> Bus:
        settings = broker_settings(port)
        bus = Bus(settings, client_id=name, topics=Topics(), announce=False)
        self._stack.push_async_callback(bus.stop)
        bus.start()
        await bus.wait_connected(PATIENCE_S)
        return bus

    def _environ(self, name: str) -> dict[str, str]:
        return house_environ(
            RUNTIME__STATE_DIR=self._directory / "state",
            RUNTIME__DEMO="true",
            BROKER__PORT=self.links[name].port,
            BROKER__BACKOFF_INITIAL_S=0.05,
            BROKER__BACKOFF_MAX_S=0.5,
            STORE__URI=f"mongodb://127.0.0.1:{self.links[STORE].port}",
            STORE__BACKOFF_INITIAL_S=0.05,
            STORE__BACKOFF_MAX_S=0.5,
            BARTENDER__PORT=self._port,
            BARTENDER__SEC_PER_LITER=20,
            BARTENDER__REFILL_TIMES=json.dumps([0.1] * PUMPS),
            **self._settings,
        )

    def is_open(self) -> bool:
        """The bar has published last that it is idle, and that its pumps are there."""
        states = self._heard.of("bar/state")
        return bool(states) and states[-1]["pumps_online"] and states[-1]["state"] == "idle"

    # What is ordered

    async def load(self, stop: asyncio.Event) -> None:
        """Order one thing after the other until ``stop``."""
        kinds: tuple[tuple[str, Callable[[Order], Awaitable[None]]], ...] = (
            ("blend of a GUI", self._gui_blends),
            ("blend of the command line", self._operator_blends),
            ("refill of a GUI", self._gui_refills),
            ("refill of the command line", self._operator_refills),
        )
        while not stop.is_set():
            number = next(self._numbers)
            kind, order_it = kinds[number % len(kinds)]
            order = Order(kind, number * 3 % PUMPS, time.monotonic())
            self.orders.append(order)
            await order_it(order)
            await asyncio.sleep(BETWEEN_S)

    async def _gui_blends(self, order: Order) -> None:
        await self._by_gui(order, Blend(CUP_L, {str(order.pump): 1.0}))

    async def _gui_refills(self, order: Order) -> None:
        await self._by_gui(order, Refill(order.pump))

    async def _by_gui(self, order: Order, said: Blend | Refill) -> None:
        with contextlib.suppress(OSError, TimeoutError, ConnectionClosed):
            async with Gui(self._port, patience_s=self.gui_patience_s) as gui:
                await gui.say(said)
                while not isinstance(heard := await self._hear(gui), Error):
                    order.tell("accepted")
                    if heard.remaining_time == 0:
                        gui.patience_s = AFTER_S  # it may have failed
                order.tell("error")

    async def _hear(self, gui: Gui) -> Status | Error:
        return await gui.hear(Status | Error)  # type: ignore[arg-type]  # a union is a kind too

    async def _operator_blends(self, order: Order) -> None:
        body = messages.Blend(cup_size=CUP_L, ratios={str(order.pump): 1.0})
        await self._by_operator(order, "blend", body)

    async def _operator_refills(self, order: Order) -> None:
        await self._by_operator(order, "refill", messages.Refill(pump=order.pump))

    async def _by_operator(self, order: Order, name: str, body: Any) -> None:
        topic = f"patchbay/bartender/bar/cmd/{name}"
        try:
            payload = await self._operator.request(
                topic, encode(body), timeout_s=self.patience_s, actuates=True
            )
        except OutcomeUnknown:
            order.tell("unknown")
        except (TimeoutError, Unavailable, Rejected):
            order.tell("error")
        else:
            order.tell("accepted" if json.loads(payload)["ok"] else "error")

    # What goes wrong

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """This unit, ``broker`` or ``store`` is stopped, and continues at the end."""
        parts: dict[str, Part] = {BROKER: self.broker, STORE: self.store, **self.units}
        pid = parts[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stalled(self, names: Iterable[str], way: Way = "both") -> Iterator[None]:
        """These links move nothing, and go on at the end."""
        for name in names:
            self.links[name].stall(way)
        try:
            yield
        finally:
            for name in names:
                self.links[name].resume()

    # What must hold

    def late(self) -> list[str]:
        """Orders whose pump went on after their sender was told of an error."""
        found = []
        for pump, at in self.begun():
            mine = [one for one in self.orders if one.pump == pump and one.at <= at]
            if not mine:
                found.append(f"pump {pump}: nobody has ordered it")
            elif mine[-1].told == "error" and at > mine[-1].told_at:
                late_s = at - mine[-1].told_at
                found.append(f"{mine[-1].kind}, pump {pump}: {late_s:.3f} s after the error")
        return found

    def begun(self) -> list[tuple[int, float]]:
        """(pump, time) of each time that a pump went on."""
        return [(BOARD_PINS.index(one.pin), one.at) for one in changes(self._pins) if not one.level]
