"""The state directory: made where it is missing, and refused where a newer version has written it.

    <state>/version    {"format": 1, "version": "0.1.0"}    how its files are laid out, and by whom

The same file stands in the directory of each unit, which may be a volume of its own. A state
without one is of 0.1.0, which had none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Final

from patchbay import __version__
from patchbay.durable import make_directory, put_in_place
from patchbay.errors import SettingsError

FORMAT: Final = 1
"""How the files of a state directory are laid out. Raise it with a change that this version's code
could not read."""

VERSION: Final = "version"
LARGEST: Final = 4096
"""Bytes of the file that are read; ours has some 40."""

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No room on the disk: what is there can be used all the same."""

KEY: Final = "[runtime] state_dir"


def open_state(directory: Path) -> None:
    """Make the directory if it is missing, and claim it for our format.

    Raises SettingsError if it cannot be used, or if a newer version has written it.
    """
    try:
        make_directory(directory)
        found = _format(directory / VERSION)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise OSError(errno.EROFS, "not writable")
        if found < FORMAT:
            _write(directory / VERSION)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unusable(directory, error) from error


def unusable(directory: Path, error: OSError | ValueError) -> SettingsError:
    """The error of a state directory that cannot be read or written, in one sentence."""
    place = getattr(error, "filename", None) or directory
    why = error.strerror if isinstance(error, OSError) else None
    return SettingsError(f"{KEY}: {place}: {why or error}")


def _format(path: Path) -> int:
    """The format that the directory is in, 0 where nothing that makes sense says so."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(LARGEST))
        found, version = said["format"], str(said.get("version"))[:40]
        newer = isinstance(found, int) and found > FORMAT
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a power cut
        return 0
    if newer:
        raise SettingsError(
            f"{KEY}: {path.parent} was written by patchbay {version} in format {found};"
            f" patchbay {__version__} reads format {FORMAT}: run that version or a later one, or"
            " give another directory"
        )
    return found if isinstance(found, int) else 0


def _write(path: Path) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"format": FORMAT, "version": __version__}) + "\n")
        put_in_place(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        if error.errno not in FULL:
            raise
