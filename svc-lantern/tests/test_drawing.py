"""How a lantern shows itself in a terminal."""

from __future__ import annotations

import io
import re

import pytest

from patchbay_lantern.commands import COMMANDS, Light
from patchbay_lantern.drawing import Drawn, Plain, screen, words
from patchbay_lantern.messages import Order

RED = "\x1b[38;2;255;0;0m"


def shining(*orders: Order) -> Light:
    light = Light()
    for order in orders:
        light = COMMANDS.obey(light, order)
    return light


ON_RED = shining(Order("COLOR", "ff0000"), Order("ON"))
OFF_RED = shining(Order("COLOR", "ff0000"), Order("OFF"))


def test_a_lit_lantern_has_its_true_colour_and_a_dark_one_has_not() -> None:
    assert f"{RED}███" in screen(ON_RED, "connected", 80, 24)
    assert RED not in screen(OFF_RED, "connected", 80, 24)
    assert RED not in screen(Light(), "connected", 80, 24)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 60), (25, 19), (10, 5), (1, 1)])
def test_nothing_is_written_beyond_the_terminal(columns: int, lines: int) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen(ON_RED, "x" * 300, columns, lines))
    rows = shown.split("\r\n")
    assert len(rows) <= lines
    assert max(map(len, rows)) <= columns


@pytest.mark.parametrize(
    ("light", "said"),
    [
        (Light(), "not told anything yet"),
        (ON_RED, "on, #ff0000"),
        (OFF_RED, "off, #ff0000"),
        (Light({"brightness": Order("BRIGHTNESS", "7")}), "not told anything yet, brightness 7"),
    ],
)
def test_it_says_how_it_shines(light: Light, said: str) -> None:
    assert words(light) == said


def test_the_terminal_is_as_before_afterwards() -> None:
    out = io.StringIO()
    with Drawn(out) as view:
        view.connected("a:1")
        view.obeyed(Order("ON"), ON_RED)
        view.cut_off("a:1", "gone")
    text = out.getvalue()
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert text.endswith("\x1b[?25h\x1b[?1049l")
    assert "cut off from a:1: gone" in text


def test_plain_is_one_line_a_change() -> None:
    out = io.StringIO()
    view = Plain(out)
    view.connected("a:1")
    view.obeyed(Order("COLOR", "ff0000"), Light())
    view.obeyed(Order("ON"), Light())
    view.cut_off("a:1", "gone")
    assert out.getvalue().splitlines() == [
        "connected to a:1",
        "COLOR ff0000",
        "ON",
        "cut off from a:1: gone",
    ]
