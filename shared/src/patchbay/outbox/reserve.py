"""Room on the disk that is kept for the day when there is none.

To forget what is acknowledged SQLite has to write, into its log and then into its file. On a disk
that is full, perhaps of the outbox itself, it could not, and nothing would ever leave. So a file
lies beside the outbox that only takes up room. When there is no other room left it is removed, and
made again before anything new is taken in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SIZE: Final = 4 * 1024 * 1024
"""The log has some 1,000 pages of 4 KiB before SQLite moves them into its file, which has to grow
by as much in the worst case. A disk on which there is no room for this either counts as full."""


class Reserve:
    """The file. On systems that cannot set room aside there is none, and `hold` always holds."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self.held = False

    def hold(self) -> bool:
        """Take the room. False if there is not so much."""
        if not self.held:
            self.held = self._take()
            if not self.held:
                self.release()
        return self.held

    def release(self) -> None:
        """Give the room back."""
        self.held = False
        self._path.unlink(missing_ok=True)

    def _take(self) -> bool:
        if not hasattr(os, "posix_fallocate"):
            return True
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(file, 0, self._size)
        except OSError:
            return False
        finally:
            os.close(file)
        return True
