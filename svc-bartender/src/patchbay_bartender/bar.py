"""What is known of a bar: the state that the rules decide on, and the views of it.

One document holds all pumps and the run under way, since a run changes them together and a
standalone MongoDB has no transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct, field

from patchbay_bartender.messages import Kind, Number
from patchbay_bartender.messages import Pump as ShownPump

UNSETTLED: Final = 16
"""Runs that were given up and may still be heard of: their pumps were away when they ended."""

Status = Literal["ordered", "running", "done", "stopped", "failed"]
"""What the history says of a run."""

PHASES: Final[dict[Kind, Literal["blending", "refilling"]]] = {
    "blend": "blending",
    "refill": "refilling",
}


class Pump(Struct, kw_only=True):
    """A pump, and what it has pumped since its last refill."""

    enabled: bool = True
    refill_time: Number
    speed_ratio: Number = 1.0
    millilitres: float = 0.0
    refilled_at: datetime | None = None


class Run(Struct, kw_only=True):
    """A blend or refill, from the moment that it is decided."""

    id: str
    kind: Kind
    by: str
    ordered_at: datetime
    seconds: dict[str, float]
    """Pump -> seconds."""
    millilitres: dict[str, float]
    """Pump -> what it pumps in these seconds. A refill fills tubes: nothing."""
    started: bool = False
    """The pumps have said that it runs."""
    cup_size: Number | None = None
    ratios: dict[str, Number] | None = None
    command: str = ""
    """The id of the command that it answers, as `patchbay.bus.Request` has it."""
    request: str = ""
    """The same as whoever sent it knows it."""

    @property
    def total_s(self) -> float:
        """It lasts as long as its slowest pump."""
        return max(self.seconds.values())

    def pumped(self, ran: Mapping[str, float]) -> dict[str, float]:
        """Pump -> millilitres, for the seconds that each was really on."""
        return {
            pump: round(planned * min(1.0, ran.get(pump, 0.0) / self.seconds[pump]), 3)
            for pump, planned in self.millilitres.items()
        }


class Ended(Struct, kw_only=True):
    """How a run has ended, and what it has pumped: pump -> millilitres."""

    run: Run
    status: Status
    reason: str
    at: datetime
    pumped: dict[str, float]


class Bar(Struct, kw_only=True):
    """A bar. ``unsettled``: runs that were given up before the pumps said what became of them."""

    bar: str
    pumps: list[Pump]
    run: Run | None = None
    ended: Ended | None = None
    """The last run that has ended: a kill may come before the history has it."""
    unsettled: list[Run] = field(default_factory=list)

    def shown(self) -> list[ShownPump]:
        """The pumps as everybody may see them."""
        return [
            ShownPump(
                enabled=pump.enabled,
                refill_time=pump.refill_time,
                speed_ratio=pump.speed_ratio,
                millilitres=round(pump.millilitres, 3),
            )
            for pump in self.pumps
        ]
