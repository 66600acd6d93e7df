"""How quick the cocktail machine is, from a GUI to the pins, and how exact its pumps are.

    .venv/bin/python bench/bartender.py [--quick]

One run on one machine, everything on loopback: Mosquitto, the embedded store and the three units
as processes of their own, one GUI. Pins are simulated; their file has the time of each change on
the same monotonic clock as ours.

    blend   from a GUI's message to the first pin, through the bus and the store; 1,000 runs
    off     how much longer than stated each pump of those runs was on
    stop    from a GUI's message to the last pin that is off again; 100 runs
    echo    round trips on one connection, beside a bare server of the same library, turn by turn
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from patchbay.testing import Part, eventually, free_port, until
from patchbay_bartender.edge.simulated import Change, changes
from patchbay_bartender.settings import BOARD_PINS
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Blend, Status, Stop
from testbed import Installation, arguments, run, verdict

BARE = str(Path(__file__).with_name("bare_websocket.py"))
RATIOS = {"0": 0.3, "3": 0.6, "7": 0.9}
CUP_L = 0.0004
SEC_PER_LITER = 213
PAUSE_S = 0.05
"""Between two runs: the history of one is written while nobody waits for the next."""
ECHO = '{"type":"echo","data":{"msg":"toaster"}}'


class House(Installation):
    """The processes of one bar."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        super().__init__(directory, "bartender", {"port": self.port})
        self.pins = directory / "units" / "bartender-pumps-bench" / "pins"
        self.gui = self.unit("gui", self.port)
        self.pumps = self.unit("pumps")
        self.domain = self.unit("domain")
        bare_port = free_port()
        self.bare = Part(
            "bare", directory, lambda: [sys.executable, BARE, str(bare_port)], bare_port
        )

    def start(self) -> None:
        for part in (self.broker, self.store, self.gui, self.bare):
            part.start()
        for part in (self.pumps, self.domain):
            part.spawn()

    def stop(self) -> None:
        for part in (self.gui, self.pumps, self.domain, self.bare, self.broker, self.store):
            part.stop()


async def is_open(gui: Gui) -> bool:
    """Does the bar pour? It tries."""
    try:
        await gui.pour(Blend(CUP_L, {"0": 1.0}))
    except RuntimeError:
        return False
    return True


async def measure_blends(house: House, gui: Gui, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the first pin of each run, and of each pump beyond its time."""
    wanted = {int(pump): ratio * CUP_L * SEC_PER_LITER for pump, ratio in RATIOS.items()}
    quick: list[float] = []
    exact: list[float] = []
    for _ in range(runs):
        await asyncio.sleep(PAUSE_S)
        known = len(changes(house.pins))
        began = time.monotonic()
        await gui.say(Blend(CUP_L, dict(RATIOS)))
        await gui.hear(Status, lambda one: one.remaining_time == 0)
        new = changes(house.pins)[known:] if known < len(changes(house.pins)) else []
        ons = [one for one in new if not one.level]
        if not ons:  # the file began anew in between
            continue
        quick.append((ons[0].at - began) * 1000)
        exact += [(on_for(new, pump) - seconds) * 1000 for pump, seconds in wanted.items()]
    return quick, exact


def on_for(said: Sequence[Change], pump: int) -> float:
    """Seconds that this pump was on."""
    times = [one.at for one in said if one.pin == BOARD_PINS[pump]]
    return times[1] - times[0]


async def measure_stops(house: House, gui: Gui, runs: int) -> list[float]:
    """Milliseconds from a stop to the last pin that is off."""
    found = []
    for _ in range(runs):
        await gui.say(Blend(0.5, {str(pump): 1.0 for pump in range(8)}))
        await until(lambda: sum(levels(house).values()) == 0)
        known = len(changes(house.pins))
        began = time.monotonic()
        await gui.say(Stop())
        await gui.hear(Status, lambda one: one.remaining_time == 0)
        offs = [one.at for one in changes(house.pins)[known : known + 8]]
        found.append((max(offs) - began) * 1000)
    return found


def levels(house: House) -> dict[int, bool]:
    """Pin -> level."""
    return {one.pin: one.level for one in changes(house.pins)}


async def echoes(port: int, seconds: float) -> float:
    """Round trips a second on one connection, one after the other."""
    async with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        await round_trips(connection, 0.2)
        return await round_trips(connection, seconds)


async def round_trips(connection: ClientConnection, seconds: float) -> float:
    began = time.perf_counter()
    done = 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(50):
            await connection.send(ECHO)
            await connection.recv()
        done += 50
    return done / passed


def p(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def show(name: str, values: Sequence[float]) -> None:
    print(
        f"{name:<7}p50 {statistics.median(values):6.2f} ms   p99 {p(values, 0.99):6.2f} ms"
        f"   max {max(values):6.2f} ms   of {len(values)}"
    )


async def measure(given: argparse.Namespace, directory: Path) -> bool:
    """Measure and print. True if every figure is reached."""
    runs, stops, turns = (100, 20, 6) if given.quick else (1000, 100, 12)
    house = House(directory)
    try:
        await asyncio.to_thread(house.start)
        async with Gui(house.port) as gui:
            await eventually(lambda: is_open(gui), 60)
            quick, exact = await measure_blends(house, gui, runs)
            show("blend", quick)
            show("off", exact)
            stopped = await measure_stops(house, gui, stops)
            show("stop", stopped)
        ratios = []
        for turn in range(turns):
            if turn % 2:  # who comes first is not always the same
                ours, bare = await echoes(house.port, 1.0), await echoes(house.bare.port, 1.0)
            else:
                bare, ours = await echoes(house.bare.port, 1.0), await echoes(house.port, 1.0)
            ratios.append(ours / bare)
            print(f"echo   {ours:8.0f} a second, the bare server {bare:8.0f}: {ours / bare:.2f}")
    finally:
        await asyncio.to_thread(house.stop)
    ratio = statistics.median(ratios)
    print(f"echo   {ratio:.2f} of the bare server (median)")
    reached = {
        "p99 from a GUI's blend to the pins under 20 ms": p(quick, 0.99) < 20,
        "p99 of a pump's time error under 10 ms": p([abs(one) for one in exact], 0.99) < 10,
        "every stop from a GUI to the pins under 50 ms": max(stopped) < 50,
        "echo at least 0.8 of a bare server": ratio >= 0.8,
    }
    return verdict(reached)


def main() -> int:
    """Measure, print, and exit with 1 if a figure is missed."""
    return run(measure, arguments(__doc__, "a tenth of the runs").parse_args())


if __name__ == "__main__":
    sys.exit(main())
