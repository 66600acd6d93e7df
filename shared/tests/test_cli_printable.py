"""What devices and people name things never reaches a terminal as a command to it."""

from __future__ import annotations

import json

import pytest

from patchbay.cli.client import print_json, print_table
from patchbay.cli.printable import echo, printable, printable_json

HOSTILE = "a\x1b]0;owned\x07b\x9b31mc\u202egpj.exe\x7f\x00\r\u2066\U000e0001"


def is_safe(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


def test_names_stay_as_they_are() -> None:
    for name in ("이름", "Grüße 🎉", "a b", ""):
        assert printable(name) == name
        assert printable_json(f'"{name}"') == f'"{name}"'


def test_a_hostile_name_is_spelled_out_wherever_it_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table("jobs", ["client"], [[HOSTILE], [[HOSTILE]], [f"{HOSTILE}\ntwo"]])
    print_json({HOSTILE: HOSTILE})
    echo(f"refused: {HOSTILE}\nnext line")
    echo(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert is_safe(printed.out)
    assert is_safe(printed.err)
    assert r"\x1b]0;owned" in printed.out
    assert r"\x1b]0;owned" in printed.err


def test_json_with_a_hostile_name_says_the_same() -> None:
    text = printable_json(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False, indent=2))
    assert json.loads(text) == {HOSTILE: HOSTILE}
