"""``health``: is a unit of this machine alive and online?

Compose asks each unit twice a minute, on a Pi too. So this reads a file and imports no more than
that takes: no typer and, where a state directory is given, no settings.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from patchbay.errors import PatchbayError
from patchbay.health import check

_STATE_VARIABLE: Final = "PATCHBAY_RUNTIME__STATE_DIR"


def main(arguments: Sequence[str]) -> int:
    """The command, without its name. Says what it found; the exit code is 0 for a healthy unit."""
    parser = argparse.ArgumentParser(
        prog="patchbay health", description="Is a unit of this machine alive and online?"
    )
    parser.add_argument(
        "unit", nargs="?", metavar="UNIT", help="locker.edge, for example; all that ran here"
    )
    parser.add_argument("--instance", metavar="NAME", help="which instance; the host's name")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where state is kept")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; ./patchbay.toml")
    given = parser.parse_args(arguments)
    try:
        found = check(given.unit, _state_dir(given.state, given.config), given.instance)
    except PatchbayError as error:
        print(f"patchbay: {error}", file=sys.stderr)
        return 1
    print(f"{given.unit}: {found.reason}" if given.unit else found.reason)
    return 0 if found.ok else 1


def _state_dir(state: Path | None, config: Path | None) -> Path:
    """Where heartbeats are. What is said closest by holds: here, in the environment, in a file."""
    if state is None and os.environ.get(_STATE_VARIABLE):
        state = Path(os.environ[_STATE_VARIABLE])
    if state is not None:
        return state.resolve()
    from patchbay.cli.environment import environment, settings, state_dir

    return state_dir(settings(environment(None, config)))
