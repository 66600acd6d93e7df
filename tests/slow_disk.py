"""A disk on which each commit of an outbox lasts until the test lets it go on, or fail."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from patchbay.outbox import Journal
from patchbay.testing import PATIENCE_S


class SlowDisk:
    """Stands before `Journal.commit`. ``holds``: the rows of commits that it holds back."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, holds: Callable[[list[Any]], bool] = lambda _: True
    ) -> None:
        self.begun = 0
        """Commits that were held back."""
        self._commit = Journal.commit
        self._holds = holds
        self._let = threading.Semaphore(0)
        self._error: Exception | None = None
        self._free = False
        monkeypatch.setattr(Journal, "commit", lambda *what: self._commits(*what))

    def _commits(self, journal: Journal, rows: list[Any], *what: Any) -> None:
        if self._holds(rows) and not self._free:
            self.begun += 1
            assert self._let.acquire(timeout=PATIENCE_S)
            error, self._error = self._error, None
            if error is not None:
                raise error
        self._commit(journal, rows, *what)

    def go_on(self) -> None:
        """Let one commit end."""
        self._let.release()

    def fail(self) -> None:
        """Let one commit fail: there is no room."""
        self._error = sqlite3.OperationalError("database or disk is full")
        self._let.release()

    def free(self) -> None:
        """Hold no commit back from now on."""
        self._free = True
        self._let.release()
