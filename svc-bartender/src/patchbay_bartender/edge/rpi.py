"""The pins of a Raspberry Pi, by RPi.GPIO (or rpi-lgpio, which has its name, on a Pi 5).

``setup`` with ``initial`` sets the level before the pin becomes an output, so a relay does not even
click. At the end pins stay the outputs that they are, at the level that was set: the kernel keeps
them, and relays stay off. RPi.GPIO's ``cleanup`` would make inputs of them, without a pull-up or
pull-down; what a relay board does with an open input is its maker's secret.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from patchbay.errors import SettingsError


class RpiGpio:
    """RPi.GPIO in BOARD numbering. ``release``: `close` gives the pins back as inputs."""

    name = "rpi"

    def __init__(self, *, release: bool) -> None:
        try:
            self._gpio: Any = importlib.import_module("RPi.GPIO")
        except (ImportError, RuntimeError) as error:  # RuntimeError: it says that this is no Pi
            raise SettingsError(
                f"[bartender] gpio: RPi.GPIO cannot be used ({error});"
                " install patchbay-bartender[pi], or set gpio to simulated"
            ) from error
        self._release = release
        self._pins: list[int] = []

    def setup(self, pins: Iterable[int], level: bool) -> None:
        gpio = self._gpio
        self._pins = list(pins)
        gpio.setwarnings(False)  # after a kill -9 it would warn of each: they are still outputs
        gpio.setmode(gpio.BOARD)
        for pin in self._pins:
            gpio.setup(pin, gpio.OUT, initial=gpio.HIGH if level else gpio.LOW)

    def output(self, pin: int, level: bool) -> None:
        self._gpio.output(pin, self._gpio.HIGH if level else self._gpio.LOW)

    def close(self) -> None:
        if self._release and self._pins:
            self._gpio.cleanup(self._pins)
