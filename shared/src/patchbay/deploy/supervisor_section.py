"""A unit as a section of a supervisord that is there already.

[program:locker.edge]
directory=/home/pi/patchbay
command=/home/pi/patchbay/.venv/bin/python3 -P -m patchbay.runtime locker.edge
stderr_logfile=/var/log/patchbay-locker.edge.err.log
stdout_logfile=/var/log/patchbay-locker.edge.log
autostart=true
autorestart=true
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from patchbay.errors import SettingsError

STOP_WAIT_S: Final = 10
"""A unit stops within 5 seconds."""

RETRIES: Final = 1_000_000
"""For ever: a port may be taken for a night. supervisord waits longer each time."""


def section(
    unit: str,
    python: Path,
    directory: Path,
    logs: Path,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The section that runs ``unit``. ``directory``: where it is started, and so where
    ``patchbay.toml`` is; ``logs``: where both log files are; ``arguments``: more for the unit.

    Raises SettingsError for what no line of it can say.
    """
    command = shlex.join([str(python), "-P", "-m", "patchbay.runtime", unit, *arguments])
    values = {
        "directory": str(directory),
        "command": command,
        "stderr_logfile": str(logs / f"patchbay-{unit}.err.log"),
        "stdout_logfile": str(logs / f"patchbay-{unit}.log"),
        "autostart": "true",
        "autorestart": "true",
        "startretries": str(RETRIES),
        "stopwaitsecs": str(STOP_WAIT_S),
    }
    if environment:
        values["environment"] = ",".join(
            f"{key}={_quoted(text)}" for key, text in environment.items()
        )
    lines = [f"[program:{unit}]"]
    for key, value in values.items():
        if "\n" in value or " ;" in value:  # the latter begins a remark
            raise SettingsError(f"{key}: {value!r} cannot stand in a section of supervisord")
        percent = "%%%%" if key.endswith("_logfile") else "%%"  # it expands those twice
        lines.append(f"{key}={value.replace('%', percent)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if "'" in text or '"' in text:  # both are stripped from its ends
        raise SettingsError(f"environment: {text!r} cannot stand in a section of supervisord")
    return f'"{text}"'
