"""What the person at the terminal sees while `up` starts: on stderr, stdout is for results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TextIO


class Progress:
    """One line that is written over on a terminal, a line for every change elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._overwrite = self._stream.isatty()
        self._waiting = ""

    def waiting(self, names: Sequence[str]) -> None:
        """Say what is waited for, if that has changed."""
        text = f"waiting for {', '.join(names)}" if names else ""
        if text == self._waiting:
            return
        self._waiting = text
        if self._overwrite:
            self._write(f"\r\033[K{text}")
        elif text:
            self._write(f"patchbay: {text}\n")

    def say(self, text: str) -> None:
        """Say something that stays."""
        self.waiting([])
        self._write(f"patchbay: {text}\n")

    def _write(self, text: str) -> None:
        # Nobody may read us any more: that must not keep `up` from running, or from cleaning up.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
