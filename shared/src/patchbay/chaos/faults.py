"""The faults of a run: drawn from a seed before it begins, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from patchbay.chaos.link import Way
from patchbay.chaos.store_link import How

Kind = Literal["kill", "freeze", "stall", "cut", "delay", "refuse", "writes"]

KINDS: Final[dict[Kind, int]] = {
    "kill": 4,
    "freeze": 4,
    "stall": 4,
    "cut": 2,
    "delay": 1,
    "refuse": 1,
    "writes": 4,
}
"""How often each is drawn, in proportion."""

CODES: Final = (
    (14031, "OutOfDiskSpace"),
    (8000, "AtlasError"),
    (112, "WriteConflict"),
    (91, "ShutdownInProgress"),
    (13388, "StaleConfig"),
)
"""Errors that are no document's own fault."""

WAYS: Final[tuple[Way, ...]] = ("both", "up", "down")
HOWS: Final[tuple[How, ...]] = ("command", "documents", "write concern", "lands", "hangs")
DURATIONS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
PAUSES_S: Final = (0.2, 2.5)
"""From the beginning of a fault to the next: some are there at once."""

BROKER: Final = "broker"
STORE: Final = "store"


class Fault(NamedTuple):
    """One fault. ``at`` is seconds after the start; ``target`` a unit, the broker or the store."""

    at: float
    kind: Kind
    target: str
    seconds: float
    way: Way = "both"
    code: tuple[int, str] = (8000, "AtlasError")
    how: How = "command"

    def __str__(self) -> str:
        seconds = f"for {self.seconds:g} s"
        match self.kind:
            case "kill":
                return f"kill {self.target}"
            case "freeze":
                return f"freeze {self.target} {seconds}"
            case "stall":
                return f"stall the broker link of {self.target} ({self.way}) {seconds}"
            case "cut":
                return f"cut the links of {self.target}"
            case "delay":
                return f"delay the broker link of {self.target} {seconds}"
            case "refuse":
                return f"refuse connections of {self.target} {seconds}"
            case "writes":
                return f"refuse writes of {self.target} ({self.code[0]}, {self.how}) {seconds}"


def schedule(seed: int, seconds: float, units: Sequence[str]) -> list[Fault]:
    """The faults of a run over so many seconds, in order. A target has one fault at a time."""
    chance = random.Random(seed)
    domains = [unit for unit in units if unit.endswith(".domain")]
    free_at: dict[str, float] = {}
    found: list[Fault] = []
    at = chance.uniform(*PAUSES_S)
    while at < seconds:
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        if kind in ("kill", "freeze"):
            target = chance.choice([*units, BROKER, STORE])
        else:
            target = chance.choice(domains if kind == "writes" else list(units))
        lasts = 0.0 if kind in ("kill", "cut") else chance.choice(DURATIONS_S)
        lasts = min(lasts, max(0.5, seconds - at))
        fault = Fault(
            at,
            kind,
            target,
            lasts,
            chance.choice(WAYS),
            chance.choice(CODES),
            chance.choice(HOWS),
        )
        if free_at.get(target, 0.0) <= at:
            found.append(fault)
            free_at[target] = at + lasts + 0.1
        at += chance.uniform(*PAUSES_S)
    return found
