"""What a service brings for ``patchbay chaos``: devices that make a load, and their ledger."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from patchbay.settings import Config
from patchbay.store import Store


@dataclass(slots=True)
class Tally:
    """What became of what the device ports accepted. Each list names what is wrong."""

    accepted: int = 0
    """Answered as done, or as taken."""
    refused: int = 0
    """Answered with an error."""
    unknown: int = 0
    """Not answered, or answered as unknown: it may have acted or not."""
    lost: list[str] = field(default_factory=list)
    """Accepted, and not there."""
    doubled: list[str] = field(default_factory=list)
    """There twice, or done twice."""
    miscounted: list[str] = field(default_factory=list)
    """Counters that differ from what they count."""
    late: list[str] = field(default_factory=list)
    """Acted after an error."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """The four lists that have to be empty."""
        return {
            "lost": self.lost,
            "doubled": self.doubled,
            "miscounted": self.miscounted,
            "late": self.late,
        }

    @property
    def missing(self) -> int:
        """How much there is that more time could bring or put right."""
        return len(self.lost) + len(self.miscounted)

    @property
    def clean(self) -> bool:
        """All four are empty, of something: where nothing was accepted nothing was shown."""
        return self.accepted > 0 and not any(self.faults.values())


class Surroundings(NamedTuple):
    """What a load may use."""

    config: Config
    """The settings of the units: ports, and the state directory."""
    state: Path
    chance: random.Random
    pid: Callable[[str], int]
    """The process that runs a unit now."""


class Load(ABC):
    """The devices of one service. A service names its own subclass in `Service.chaos`.

    ``settings``: what its units are given besides the usual, as ``ALLOCATOR__PORT`` -> text.
    """

    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.quiet = asyncio.Event()
        """Set when nothing new is to be requested."""

    @abstractmethod
    async def run(self) -> None:
        """Make load until `quiet`, then stay connected until cancelled: devices that are told
        something late have to see it. Failures of ours are handled here, as a device does."""

    @abstractmethod
    async def tally(self, store: Store) -> Tally:
        """Compare the ledger with the store. Raises Unavailable."""

    async def pause(self, seconds: float) -> None:
        """Sleep about so long, or until `quiet`."""
        try:
            async with asyncio.timeout(seconds * self.around.chance.uniform(0.5, 1.5)):
                await self.quiet.wait()
        except TimeoutError:
            pass
