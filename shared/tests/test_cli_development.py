"""What ``patchbay test`` installs before the tests, which tests it runs, and what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from patchbay.cli import development
from patchbay.suite_times import shares
from patchbay.testing import PATIENCE_S

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


ROOT = Path(__file__).parents[2]
TWO_LEVELS = """
import pytest

def test_quick() -> None: ...

@pytest.mark.long
def test_matrix() -> None: ...

@pytest.mark.skip(reason="no such part here")
def test_of_a_part() -> None: ...
"""
FAILING = "def test_failing() -> None: assert False\n"


def run_tests(path: Path, *arguments: str) -> tuple[int, str]:
    """Run the one command that ``patchbay test`` runs for a file; its exit code and output.

    The file is outside the source tree, so it names the tree's configuration and plugin.
    """
    here = (f"--config-file={ROOT / 'pyproject.toml'}", "-p", "patchbay.suite_times")
    ((_, command),) = development._test_runs([str(path), *here, *arguments])
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def two_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("levels") / "suite" / "test_two_levels.py"
    path.parent.mkdir()
    path.write_text(TWO_LEVELS)
    return path


@pytest.fixture(scope="module")
def quick_run(two_levels: Path) -> tuple[int, str]:
    return run_tests(two_levels)


def test_long_tests_run_only_when_asked_for(two_levels: Path, quick_run: tuple[int, str]) -> None:
    code, output = quick_run
    assert (code, "1 passed, 1 skipped" in output) == (0, True), output
    code, output = run_tests(two_levels, "--long")
    assert (code, "2 passed, 1 skipped" in output) == (0, True), output
    code, output = run_tests(two_levels, "--long", "-k", "matrix")
    assert (code, "1 passed in" in output) == (0, True), output


def test_a_skipped_test_prints_why(quick_run: tuple[int, str]) -> None:
    assert "no such part here" in quick_run[1]


def test_a_test_that_fails_fails_the_run(two_levels: Path) -> None:
    (two_levels.parent / "test_failing.py").write_text(FAILING)
    assert run_tests(two_levels.parent)[0] == 1


def test_each_suite_has_its_share_of_the_time(quick_run: tuple[int, str]) -> None:
    output = quick_run[1]
    assert " time by suite " in output
    assert "100.0 %" in output


def test_the_slowest_suite_comes_first() -> None:
    times = [("a/test_x.py::test_1", 1.0), ("b/test_y.py::test_2", 2.0), ("a/test_z.py::t", 0.0)]
    assert [line.split() for line in shares(times)] == [
        ["2.0", "s", "66.7", "%", "b"],
        ["1.0", "s", "33.3", "%", "a"],
    ]
