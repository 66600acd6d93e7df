"""A guest for ``patchbay chaos``: after an error no pump goes on.

Each order is for the next pump, and for a cup of its own size: pins and documents name the order.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from patchbay.chaos.load import Load, Surroundings, Tally
from patchbay.health import instance_id
from patchbay.store import Store
from patchbay_bartender.edge.simulated import changes
from patchbay_bartender.settings import PUMPS, BartenderSettings
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Blend, Error, Status

CUP_L = 0.0016
STEP_L = 0.000001
INTERVAL_S = 0.8
ANSWER_S = 15.0
ROUNDING_ML = 0.5


@dataclass(slots=True)
class Order:
    """One blend. Times are on the monotonic clock, as those of the pins."""

    pump: int
    cup_l: float
    at: float
    outcome: Literal["accepted", "refused", "unknown"] = "unknown"
    answered_at: float = 0.0


class Guests(Load):
    """A GUI that orders one small drink after the other."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        settings = around.config.table("bartender", BartenderSettings)
        self._port = around.config.port(settings.port)
        self._bar = settings.bar
        self._pump_of = {pin: pump for pump, pin in enumerate(settings.pins)}
        units = around.state / "units" / instance_id("bartender.pumps")
        self._pins = units / "pins"
        self._orders: list[Order] = []

    async def run(self) -> None:
        while not self.quiet.is_set():
            try:
                # A connection for each: an error names no order, and one may come after the next.
                async with Gui(self._port, patience_s=ANSWER_S) as gui:
                    await self._order(gui)
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidMessage):
                pass
            await self.pause(INTERVAL_S)
        await asyncio.Event().wait()

    async def _order(self, gui: Gui) -> None:
        number = len(self._orders) + 1
        order = Order(number % PUMPS, round(CUP_L + number * STEP_L, 6), time.monotonic())
        self._orders.append(order)
        await gui.say(Blend(order.cup_l, {str(order.pump): 1.0}))
        answer = await gui.hear(Status | Error)  # type: ignore[arg-type]  # a union is a kind too
        order.answered_at = time.monotonic()
        if isinstance(answer, Error):
            order.outcome = "refused"
        elif answer.remaining_time > 0:
            order.outcome = "accepted"
            await gui.hear(Status, lambda one: one.remaining_time == 0)

    async def tally(self, store: Store) -> Tally:
        counts = Counter(order.outcome for order in self._orders)
        tally = Tally(counts["accepted"], counts["refused"], counts["unknown"])
        blends = await store.find("blends", {"bar": self._bar})
        by_cup = Counter(round(float(one["cup_size"]), 6) for one in blends)
        begun = self._begun()
        for order in self._orders:
            name = f"order of {order.cup_l * 1000:.3f} ml of pump {order.pump}"
            times = begun.get(order.cup_l, [])
            if times and not by_cup[order.cup_l]:
                tally.lost.append(f"{name}: poured, and no record")
            if by_cup[order.cup_l] > 1:
                tally.doubled.append(f"{name}: {by_cup[order.cup_l]} records")
            if len(times) > 1:
                tally.doubled.append(f"{name}: poured {len(times)} times")
            if order.outcome == "refused" and any(at > order.answered_at for at in times):
                late_s = max(times) - order.answered_at
                tally.late.append(f"{name}: poured {late_s:.1f} s after an error")
        self._compare_sums(tally, blends, await store.find("pumps", {"_id": self._bar}))
        return tally

    def _begun(self) -> dict[float, list[float]]:
        """Cup -> when the pump of its order went on: it is of the last order for that pump."""
        found: dict[float, list[float]] = {}
        on: set[int] = set()
        for change in changes(self._pins):
            pump = self._pump_of[change.pin]
            if change.level:
                on.discard(pump)
            elif pump not in on:
                on.add(pump)
                mine = [one for one in self._orders if one.pump == pump and one.at <= change.at]
                if mine:
                    found.setdefault(mine[-1].cup_l, []).append(change.at)
        return found

    def _compare_sums(
        self, tally: Tally, blends: list[dict[str, object]], bars: list[dict[str, object]]
    ) -> None:
        sums: Counter[int] = Counter()
        for blend in blends:
            poured = blend["millilitres"]
            if isinstance(poured, dict):
                for pump, millilitres in poured.items():
                    sums[int(pump)] += millilitres
        pumps = bars[0]["pumps"] if bars else []
        if isinstance(pumps, list):
            for number, pump in enumerate(pumps):
                if abs(pump["millilitres"] - sums[number]) > ROUNDING_ML:
                    tally.miscounted.append(
                        f"pump {number} counts {pump['millilitres']:.2f} ml,"
                        f" its blends {sums[number]:.2f} ml"
                    )
