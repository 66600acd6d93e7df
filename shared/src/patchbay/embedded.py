"""The embedded store: SecantusDB, a MongoDB wire-protocol server, as a process of its own.

It stands in where no MongoDB is named (``PATCHBAY_STORE__URI``); driver and code are the same.
A write with ``j: true`` is synced to its log before it is answered, whatever the flags, so
``--sync-on-commit`` (the same for every write) is not needed. As a standalone it advertises no
replica set and an insert costs half (measured); nobody here reads change streams, so the oplog is
kept short.

``python -m patchbay.embedded --storage DIR --port P`` is what the supervisor runs. It execs the
server, so the supervised pid is the server's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from patchbay.errors import PatchbayError, Unavailable
from patchbay.parent import die_with_parent
from patchbay.priority import step_back

OPLOG_ENTRIES: Final = 1000
"""Entries of the oplog that are kept; the default of 100,000 is written and pruned for nobody."""


def command(storage: Path, port: int, cache_size: str = "256M", *, auth: bool = False) -> list[str]:
    """The command that runs the store on loopback with its files in ``storage``.

    ``cache_size`` is WiredTiger's, with a unit (``256M``). ``auth``: it asks for a password. Raises
    Unavailable if SecantusDB is not installed (the extra ``patchbay[embedded]``).
    """
    program = Path(sys.executable).parent / "secantusd-py"
    if not program.exists():
        raise Unavailable(
            "the embedded store is not installed (patchbay[embedded]);"
            " or name a MongoDB in PATCHBAY_STORE__URI"
        )
    return [
        sys.executable,
        str(program),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--config", str(_configuration(storage))),
        *("--storage-path", str(storage.resolve())),
        *("--log-level", "WARNING"),
        "--standalone",
        *("--oplog-max-entries", str(OPLOG_ENTRIES)),
        *("--cache-size", cache_size),
        *(["--auth"] if auth else []),
    ]


def _configuration(storage: Path) -> Path:
    """A file that says nothing, beside ``storage``. Without one the store would take what lies in
    the working directory, in the home or in /etc, and listen where that says."""
    path = storage.resolve().with_name(f"{storage.name}.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def main() -> None:
    """Parse the command line and become the store. Exits with 1 on failure."""
    parser = argparse.ArgumentParser(prog="python -m patchbay.embedded", description=main.__doc__)
    parser.add_argument("--storage", type=Path, required=True, help="directory of its files")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cache-size", default="256M")
    parser.add_argument("--supervised", action="store_true", help="end when the parent dies")
    given = parser.parse_args()
    if given.supervised:
        die_with_parent()
    try:
        argv = command(given.storage, given.port, given.cache_size)
    except PatchbayError as error:
        print(f"store: {error}", file=sys.stderr)
        sys.exit(1)
    given.storage.mkdir(parents=True, exist_ok=True)
    step_back()
    os.execv(argv[0], argv)  # noqa: S606  no shell is what we want


if __name__ == "__main__":
    main()
