"""``install-service`` and ``supervisor-conf``: a unit as a service of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from patchbay.cli.options import ConfigOption, InstanceOption, StateOption

_UNIT = typer.Argument(metavar="UNIT", help="locker.edge, or locker for all its units in one.")


def install_service(
    unit: Annotated[str, _UNIT],
    device: Annotated[
        list[str], typer.Option(metavar="PATH", help="It may use this: /dev/ttyUSB0.")
    ] = [],  # noqa: B006  typer makes a new one
    user: Annotated[str, typer.Option(metavar="NAME", help="Who runs it.")] = "patchbay",
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where systemd finds it.")] = Path(
        "/etc/systemd/system"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--print", help="Print what would be written.")
    ] = False,
) -> None:
    """Write a systemd service for a unit, hardened and watched over, and say what to do next.

    Starts nothing: systemd need not run.
    """
    from patchbay.deploy.systemd_service import SETTINGS, closed_to, files
    from patchbay.durable import write_whole
    from patchbay.errors import Unavailable

    _known(unit)
    # Not resolved: the link in the environment's bin is what makes it that environment.
    python = Path(os.path.abspath(sys.executable))
    made = files(unit, python, devices=tuple(device), directory=directory, user=user)
    for file in made:
        if dry_run:
            print(f"# {file.path}\n{file.text}")
            continue
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file.path, file.text.encode())
        except OSError as error:
            raise Unavailable(f"{file.path}: {error.strerror} (with sudo?)") from error
        print(file.path)
    print(_NEXT.format(unit=unit, user=user, settings=SETTINGS), file=sys.stderr)
    if (closed := closed_to(user, python)) is not None:
        print(_CLOSED.format(user=user, python=python, closed=closed), file=sys.stderr)


def supervisor_conf(
    unit: Annotated[str, _UNIT],
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it is started: here if not given.")
    ] = None,
    logs: Annotated[Path, typer.Option(metavar="DIR", help="Where its two log files are.")] = Path(
        "/var/log"
    ),
    instance: InstanceOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a section for a supervisord of this machine: save it in /etc/supervisor/conf.d."""
    from patchbay.cli.environment import environment
    from patchbay.deploy.supervisor_section import section

    _known(unit)
    given = environment(state, config)
    ours = {key: given[key] for key in given if given[key] != os.environ.get(key)}
    arguments = [] if instance is None else ["--instance", instance]
    python = Path(os.path.abspath(sys.executable))
    where = (directory or Path()).resolve()
    print(section(unit, python, where, logs, arguments, ours), end="")


def _known(unit: str) -> None:
    """Raises SettingsError for a unit that is not installed."""
    from patchbay.services import discover, units

    units(discover(), [unit])


_NEXT = """
What is left to do, as root:

  useradd --system --home-dir /var/lib/patchbay --shell /usr/sbin/nologin {user}
  install -d -m 0750 -g {user} {settings}
  systemctl daemon-reload
  systemctl enable --now patchbay@{unit}

The first makes who runs it, once: it owns nothing but its state, /var/lib/patchbay. Settings of all
units are {settings}/patchbay.toml; those of this one may be in {settings}/{unit}.environment,
as PATCHBAY_BROKER__HOST=... a line. Only root and the group {user} can read them there.

  systemctl status patchbay@{unit}     "active (running)": devices are served
  journalctl -u patchbay@{unit}        what it says
"""

_CLOSED = """
{python} is behind {closed}, which {user} may not enter: systemd will say 203/EXEC. Install
Patchbay where everybody may look, as in /opt/patchbay.
"""
