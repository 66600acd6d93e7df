"""``health``: is a unit of this machine alive, and not stuck?

Compose asks each unit twice a minute, on a Pi too. So this reads a file and imports no more than
that takes: no typer, no argparse where nothing is asked but "all that ran here" and, where a state
directory is given, no settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from patchbay.errors import PatchbayError
from patchbay.health import check

if TYPE_CHECKING:
    from pathlib import Path

_STATE_VARIABLE: Final = "PATCHBAY_RUNTIME__STATE_DIR"


class _Asked(NamedTuple):
    """The options of the command; nothing is said by itself."""

    unit: str | None = None
    instance: str | None = None
    state: str | None = None
    config: Path | None = None
    ready: bool = False


def main(arguments: Sequence[str]) -> int:
    """The command, without its name. Says what it found; the exit code is 0 for a healthy unit."""
    asked = _understood(arguments) if arguments else _Asked()
    try:
        found = check(
            asked.unit,
            _state_dir(asked.state, asked.config),
            asked.instance,
            ready=asked.ready,
        )
    except PatchbayError as error:
        print(f"patchbay: {error}", file=sys.stderr)
        return 1
    print(f"{asked.unit}: {found.reason}" if asked.unit else found.reason)
    return 0 if found.ok else 1


def _understood(arguments: Sequence[str]) -> _Asked:
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="patchbay health",
        description="Check that a unit of this machine is alive and not stuck.",
    )
    parser.add_argument(
        "unit", nargs="?", metavar="UNIT", help="locker.edge, for example; all that ran here"
    )
    parser.add_argument("--instance", metavar="NAME", help="which instance; the host's name")
    parser.add_argument("--state", metavar="DIR", help="where state is kept")
    parser.add_argument(
        "--ready", action="store_true", help="check that it is online, too, and waits for nothing"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; ./patchbay.toml")
    return _Asked(**vars(parser.parse_args(arguments)))


def _state_dir(state: str | None, config: Path | None) -> str | Path:
    """Where heartbeats are. What is said closest by holds: here, in the environment, in a file."""
    if state is None:
        state = os.environ.get(_STATE_VARIABLE) or None
    if state is not None:
        return os.path.realpath(state)
    from patchbay.cli.environment import environment, settings, state_dir

    return state_dir(settings(environment(None, config)))
