"""A machine with systemd as its first process, in namespaces of this one.

    pytest -- bash (a mount and a control group of its own) -- unshare -- systemd, pid 1
                                                                            +-- patchbay@...

Its root is this machine's, and what is changed there is in memory. It shares the network. systemd
starts nothing there by itself. Whoever dies on the way, all of it dies; an empty control group may
stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from patchbay.cli.development import systemd
from patchbay.testing import PATIENCE_S
from tests.pages import ROOT
from tests.running import wait_for

PYTHON: Final = "/opt/patchbay/bin/python"
STATE: Final = "/var/lib/patchbay"
SETTINGS: Final = "/etc/patchbay"

PROGRAMS: Final = ("bash", "chroot", "nsenter", "setpriv", "systemctl", "unshare", "useradd")
TARGETS: Final = ("idle", "sysinit", "basic", "shutdown", "network-online", "multi-user")
"""What there is besides ours, all empty: booting a machine is not what is tested."""

_OUTSIDE: Final = """
set -eu
mount -t cgroup2 cgroup2 "$1"
group="$1/patchbay-$$"
mkdir "$group"
echo 0 > "$group/cgroup.procs"
status=0
setpriv --pdeathsig KILL \
    unshare --mount --pid --ipc --uts --cgroup --fork --kill-child bash -c "$INSIDE" machine "$@" ||
    status=$?
echo 0 > "$1/cgroup.procs"
find "$group" -depth -type d -exec rmdir {} +
exit $status
"""

_INSIDE: Final = """
set -eu
mount -t tmpfs machine "$2"
cd "$2"
mkdir upper work root
mount -t overlay machine -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
for empty in run tmp etc/systemd/system; do
    mkdir -p "$empty"
    mount -t tmpfs machine "$empty"
done
mkdir -p opt/patchbay opt/sources
mount --bind "$3" opt/patchbay
mount --bind "$4" opt/sources
for target in $TARGETS; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > "etc/systemd/system/$target.target"
done
exec chroot . env -i container=patchbay-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/systemd/system \
    SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere \
    "$INIT" --system --unit=idle.target --show-status=no --log-target=null
"""


def why_not() -> str | None:
    """Why there can be no such machine here; None if it can be tried."""
    if os.geteuid() != 0:
        return "it takes root"
    if systemd() is None:
        return "systemd is not installed"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{missing[0]} is not installed"
    if sys.prefix == sys.base_prefix:
        return "the interpreter is in no environment of its own"
    return None


class Machine:
    """One machine. `start` it, and `stop` it whatever happened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._console = directory / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._init: psutil.Process | None = None

    def start(self) -> None:
        """Start systemd. Skips the test, with the reason, where the kernel does not let us."""
        places = [self._directory / "cgroup", self._directory / "root"]
        for place in places:
            place.mkdir()
        words = [str(one) for one in (*places, sys.prefix, ROOT)]
        environ = {
            **os.environ,
            "INSIDE": _INSIDE,
            "INIT": systemd() or "",
            "TARGETS": " ".join(TARGETS),
        }
        apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [*apart, "bash", "-c", _OUTSIDE, "machine", *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environ,
            )
        wait_for(lambda: self._answers() or self._ended, "systemd", PATIENCE_S)
        if self._ended:
            said = self._console.read_text(errors="replace").split("\n")[0]
            pytest.skip(f"no machine with systemd here: {said or 'it ended without a word'}")

    def stop(self) -> None:
        """End all of it."""
        if self._process is None:
            return
        if self._init is not None and self._init.is_running():
            self._init.kill()
        self._process.wait(PATIENCE_S)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command there as root, and return what it prints."""
        assert self._init is not None
        done = subprocess.run(
            ["nsenter", "--all", "--root", "--wd", "--target", str(self._init.pid), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": sources()},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        self.run("/bin/sh", "-c", 'printf %s "$1" > "$2"', "write", text, path)

    def show(self, unit: str, name: str) -> str:
        """A property of a service, as ``systemctl show`` says it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def main_process(self, unit: str) -> psutil.Process:
        """The service's process, as this side of the namespaces knows it."""
        assert self._init is not None
        inside = self.show(unit, "MainPID")
        for process in self._init.children(recursive=True):
            status = Path(f"/proc/{process.pid}/status").read_text()
            (pids,) = [line for line in status.splitlines() if line.startswith("NSpid:")]
            if pids.split()[-1] == inside:
                return process
        raise LookupError(f"{unit} has no process")

    @property
    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _answers(self) -> bool:
        assert self._process is not None
        for process in psutil.Process(self._process.pid).children(recursive=True):
            if process.name() == "systemd":
                self._init = process
                return self.run("systemctl", "is-active", "idle.target", check=False) == "active\n"
        return False


def sources() -> str:
    """Where our packages are there, as PYTHONPATH says it."""
    return ":".join(f"/opt/sources/{one.parent.relative_to(ROOT)}/src" for one in _projects())


def _projects() -> list[Path]:
    return [ROOT / "shared/pyproject.toml", *sorted(ROOT.glob("svc-*/pyproject.toml"))]
