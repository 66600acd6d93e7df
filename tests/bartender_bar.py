"""A whole bar in one process, on a real broker, a real store, real sockets and simulated pins."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchbay.bus import Bus, Message
from patchbay.hosts import hosts_of
from patchbay.log import get_logger
from patchbay.messages import encode, new_event
from patchbay.outbox import Outbox
from patchbay.settings import RuntimeSettings, StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, until
from patchbay.websocket import WebSocketServer
from patchbay_bartender.domain import BartenderDomain
from patchbay_bartender.edge.bank import Bank
from patchbay_bartender.edge.gui import GuiEdge, limits_of
from patchbay_bartender.edge.pumps import PumpsEdge
from patchbay_bartender.edge.simulated import SimulatedGpio, changes
from patchbay_bartender.messages import Asked, Blend, PumpsState
from patchbay_bartender.settings import BOARD_PINS, BartenderSettings
from patchbay_bartender.simulator import Gui

PUMPS = "bartender-pumps-test"

PATIENT: Mapping[str, Any] = {
    "lost_after_s": 60,
    "start_deadline_s": 30,
    "answer_s": 40,
    "watchdog_s": 10,
}
"""What is given up because it takes too long is so only after a time that no machine needs."""


def with_settings(**settings: Any) -> pytest.MarkDecorator:
    """Settings of ``[bartender]`` for the bar of a test, in the place of what is `PATIENT`."""
    return pytest.mark.parametrize("wanted", [settings], indirect=True, ids=["set"])


class Heard:
    """What was said on some topics, as JSON, by the last two levels of the topic."""

    def __init__(self, bus: Bus) -> None:
        self.all: list[tuple[str, Any]] = []
        bus.listen("patchbay/bartender/#", self._take)

    def _take(self, message: Message) -> None:
        message.ack()
        text = message.payload.decode()
        said: Any = json.loads(text) if text[:1] in ("{", "[") else text
        self.all.append((message.topic.removeprefix("patchbay/bartender/"), said))

    def of(self, topic: str) -> list[Any]:
        """What was said on ``<device>/<kind>/<name>``."""
        return [said for name, said in self.all if name == topic]

    def data(self, topic: str) -> list[Any]:
        """The data of the events there."""
        return [said["data"] for said in self.of(topic)]


class Pins:
    """A file of simulated pins, by pump."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def on(self) -> list[int]:
        """The pumps that are on: their pins are low."""
        level = dict.fromkeys(range(8), True)
        for one in changes(self.file):
            level[BOARD_PINS.index(one.pin)] = one.level
        return [pump for pump, high in level.items() if not high]

    def begun(self, pump: int) -> bool:
        """Is or was this pump on? For tests of runs that a slow one could find over already."""
        return any(BOARD_PINS[pump] == one.pin and not one.level for one in changes(self.file))

    def spans(self) -> list[tuple[int, float, float]]:
        """(pump, on, off) of each time that a pump was on and is off again, in order of the end;
        seconds on the monotonic clock, which all processes of a machine share."""
        since: dict[int, float] = {}
        found = []
        for one in changes(self.file):
            pump = BOARD_PINS.index(one.pin)
            if not one.level:
                since.setdefault(pump, one.at)
            elif pump in since:
                found.append((pump, since.pop(pump), one.at))
        return found

    def times(self) -> list[tuple[int, float]]:
        """(pump, seconds) of each of them."""
        return [(pump, off - on) for pump, on, off in self.spans()]

    def ran(self) -> dict[int, float]:
        """Pump -> all its seconds."""
        total: dict[int, float] = {}
        for pump, seconds in self.times():
            total[pump] = total.get(pump, 0.0) + seconds
        return total


class House:
    """GUI edge, pumps' edge and scheduler, each with a bus client of its own."""

    def __init__(self, make_bus: MakeBus, store: Store, directory: Path, **settings: Any) -> None:
        self.store = store
        self.directory = directory
        self.settings = BartenderSettings(**{"sec_per_liter": 20, **PATIENT, **settings})
        self.pins = Pins(directory / "pins")
        self.watcher = make_bus("watcher")
        self.heard = Heard(self.watcher)
        self.port = 0
        self.failures: list[BaseException] = []
        self.domain: BartenderDomain
        self.pumps: PumpsEdge
        self.bank: Bank
        self.gui: GuiEdge
        self._make_bus = make_bus
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    async def start(self) -> None:
        """Start everything, and wait until the scheduler sees the pumps."""
        self.watcher.start()
        await self.watcher.wait_connected(PATIENCE_S)
        await self.start_pumps()
        await self.start_domain()
        await self.start_gui()
        await until(lambda: self.domain.presence.online)
        await until(lambda: self.gui.state is not None)

    async def start_domain(self) -> None:
        stack = self._stacks["domain"] = contextlib.AsyncExitStack()
        bus = self._make_bus("bartender-domain-test", durable=True, announce=True)
        stack.push_async_callback(bus.stop)
        self.domain = await stack.enter_async_context(
            BartenderDomain(bus, self.store, self.settings, StoreSettings())
        )
        bus.start()
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)

    async def start_pumps(self) -> None:
        stack = self._stacks["pumps"] = contextlib.AsyncExitStack()
        settings = self.settings
        bus = self._make_bus(PUMPS, announce=True)
        stack.push_async_callback(bus.stop)
        gpio = SimulatedGpio(self.pins.file)
        self.bank = stack.enter_context(
            Bank(
                gpio,
                settings.pins,
                active_low=settings.active_low,
                max_run_s=settings.max_run_seconds,
            )
        )
        outbox = await stack.enter_async_context(
            Outbox(bus, "bartender", self.directory / "pumps.sqlite", threaded=True)
        )
        self.pumps = stack.enter_context(
            PumpsEdge(bus, outbox, self.bank, settings, self.failures.append)
        )
        bus.start()
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)

    async def start_gui(self) -> None:
        stack = self._stacks["gui"] = contextlib.AsyncExitStack()
        settings = self.settings
        bus = self._make_bus("bartender-gui-test", announce=True)
        stack.push_async_callback(bus.stop)
        self.gui = GuiEdge(bus, self.settings.bar, settings.answer_s)
        stack.callback(self.gui.close)
        server = WebSocketServer(
            self.gui.connected,
            host="127.0.0.1",
            port=self.port,
            limits=limits_of(settings, RuntimeSettings(max_invalid=1000)),
            origins=settings.origins,
            hosts=hosts_of(settings.hosts, settings.origins),
            log=get_logger("gui"),
        )
        self.gui.server = await stack.enter_async_context(server)
        self.port = server.port
        bus.start()
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)

    async def stop(self, part: str) -> None:
        """End ``domain``, ``pumps`` or ``gui`` as a unit ends."""
        await self._stacks.pop(part).aclose()

    async def end(self) -> None:
        """End what runs."""
        for part in list(self._stacks):
            await self.stop(part)

    def connect(self) -> Gui:
        """A GUI, not connected yet."""
        return Gui(self.port, patience_s=PATIENCE_S)

    async def bars(self) -> dict[str, Any]:
        """The bar's document."""
        (found,) = await self.store.find("pumps", {"_id": self.settings.bar})
        return found

    async def blends(self) -> list[dict[str, Any]]:
        """The history in the store, oldest first."""
        return await self.store.find("blends", {}, sort=[("_id", 1)])

    async def idle(self) -> None:
        """Wait until nothing runs, and the history says so."""
        await until(lambda: not self.bank.on and self.domain.kept.bar.state.run is None)
        async with self.domain.kept.bars.lock:
            await self.domain.kept.save_records()


class PumpsByHand:
    """A test as the pumps' edge, as far as the scheduler sees it. ``asks``: it asks whether an
    order may begin."""

    def __init__(self, house: House, bus: Bus) -> None:
        self.house = house
        self.bus = bus
        self.sequence = 0
        self.asks = True
        bus.listen("patchbay/bartender/bar-pumps/cmd/+", self._hear)

    def _hear(self, message: Message) -> None:
        message.ack()
        if message.topic.endswith("/run") and self.asks:
            run_id = json.loads(message.payload)["run_id"]
            topic = "patchbay/bartender/bar-pumps/event/asked"
            self.bus.post(topic, encode(Asked(run_id, f"nonce of {run_id}")))

    async def state(self, run_id: str | None = None, last_run: str | None = None) -> None:
        on = [0] if run_id else []
        state = PumpsState(
            edge=PUMPS,
            driver="simulated",
            on=on,
            run_id=run_id,
            remaining=3.0 if run_id else 0.0,
            last_run=last_run or run_id,
        )
        await self.bus.publish("patchbay/bartender/bar-pumps/state", encode(state), retain=True)

    async def event(self, name: str, data: msgspec.Struct, *, again: bool = False) -> None:
        """A durable event, or the last one once more."""
        self.sequence += not again
        event = new_event(
            id=f"e{self.sequence}",
            source=PUMPS,
            type=f"patchbay.bartender.{name}",
            subject="bar-pumps",
            data=data,
            sequence=self.sequence,
            epoch="first",
        )
        await self.bus.publish(f"patchbay/bartender/bar-pumps/event/{name}", event)

    async def ordered(self, number: int = 0) -> str:
        """The id of the run that was ordered."""
        await until(lambda: len(self.house.heard.of("bar-pumps/cmd/run")) > number)
        return str(self.house.heard.of("bar-pumps/cmd/run")[number]["run_id"])


async def ask(house: House, name: str, body: msgspec.Struct) -> dict[str, Any]:
    """A command's answer."""
    topic = f"patchbay/bartender/bar/cmd/{name}"
    answer: dict[str, Any] = json.loads(await house.watcher.request(topic, encode(body)))
    return answer


def stopped(house: House) -> set[str | None]:
    """What the pumps were told to stop; None is whatever they do."""
    return {one["run_id"] for one in house.heard.of("bar-pumps/cmd/stop")}


async def order_blend(house: House) -> dict[str, Any]:
    """Order four seconds of two pumps; the answer."""
    return await ask(house, "blend", Blend(cup_size=0.2, ratios={"0": 1.0, "3": 0.5}, by="Ann"))


class Hand:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Levels:
    """Pins that remember everything, and fail where the test says."""

    name = "simulated"

    def __init__(self) -> None:
        self.said: list[tuple[str, int, bool]] = []
        self.levels: dict[int, bool] = {}
        self.broken: set[tuple[int, bool]] = set()
        self.closed = False

    def setup(self, pins: Iterable[int], level: bool) -> None:
        for pin in pins:
            self.said.append(("setup", pin, level))
            self.levels[pin] = level

    def output(self, pin: int, level: bool) -> None:
        if (pin, level) in self.broken:
            raise OSError("this pin is broken")
        self.said.append(("output", pin, level))
        self.levels[pin] = level

    def close(self) -> None:
        self.closed = True


def on(gpio: Levels) -> list[int]:
    """The pumps whose pins are low."""
    return [BOARD_PINS.index(pin) for pin, level in gpio.levels.items() if not level]


def bank(gpio: Levels, hand: Hand, max_run_s: float = 300.0, active_low: bool = True) -> Bank:
    return Bank(gpio, BOARD_PINS, active_low=active_low, max_run_s=max_run_s, clock=hand)
