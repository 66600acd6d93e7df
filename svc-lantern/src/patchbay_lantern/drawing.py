"""How a lantern shows itself in a terminal: drawn in its true colour, or one line a change."""

from __future__ import annotations

import shutil
from typing import Final, TextIO

from patchbay_lantern.commands import COLOR, POWER, Light
from patchbay_lantern.messages import Order

WARM: Final = "ffc857"
"""The colour of a lantern that was told none."""

_PICTURE: Final = r"""
         .-----.
         |     |
        _|_____|_
      .'=========`.
     /=============\
     +-------------+
     |*****:::*****|
    /*****:::::*****\
    |****:::@:::****|
   /****:::@@@:::****\
   |****:::@@@:::****|
  /******:::@:::******\
  |********:::********|
  +===================+
 [=====================]
"""
"""``*`` glass, ``:`` and ``@`` the flame; the rest is metal."""

_ART: Final = tuple(line.ljust(25) for line in _PICTURE.strip("\n").split("\n"))

_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_PLAIN: Final = "\x1b[0m"
_OPEN: Final = "\x1b[?1049h\x1b[?25l"
"""The other screen, without a cursor: what was on the terminal is there again afterwards."""
_CLOSE: Final = "\x1b[?25h\x1b[?1049l"

_METAL: Final = (128, 136, 152)
_DARK: Final = (46, 50, 60)
_WHITE: Final = (255, 255, 255)

Rgb = tuple[int, int, int]


class Plain:
    """One line a change, for logs and tests."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def obeyed(self, order: Order, light: Light) -> None:
        self._say(order.command if order.value is None else f"{order.command} {order.value}")

    def connected(self, address: str) -> None:
        self._say(f"connected to {address}")

    def cut_off(self, address: str, why: str) -> None:
        self._say(f"cut off from {address}: {why}")

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class Drawn:
    """The lantern in true colour, on a screen of its own. Use it as a context manager."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._light = Light()
        self._line = "connecting ..."

    def __enter__(self) -> Drawn:
        self._write(_OPEN)
        self.draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_CLOSE)

    def obeyed(self, order: Order, light: Light) -> None:
        self._light = light
        self.draw()

    def connected(self, address: str) -> None:
        self._line = f"connected to {address}"
        self.draw()

    def cut_off(self, address: str, why: str) -> None:
        self._line = f"cut off from {address}: {why}; trying again every second"
        self.draw()

    def draw(self) -> None:
        """Draw all again; also when the terminal has another size."""
        columns, lines = shutil.get_terminal_size()
        self._write(screen(self._light, self._line, columns, lines))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def screen(light: Light, line: str, columns: int, lines: int) -> str:
    """What is written to a terminal of this size to show this lantern."""
    left = max(0, (columns - len(_ART[0])) // 2)
    room = max(0, columns - left)
    rows = [
        *(" " * left + _painted(row[:room], light) for row in _ART),
        "",
        _middle(words(light), columns),
        _middle(line, columns),
        _middle("Ctrl-C ends", columns),
    ]
    above = max(0, (lines - len(rows)) // 2)
    shown = [*[""] * above, *rows][: max(1, lines)]
    ends = f"{_PLAIN}{_REST_OF_LINE}\r\n".join(shown)
    return f"{_HOME}{ends}{_PLAIN}{_REST_OF_LINE}{_REST_OF_SCREEN}"


def words(light: Light) -> str:
    """How it shines, for people: ``on, #ff0000``."""
    said = ["not told anything yet" if light.on is None else "on" if light.on else "off"]
    if light.color is not None:
        said.append(f"#{light.color}")
    said += [
        f"{order.command.lower()} {order.value or ''}".strip()
        for what, order in light.orders.items()
        if what not in (POWER, COLOR)
    ]
    return ", ".join(said)


def _painted(row: str, light: Light) -> str:
    """A row of the picture with its colours."""
    red, green, blue = bytes.fromhex(light.color or WARM)
    lit: Rgb = (red, green, blue)
    inks: dict[str, Rgb] = {
        "*": lit if light.on else _DARK,
        ":": _mixed(lit, _WHITE, 0.45) if light.on else _DARK,
        "@": _mixed(lit, _WHITE, 0.85) if light.on else _DARK,
    }
    painted, ink = [], None
    for character in row:
        wanted = inks.get(character, _METAL)
        if wanted != ink:
            ink = wanted
            painted.append(f"\x1b[38;2;{wanted[0]};{wanted[1]};{wanted[2]}m")
        painted.append("█" if character in inks else character)
    return "".join(painted)


def _mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _middle(text: str, columns: int) -> str:
    return text[:columns].center(columns).rstrip()
