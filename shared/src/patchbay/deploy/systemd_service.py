"""The template ``patchbay@.service``: one file for all units, with as few rights as they need."""

from __future__ import annotations

import contextlib
import re
import stat
from pathlib import Path
from typing import Final

from msgspec import Struct

from patchbay.errors import SettingsError

DIRECTORY: Final = Path("/etc/systemd/system")
SETTINGS: Final = Path("/etc/patchbay")
USER: Final = "patchbay"
TEMPLATE: Final = "patchbay@.service"

GROUPS: Final = {
    "tty": "dialout",
    "serial": "dialout",
    "gpio": "gpio",
    "spi": "spi",
    "i2c": "i2c",
}
"""Beginning of a device's name -> the group that may use it on Debian and Raspberry Pi OS."""

HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))

_SAFE = re.compile(r"^/[A-Za-z0-9_./@:+-]*$")


class File(Struct, frozen=True):
    """A file that is to be written."""

    path: Path
    text: str


def files(
    unit: str,
    python: Path,
    *,
    devices: tuple[str, ...] = (),
    directory: Path = DIRECTORY,
    settings: Path = SETTINGS,
    user: str = USER,
) -> list[File]:
    """The template, and what this unit has beside it if it needs ``devices`` (``/dev/ttyUSB0``).

    ``python``: the interpreter whose environment has Patchbay in it; ``settings``: where
    ``patchbay.toml`` and the units' environments are. Raises SettingsError for a path that systemd
    would not take as it is.
    """
    for path in (python, settings, *map(Path, devices)):
        if not _SAFE.match(str(path)):
            raise SettingsError(f"{path}: no absolute path of plain characters")
    text = (Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8")
    values = {
        "PYTHON": str(python),
        "SETTINGS": str(settings),
        "USER": user,
        # In a home there may be the interpreter itself: then it can be read, and nothing written.
        "PROTECT_HOME": "read-only" if _at_home(python) else "yes",
        "DOCUMENTATION": "file:" + str(Path(__file__).parent / TEMPLATE),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    made = [File(directory / TEMPLATE, text)]
    if devices:
        place = directory / f"patchbay@{unit}.service.d"
        made.append(File(place / "devices.conf", _devices(unit, devices)))
    return made


def _at_home(python: Path) -> bool:
    """Is anything of the interpreter in a home: itself, or what it is a link to?"""
    return any(one.is_relative_to(home) for one in (python, python.resolve()) for home in HOMES)


def closed_to(user: str, python: Path) -> Path | None:
    """The first directory on the way to the interpreter that ``user`` may not enter, as a home is.

    None: there is none, or what is on the way is not known yet.
    """
    if user == "root":
        return None
    with contextlib.suppress(OSError):
        for place in (*reversed(python.parents), *reversed(python.resolve().parents)):
            mode = place.stat().st_mode
            if not mode & stat.S_IXOTH and place.owner() != user and place.group() != user:
                return place
    return None


def _devices(unit: str, devices: tuple[str, ...]) -> str:
    groups = sorted({_group(one) for one in devices})
    lines = [
        f"# The devices of {unit}, and no others.",
        "[Service]",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        *(f"DeviceAllow={one} rw" for one in devices),
        f"SupplementaryGroups={' '.join(groups)}",
    ]
    return "\n".join(lines) + "\n"


def _group(device: str) -> str:
    name = device.removeprefix("/dev/")
    for beginning, group in GROUPS.items():
        if name.startswith(beginning):
            return group
    known = ", ".join(f"/dev/{one}*" for one in GROUPS)
    raise SettingsError(f"{device}: not a device whose group we know; those are {known}")
