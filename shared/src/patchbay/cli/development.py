"""``check`` and ``test``: is this source tree as it should be?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import typer

_ROOT: Final = Path(__file__).resolve().parents[4]
_CONTAINERS: Final = "tests/containers"
_MOST_WORKERS: Final = 4
_LONG: Final = "--long"

_BROWSER: Final = "chromium"
"""The package, and what it installs: Debian's and Raspberry Pi OS's name for it."""

_FAKETIME: Final = "faketime"
_FAKETIME_LIBRARY: Final = "*/faketime/libfaketimeMT.so.1"

_STRACE: Final = "strace"

_SYSTEMD: Final = "systemd"
_SYSTEMD_INIT: Final = "/lib/systemd/systemd"


def check() -> None:
    """Check formatting, lint, types and import rules; the exit code is 0 when all are right."""
    raise typer.Exit(0 if _check(_need_root()) else 1)


def test(context: typer.Context) -> None:
    """Run `check`, then the tests: a file at a time on each of a few cores, then those in
    containers, which share one engine. --long runs those with the marker `long`, too. Other
    arguments go to pytest."""
    root = _need_root()
    passed = _check(root)
    _ask_for(_BROWSER, chromium, "the tests of pages")
    _ask_for(_FAKETIME, faketime, "the tests of clocks that jump")
    _ask_for(_SYSTEMD, systemd, "the tests of the service of systemd")
    _ask_for(_STRACE, strace, "the tests of power cuts")
    for name, command in _test_runs(context.args):
        passed &= _passes(name, command, root)
    raise typer.Exit(0 if passed else 1)


def _test_runs(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and command of each run of pytest for these arguments of `test`."""
    rest = [argument for argument in arguments if argument != _LONG]
    pytest = [sys.executable, "-m", "pytest"]
    if _LONG in arguments:
        pytest += ["-m", ""]  # no expression in the place of "not long", which pyproject.toml has
    spread = [*pytest, "--dist=loadfile", "--no-loadscope-reorder", f"--numprocesses={_workers()}"]
    if any(_CONTAINERS in argument for argument in rest):
        return [("tests", [*pytest, *rest])]
    if rest:
        return [("tests", [*spread, *rest])]
    return [
        ("tests", [*spread, f"--ignore={_CONTAINERS}"]),
        ("containers", [*pytest, _CONTAINERS]),
    ]


def _workers() -> int:
    """Test processes at a time: one more than cores, since they wait for most of the time.
    Each has a broker and a store of its own, and loads of its own."""
    return min(len(os.sched_getaffinity(0)) + 1, _MOST_WORKERS)


def chromium() -> str | None:
    """The browser that tests of pages run in, or None if there is none."""
    return shutil.which(_BROWSER) or shutil.which("chromium-browser")


def faketime() -> str | None:
    """The library that gives a process another wall clock, or None if there is none."""
    found = sorted(Path("/usr/lib").glob(_FAKETIME_LIBRARY))
    return str(found[0]) if found else None


def systemd() -> str | None:
    """The systemd that tests start in namespaces of its own, or None if there is none."""
    return _SYSTEMD_INIT if os.access(_SYSTEMD_INIT, os.X_OK) else None


def strace() -> str | None:
    """The program that records what is written, or None if there is none."""
    return shutil.which(_STRACE)


def _ask_for(package: str, program: Callable[[], str | None], tests: str) -> None:
    """Have the system's packages install what tests start, where we may. Without it those tests are
    skipped. ``program`` finds it.

    Only here, and not with the rest of the set-up: to run Patchbay nobody needs it.
    """
    if program() is not None or shutil.which("apt-get") is None:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and shutil.which("sudo") is None:
        return
    print(f"patchbay: {package}, for {tests}, is missing: asking apt-get for it")
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    for command in ([*apt, "update"], [*apt, "-y", "--no-remove", "install", package]):
        subprocess.run(command, check=False, capture_output=True)
    if program() is None:
        print(f"patchbay: no {package}: {tests} are skipped")


def _need_root() -> Path:
    """The source tree that we were installed from, in place."""
    if not (_ROOT / "requirements.in").exists():
        print("patchbay: this needs the source tree: run it with ./patchbay", file=sys.stderr)
        raise typer.Exit(1)
    return _ROOT


def _check(root: Path) -> bool:
    tools = Path(sys.executable).parent
    sources = [str(path) for path in (root / "shared/src", *sorted(root.glob("svc-*/src")))]
    return all(
        [  # A list, so that each runs whatever the one before it found.
            _passes("format", [str(tools / "ruff"), "format", "--check", "--quiet", "."], root),
            _passes("lint", [str(tools / "ruff"), "check", "--quiet", "."], root),
            _passes("types", [sys.executable, "-m", "mypy", "--no-error-summary", *sources], root),
            _passes("imports", [str(tools / "lint-imports"), "--no-logo"], root, quiet=True),
        ]
    )


def _passes(name: str, command: list[str], root: Path, *, quiet: bool = False) -> bool:
    """Run it and say ok or FAILED; ``quiet``: show what it said only then."""
    # Tools of ours must be found by those of ours that start them.
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    sys.stdout.flush()
    done = subprocess.run(
        command, cwd=root, env=environ, check=False, capture_output=quiet, text=True
    )
    passed = done.returncode == 0
    if quiet and not passed:
        print(done.stdout, done.stderr)
    print(f"{name:<8} {'ok' if passed else 'FAILED'}", flush=True)
    return passed
