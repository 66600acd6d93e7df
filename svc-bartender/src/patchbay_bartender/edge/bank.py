"""The pumps and their times. The one place that switches anything on, and it never does without
saying when it goes off.

    Bank.start(seconds) ---> on, each until its own time
    Bank.sweep()        ---> off, whatever is due      (the loop's timer, and the watchdog's thread)
    Bank.stop()         ---> all off, at once

Every method may be called from any thread. The clock is passed in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from patchbay_bartender.edge.pins import Gpio


class Bank:
    """All pumps of a machine: number -> pin, by position in ``pins``. ``with`` it: off, in and out.

    No pump is on for longer than ``max_run_s``, whatever is asked.
    """

    def __init__(
        self,
        gpio: Gpio,
        pins: Sequence[int],
        *,
        active_low: bool,
        max_run_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.began_at = 0.0
        """When all pins were off at the start, on the clock."""
        self._gpio = gpio
        self._pins = tuple(pins)
        self._on_level = not active_low
        self._max_run_s = max_run_s
        self._lock = threading.RLock()
        self._since: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._ran: dict[int, float] = {}
        self._cut_off = ""

    def __enter__(self) -> Self:
        with self._lock:
            self._gpio.setup(self._pins, not self._on_level)
            self.began_at = self.clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            try:
                self._all_off()
            finally:
                self._gpio.close()

    @property
    def driver(self) -> str:
        """The name of the pins' driver."""
        return self._gpio.name

    @property
    def on(self) -> list[int]:
        """The pumps that are on now."""
        with self._lock:
            return sorted(self._due)

    @property
    def due(self) -> float | None:
        """When the next pump goes off, on the clock; None while all are off."""
        with self._lock:
            return min(self._due.values(), default=None)

    @property
    def ran(self) -> dict[int, float]:
        """Pump -> seconds that it was on, of the last `start`; of those that are off again."""
        with self._lock:
            return dict(self._ran)

    @property
    def cut_off(self) -> str:
        """Why the pumps of the last `start` were stopped before their time; empty if they were not,
        or nobody has said why."""
        with self._lock:
            return self._cut_off

    def remaining(self) -> float:
        """Seconds until all are off."""
        with self._lock:
            return max(0.0, max(self._due.values(), default=0.0) - self.clock())

    def start(self, seconds: Mapping[int, float]) -> None:
        """Switch pumps on, each for its seconds. All must be off.

        If one cannot be switched on, none stays on, and the error comes out.
        """
        with self._lock:
            if self._due:
                raise RuntimeError("pumps are on")
            self._ran = {}
            self._cut_off = ""
            try:
                for pump, wanted in seconds.items():
                    now = self.clock()
                    # Before the pin: who looks at the times in between switches it off, not over.
                    self._since[pump] = now
                    self._due[pump] = now + min(wanted, self._max_run_s)
                    self._gpio.output(self._pins[pump], self._on_level)
            except BaseException:
                self._all_off()
                raise

    def sweep(self) -> list[int]:
        """Switch off what is due. Returns which."""
        with self._lock:
            now = self.clock()
            over = [pump for pump, due in self._due.items() if due <= now]
            for pump in over:
                self._off(pump)
            return over

    def stop(self, why: str = "") -> list[int]:
        """Switch all off, now. Returns what was on."""
        with self._lock:
            was = sorted(self._due)
            if was:
                self._cut_off = why
            self._all_off()
            return was

    def _all_off(self) -> None:
        """Every pin, also of pumps that should be off: this is the moment to be sure."""
        failed: BaseException | None = None
        for pump in range(len(self._pins)):
            try:
                self._off(pump)
            except BaseException as error:  # the others go off all the same
                failed = error
        if failed is not None:
            raise failed

    def _off(self, pump: int) -> None:
        self._gpio.output(self._pins[pump], not self._on_level)
        if self._due.pop(pump, None) is not None:
            self._ran[pump] = self.clock() - self._since.pop(pump)
