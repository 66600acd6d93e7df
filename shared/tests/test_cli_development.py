"""What ``patchbay test`` sees to before the tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from patchbay.cli import development

APT_GET = """#!/bin/sh
echo "$*" >> {log}
case "$*" in *install*) {effect} ;; esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory that programs are found in; no browser is there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("env", "cp"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tools


def ask_for_a_browser() -> None:
    development._ask_for("chromium", development.chromium, "the tests of pages")


def apt_get(tools: Path, effect: str) -> Path:
    """An apt-get that writes down what it is asked for. Returns that file."""
    log = tools.parent / "apt.log"
    program = tools / "apt-get"
    program.write_text(APT_GET.format(log=log, effect=effect))
    program.chmod(0o755)
    return log


def test_a_browser_that_is_missing_is_asked_for_once(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = apt_get(tools, f"cp {tools}/apt-get {tools}/chromium")
    ask_for_a_browser()
    assert log.read_text().splitlines() == ["-q update", "-q -y --no-remove install chromium"]
    assert development.chromium() == str(tools / "chromium")
    assert "is missing: asking apt-get" in capsys.readouterr().out
    ask_for_a_browser()
    assert len(log.read_text().splitlines()) == 2


def test_where_it_cannot_be_had_that_is_said(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apt_get(tools, "exit 100")
    ask_for_a_browser()
    assert development.chromium() is None
    assert "the tests of pages are skipped" in capsys.readouterr().out


def test_without_apt_get_nothing_is_asked(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask_for_a_browser()
    assert capsys.readouterr().out == ""
    assert development.chromium() is None
