"""Files that are whole after a power cut, and names for those that are damaged."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

MOST_ASIDE: Final = 9
"""Damaged files of one name that are kept: a disk that damages files all the time must not be
filled by them."""

ANCESTORS: Final = 4
"""Directories above a new file that are synced: as many as we make below a state directory."""


def sync_directory(path: Path) -> None:
    """Make the names in this directory durable, where the system can."""
    with contextlib.suppress(OSError):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: Path) -> None:
    """Make this directory and those above it, durably."""
    if path.is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    for one in path.parents[:ANCESTORS]:
        sync_directory(one)


def put_in_place(fresh: Path, path: Path) -> None:
    """Give ``fresh`` the name ``path``: after a power cut that is the old file or all of the new
    one. Raises OSError."""
    with fresh.open("rb") as written:
        os.fsync(written.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file, or make it: whoever reads it, even after a power cut, finds the old one or
    all of the new one. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data)
    put_in_place(fresh, path)


def places_aside(path: Path) -> list[Path]:
    """The names for damaged files beside this one, in their order: ``.bad``, ``.bad.2``, ..."""
    return [
        path.with_name(f"{path.name}.bad" if number == 1 else f"{path.name}.bad.{number}")
        for number in range(1, MOST_ASIDE + 1)
    ]


def place_aside(path: Path) -> Path | None:
    """The first of these names that is free; None if all are taken. No earlier file is ever
    overwritten."""
    return next((one for one in places_aside(path) if not one.exists()), None)
