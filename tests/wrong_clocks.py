"""A wall clock of a process's own, which the test sets while the process runs (libfaketime).

Only the wall clock: CLOCK_MONOTONIC and CLOCK_BOOTTIME stay the machine's, as after a step.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from patchbay.cli.development import faketime
from tests.house import UnitPart

DAY_S = 86_400
YEARS_S = 54 * 365 * DAY_S


class WallClock:
    """The wall clock of one or more processes, and whether NTP has set it."""

    def __init__(self, directory: Path, name: str) -> None:
        library = faketime()
        if library is None:
            pytest.skip("faketime is not installed: apt-get install faketime")
        self._file = directory / f"{name}.clock"
        self._synchronized = directory / f"{name}.synchronized"
        self.ahead_s = 0.0
        self.steps_to(0.0)
        self.synchronizes()
        self.environ = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PATCHBAY_RUNTIME__CLOCK_SYNCED_FILE": str(self._synchronized),
        }

    def of(self, *units: UnitPart, **settings: object) -> None:
        """Give it to units that are not started yet, with these settings."""
        for unit in units:
            unit.environ.update(self.environ)
            unit.environ.update({f"PATCHBAY_{key}": str(value) for key, value in settings.items()})

    def steps_to(self, ahead_s: float) -> None:
        """From now on it is this many seconds ahead of the machine's."""
        self.ahead_s = ahead_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+.0f}\n")
        new.replace(self._file)

    def goes_to_1970(self) -> None:
        """As a machine without a real-time clock boots."""
        self.steps_to(-round(time.time()) + 300)

    def synchronizes(self) -> None:
        self._synchronized.touch()

    def is_not_synchronized(self) -> None:
        self._synchronized.unlink(missing_ok=True)
