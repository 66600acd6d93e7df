"""How often a unit may start itself again because it is stuck.

A restart that has healed nothing is repeated after 1, 2, 4, 8 and then every 10 minutes. The count
is in a file, since each process is a new one: ``<state>/units/<instance>/restarts``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

FIRST_S: Final = 60.0
LONGEST_S: Final = 600.0
LIMIT: Final = 1000
"""The count stops here."""


class Restarts:
    """The restarts of one instance that have healed nothing so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        with contextlib.suppress(OSError, ValueError):  # none yet, or not ours
            self.count = min(LIMIT, max(0, int(path.read_text(encoding="ascii")[:8])))

    @property
    def pause_s(self) -> float:
        """How long this process has to run before it may end because it is stuck."""
        return min(LONGEST_S, FIRST_S * 2.0 ** min(self.count - 1, 16)) if self.count else 0.0

    def add(self) -> None:
        """One more. A disk that is full, or read-only, keeps nobody from it."""
        self.count = min(LIMIT, self.count + 1)
        self._write()

    def healed(self) -> None:
        """The unit gets on: the next time is the first again."""
        if self.count:
            self.count = 0
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            if self.count:
                self._path.write_text(str(self.count), encoding="ascii")
            else:
                self._path.unlink(missing_ok=True)
