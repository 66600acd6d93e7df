"""The systemd template, read by systemd's own tool where there is one."""

from __future__ import annotations

import configparser
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from patchbay.deploy.systemd_service import closed_to, files
from patchbay.errors import SettingsError
from patchbay.testing import PATIENCE_S

PYTHON = Path(sys.executable)
UNIT = "locker.edge"
ROOTS_HOME = pwd.getpwnam("root").pw_dir


class Keys(configparser.RawConfigParser):
    """systemd's keys have capitals."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def service(text: str) -> dict[str, str]:
    parser = Keys(strict=False, interpolation=None)
    parser.read_string(text)
    return dict(parser["Service"])


def test_the_service_may_do_as_little_as_it_needs() -> None:
    [file] = files(UNIT, Path("/opt/patchbay/bin/python"))
    assert file.path == Path("/etc/systemd/system/patchbay@.service")
    keys = service(file.text)
    assert keys["NoNewPrivileges"] == keys["PrivateTmp"] == keys["PrivateDevices"] == "yes"
    assert keys["ProtectSystem"] == "strict"
    assert keys["ProtectHome"] == "yes"
    assert keys["CapabilityBoundingSet"] == ""
    assert keys["StateDirectory"] == keys["User"] == "patchbay"


def test_systemd_waits_for_its_word_and_watches_it() -> None:
    keys = service(files(UNIT, Path("/opt/patchbay/bin/python"))[0].text)
    assert keys["Type"] == "notify"
    assert keys["WatchdogSec"] == "30"
    assert keys["Restart"] == "always"
    assert keys["ExecStart"] == "/opt/patchbay/bin/python -P -m patchbay.runtime %i"


@pytest.mark.parametrize(
    "python", ["/home/pi/patchbay/.venv/bin/python", f"{ROOTS_HOME}/x/bin/python"]
)
def test_an_interpreter_in_a_home_can_be_read_there(python: str) -> None:
    assert service(files(UNIT, Path(python))[0].text)["ProtectHome"] == "read-only"


def test_a_unit_with_devices_may_use_those_and_no_others() -> None:
    _, more = files("mesh.uart", PYTHON, devices=("/dev/ttyUSB0", "/dev/gpiomem"))
    assert more.path == Path("/etc/systemd/system/patchbay@mesh.uart.service.d/devices.conf")
    assert more.text.splitlines()[1:] == [
        "[Service]",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        "DeviceAllow=/dev/ttyUSB0 rw",
        "DeviceAllow=/dev/gpiomem rw",
        "SupplementaryGroups=dialout gpio",
    ]


@pytest.mark.parametrize("device", ["/dev/sda", "ttyUSB0", "/dev/tty USB0", "/dev/tty\nUser=root"])
def test_what_is_no_such_device_is_refused(device: str) -> None:
    with pytest.raises(SettingsError):
        files(UNIT, PYTHON, devices=(device,))


def test_an_interpreter_that_its_user_cannot_reach_is_told() -> None:
    with tempfile.TemporaryDirectory() as place:  # closed to others, below one that is open
        home = Path(place)
        python = home / "python"
        python.symlink_to("/bin/true")
        assert closed_to("nobody", python) == home
        assert closed_to("root", python) is None
        assert closed_to(home.owner(), python) is None
        home.chmod(0o711)
        assert closed_to("nobody", python) is None


def test_an_interpreter_that_is_not_there_is_not_told(tmp_path: Path) -> None:
    assert closed_to("nobody", Path("/nowhere/bin/python")) is None


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    made = files(UNIT, PYTHON, devices=("/dev/ttyUSB0",), directory=tmp_path, user="root")
    for file in made:
        file.path.parent.mkdir(exist_ok=True)
        file.path.write_text(file.text)
    instance = tmp_path / f"patchbay@{UNIT}.service"
    instance.write_text(made[0].text)
    verified = subprocess.run(
        [program, "verify", "--man=no", str(instance)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    ours = [line for line in verified.stderr.splitlines() if "patchbay" in line]
    assert (verified.returncode, ours) == (0, [])


def patchbay(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}
    return subprocess.run(
        [sys.executable, "-m", "patchbay.cli", "install-service", *words],
        cwd=place,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_the_command_writes_and_explains(tmp_path: Path) -> None:
    target = tmp_path / "system"
    done = patchbay(tmp_path, UNIT, "--device", "/dev/ttyUSB0", "--directory", str(target))
    assert done.returncode == 0, done.stderr
    written = [target / "patchbay@.service", target / f"patchbay@{UNIT}.service.d/devices.conf"]
    assert done.stdout == "".join(f"{path}\n" for path in written)
    assert f"ExecStart={sys.executable} -P" in written[0].read_text()
    assert f"systemctl enable --now patchbay@{UNIT}" in done.stderr


@pytest.mark.parametrize("option", ["--dry-run", "--print"])
def test_a_dry_run_writes_nothing(tmp_path: Path, option: str) -> None:
    done = patchbay(tmp_path, UNIT, option, "--directory", str(tmp_path / "system"))
    assert done.stdout.startswith(f"# {tmp_path}/system/patchbay@.service\n")
    assert "NoNewPrivileges=yes" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("locker.egde",), "patchbay: locker.egde: no such unit"),
        ((UNIT, "--directory", "/proc/nowhere"), "patchbay: /proc/nowhere/patchbay@.service: "),
    ],
)
def test_what_goes_wrong_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = patchbay(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
