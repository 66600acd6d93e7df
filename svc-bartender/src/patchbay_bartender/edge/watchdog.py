"""Switches pumps off when nobody else does: a thread beside the event loop.

The loop says every tenth of a second that it turns, for as long as a pump is on. If it has not for
``limit_s``, it could not hear a stop either, so everything goes off. A pump that is past its time,
because the loop is late but not dead, is switched off too. While all pumps are off the thread
sleeps, and costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from patchbay_bartender.edge.bank import Bank

BEAT_S: Final = 0.1
"""How often the loop says that it turns."""

LOOK_S: Final = 0.05
"""How often the thread looks."""


class Watchdog:
    """Watches one bank. ``with`` it; `beat` before pumps go on and while they are, `arm` as soon as
    they are on: a thread that finds them all off sleeps again.

    ``barked`` is called in the thread, after everything was switched off, with the reason.
    """

    def __init__(self, bank: Bank, limit_s: float, barked: Callable[[str], None]) -> None:
        self._bank = bank
        self._limit_s = limit_s
        self._barked = barked
        self._beat_at = 0.0
        self._armed = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self._armed.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Does it watch? Without it no pump may go on."""
        return self._thread.is_alive()

    def arm(self) -> None:
        """Pumps are on."""
        self._armed.set()

    def beat(self) -> None:
        """The loop turns."""
        self._beat_at = self._bank.clock()

    def look(self) -> str:
        """Look once, and do what has to be done. Returns why it barked, or nothing."""
        silent_s = self._bank.clock() - self._beat_at
        if silent_s > self._limit_s:
            reason = f"the event loop was blocked for {silent_s:.1f} s"
            if self._bank.stop(reason):
                return reason
        self._bank.sweep()
        return ""

    def _watch(self) -> None:
        wait = threading.Event()
        while not self._closing:
            self._armed.wait()
            self._armed.clear()
            while not self._closing and self._bank.on:
                wait.wait(LOOK_S)
                try:
                    reason = self.look()
                except Exception as error:  # the outermost loop of this thread
                    reason = f"the watchdog failed: {error!r}"
                if reason:
                    self._barked(reason)
