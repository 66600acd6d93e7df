"""The pins of the machine, as the pumps' edge sees them: three methods, and who has them.

A pin is numbered as on the board's header (BOARD), a level is high (True) or low (False). What a
level does to a pump is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, Protocol

MODEL: Final = Path("/proc/device-tree/model")
"""Where Linux says what board it runs on."""


class Gpio(Protocol):
    """Pins that can be switched. Called by one thread at a time."""

    name: str
    """``rpi`` or ``simulated``: everybody may see which."""

    def setup(self, pins: Iterable[int], level: bool) -> None:
        """Make outputs of these pins; none shows the other level even for a moment."""

    def output(self, pin: int, level: bool) -> None:
        """Set the level of a pin."""

    def close(self) -> None:
        """We go. Levels were set before."""


def choose(
    gpio: Literal["auto", "rpi", "simulated"],
    *,
    demo: bool,
    file: Path,
    release: bool,
    model: Path = MODEL,
) -> Gpio:
    """The driver that the settings and the machine ask for.

    A demo never moves a real pump unless it is told to. ``file`` is for simulated pins, ``release``
    for real ones. Raises SettingsError on a Raspberry Pi without RPi.GPIO: pumps that only seem to
    run would be the worst of all.
    """
    if gpio == "rpi" or (gpio == "auto" and not demo and _is_raspberry(model)):
        from patchbay_bartender.edge.rpi import RpiGpio

        return RpiGpio(release=release)
    from patchbay_bartender.edge.simulated import SimulatedGpio

    return SimulatedGpio(file)


def _is_raspberry(model: Path) -> bool:
    try:
        return "raspberry pi" in model.read_text(errors="replace").lower()
    except OSError:
        return False
