"""Which runs the pumps' edge knows, in the outbox's file: none of them is begun a second time.

``run/<id>`` is a note of each run that was ever answered, the newest of them; ``current`` is the
one under way. What stands there when a process starts was cut off by a kill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from patchbay.messages import encode
from patchbay.outbox import Outbox

REMEMBERED: Final = 1000
"""Runs that are remembered: hours of them, and the scheduler confirms none of those again."""

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_RUN = "run/"
_CURRENT = "current"


class Begun(Struct, frozen=True, kw_only=True):
    """A run that was begun: ``at`` on the monotonic clock of ``boot``."""

    run_id: str
    seconds: dict[str, float]
    at: float
    boot: str


class Runs:
    """The runs of one edge. What it notes is on disk after the outbox's commit."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        noted = sorted((value, name) for name, value in outbox.read_notes(_RUN, int).items())
        self._known: dict[str, int] = {name: number for number, name in noted}
        self._next = noted[-1][0] + 1 if noted else 1
        self.cut_off: Begun | None = outbox.read_notes(_CURRENT, _begun).get("")
        """The run that a process before us had begun and did not end."""
        self.last: str | None = self.cut_off.run_id if self.cut_off else None
        """The last run that was begun, as far as this process knows."""
        self._current = self.last
        """The run of the note ``current``, if there is one."""

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._known

    def remember(self, run_id: str) -> None:
        """It has had its answer, and gets no other."""
        self._known[run_id] = self._next
        self._outbox.note(_RUN + run_id, str(self._next).encode())
        self._next += 1
        while len(self._known) > REMEMBERED:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._outbox.note(_RUN + oldest, None)

    def begin(self, begun: Begun) -> None:
        """It is begun once this is on disk."""
        self.remember(begun.run_id)
        self.last = self._current = begun.run_id
        self._outbox.note(_CURRENT, encode(begun))

    def end(self, run_id: str) -> None:
        """This run is over. It may be said again, also when another one is under way."""
        if self.cut_off is not None and self.cut_off.run_id == run_id:
            self.cut_off = None
        if self._current == run_id:
            self._outbox.note(_CURRENT, None)


def _begun(note: bytes) -> Begun:
    return msgspec.json.decode(note, type=Begun)


def estimate(begun: Begun, off_at: float, boot: str) -> dict[str, float]:
    """Pump -> seconds that a run that was cut off has run, as far as one can tell.

    The pins kept their levels until we switched them off, at ``off_at``. Of a pump it is

    - right, if its own timer had switched it off;
    - too much by what it took to write the run down, some milliseconds and never more than
      ``start_deadline_s``, if it was on until we came and its time was not over;
    - too little by less than the time without a process, if its time was over in that time;
    - too much by no more than that time and the write, if the kill came between write and pins.

    After a reboot nothing can be told, and what was ordered counts: a bottle that is thought
    emptier than it is does less harm.
    """
    passed = off_at - begun.at if boot and boot == begun.boot else float("inf")
    return {pump: max(0.0, min(wanted, passed)) for pump, wanted in begun.seconds.items()}


def boot_id(path: Path = BOOT_ID) -> str:
    """What tells one run of the machine from another; empty where nothing does."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
