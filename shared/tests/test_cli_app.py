from __future__ import annotations

import sys

import pytest

from patchbay import __version__
from patchbay.cli.app import build, run
from patchbay.services import discover

OURS = {"broker", "store"}


def groups(*argv: str) -> set[str | None]:
    """The groups of services."""
    found = {group.name for group in build(argv).registered_groups}
    assert found >= OURS
    return found - OURS


def test_help_knows_the_group_of_each_service() -> None:
    assert {one.name for one in discover().values() if one.cli} == groups("--help")


def test_a_command_of_ours_loads_no_service() -> None:
    assert groups("status", "--json") == set()
    assert groups("broker", "users") == set()


def test_a_group_loads_its_own_service_only() -> None:
    assert groups("locker", "boards") == {"locker"}


def test_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["patchbay", "--version"])
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_error_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["patchbay", "up", "--only", "nothing"])
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("patchbay: nothing: no such service")
