"""The broker of this machine: mosquitto on loopback, with its state in a directory of ours.

`prepare` writes the configuration and makes sure that mosquitto will start with the file that it
left behind. After a power cut that file may be all zeros, or cut short, and mosquitto then refuses
to start; such a file is moved aside to ``mosquitto.db.bad``, the next one to ``mosquitto.db.bad.2``
and so on. What it held (sessions, retained
messages) is rebuilt by those who own it.

``python -m patchbay.broker --state DIR --port P`` is what the supervisor runs. It execs mosquitto,
so the supervised pid is mosquitto's own.
"""

from __future__ import annotations

import argparse
import os
import pwd
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from patchbay.durable import place_aside
from patchbay.errors import PatchbayError, SettingsError, Unavailable
from patchbay.parent import die_with_parent

MAGIC: Final = b"\x00\xb5\x00mosquitto db"
"""How mosquitto's persistence file begins, whatever its version."""

QUEUED_BYTES: Final = 16_777_216
"""What may wait for one client that is away. Past it the newest is dropped, and edges send again
what their domain has not stored: so more would only be more repeats."""

MEMORY: Final = 268_435_456
"""What the broker may take for all sessions, queues and retained messages. A site of 1,000 boards
needs some 20 MB; a Pi has 1 GB."""

MAX_FILES: Final = 16_384
SPARE_FILES: Final = 64
"""Files that a broker of ours may have open, if the machine lets it, and those of them that are no
connections."""

DATABASE: Final = "mosquitto.db"
CONFIGURATION: Final = "mosquitto.conf"

TEMPLATES: Final = Path(__file__).parent / "mosquitto"
"""Mosquitto's configurations, as they are installed with the package."""
COMMON: Final = TEMPLATES / "common.conf"
LOCAL: Final = (TEMPLATES / "local.conf", COMMON)
SECURE: Final = (TEMPLATES / "secure.conf", COMMON)

_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"
_TRIAL_DEADLINE_S = 8.0  # one that takes longer may never end; its owners publish what is lost
_TRIALS = 2  # somebody may take the trial's port before mosquitto does
_POLL_S = 0.01


def binary() -> str:
    """The path of the mosquitto binary, looked for on PATH and where Debian puts it.

    Raises Unavailable with how to install it.
    """
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=_PLACES)
    if found is None:
        raise Unavailable("mosquitto is not installed: apt-get install mosquitto")
    return found


def prepare(
    state_dir: Path, port: int, host: str = "127.0.0.1", template: Path | None = None
) -> list[str]:
    """Make everything ready for mosquitto in ``state_dir`` and return the command that runs it.

    ``template`` is a whole configuration with placeholders; if None, ``local.conf`` with
    ``common.conf`` behind it. A persistence file that mosquitto cannot start with is moved aside.
    Must not be called while a mosquitto runs on this directory. Raises Unavailable without
    mosquitto and SettingsError without a template.
    """
    program = binary()
    text = read_templates(*(LOCAL if template is None else (template,)))
    directory = state_dir.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / CONFIGURATION
    configuration.write_text(_local(text, directory, port, host))
    database = directory / DATABASE
    if not _starts_with(program, database):
        place = place_aside(database)
        if place is None:
            database.unlink()
        else:
            database.replace(place)
        where = "deleted" if place is None else f"moved aside to {place.name}"
        print(f"{database} is damaged: {where}", file=sys.stderr)
    return [program, "-c", str(configuration)]


def read_templates(*paths: Path) -> str:
    """Configurations, one behind the other. Raises SettingsError."""
    try:
        return "\n".join(path.read_text() for path in paths)
    except OSError as error:
        raise SettingsError(
            f"no broker configuration at {error.filename}: {error.strerror}"
        ) from error


def render(template: str, values: Mapping[str, str]) -> str:
    """The configuration: ``template`` without its comments, its placeholders filled in."""
    lines = (line for line in template.splitlines() if not line.startswith("#"))
    text = "\n".join(lines).strip() + "\n"
    for placeholder, value in values.items():
        text = text.replace(f"@{placeholder}@", value)
    return text


def _local(template: str, directory: Path, port: int, host: str) -> str:
    return render(
        template,
        {
            "PORT": str(port),
            "HOST": host,
            "STATE": f"{directory}/",
            "USER": pwd.getpwuid(os.geteuid()).pw_name,
            "QUEUED_BYTES": str(QUEUED_BYTES),
            "MEMORY": str(MEMORY),
            "CONNECTIONS": str(_files() - SPARE_FILES),
        },
    )


def _files() -> int:
    """How many files mosquitto will be able to open: see `_allow_files`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES)


def _allow_files() -> None:
    """Raise the limit of open files, which what we become inherits: often it is 1,024."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, _files()), most))


def _starts_with(program: str, database: Path) -> bool:
    """Would mosquitto start with this file? Looks at its head, then tries it."""
    try:
        with database.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        return True
    if not head:
        return True
    if head != MAGIC:
        return False
    for _ in range(_TRIALS):
        listens = _trial(program, database)
        if listens is not False:
            return listens is True
    return False


def _trial(program: str, database: Path) -> bool | None:
    """Start a mosquitto on a port of its own with this file; True if it comes to listening, None
    if it neither does nor ends.

    Damage behind the head shows no other way. It is killed, so it writes nothing.
    """
    with tempfile.TemporaryDirectory(prefix="patchbay-broker-") as scratch:
        port = _free_port()
        configuration = Path(scratch) / CONFIGURATION
        configuration.write_text(
            _local(
                "listener @PORT@ @HOST@\nuser @USER@\n"
                "persistence true\npersistence_location @STATE@\n",
                database.parent,
                port,
                "127.0.0.1",
            )
        )
        process = subprocess.Popen(
            [program, "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return _listens(process, port)
        finally:
            process.kill()
            process.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool | None:
    """Wait until the process listens (True) or is gone (False); None if it takes too long."""
    deadline = time.monotonic() + _TRIAL_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return True
    return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Parse the command line, prepare, and become mosquitto. Exits with 1 on failure."""
    parser = argparse.ArgumentParser(prog="python -m patchbay.broker", description=main.__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory of mosquitto.db")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--conf", type=Path, default=None, help="configuration with placeholders")
    parser.add_argument("--supervised", action="store_true", help="end when the parent dies")
    given = parser.parse_args()
    if given.supervised:
        die_with_parent()
    try:
        command = prepare(given.state, given.port, given.host, given.conf)
    except PatchbayError as error:
        print(f"broker: {error}", file=sys.stderr)
        sys.exit(1)
    _allow_files()
    os.execv(command[0], command)  # noqa: S606  no shell is what we want


if __name__ == "__main__":
    main()
