"""`patchbay broker`, as it is typed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay.testing import PATIENCE_S


@pytest.fixture
def here(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    return place


def patchbay(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}
    return subprocess.run(
        [sys.executable, "-m", "patchbay.cli", "broker", *words],
        cwd=here,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_users_of_all_installed_services_are_made(here: Path) -> None:
    made = patchbay(here, "users", "secrets", "--host", "pi1")
    assert made.returncode == 0, made.stderr
    names = {path.name for path in (here / "secrets/units").iterdir()}
    assert {"locker-edge-pi1", "locker-domain-pi1", "allocator-intake-pi1"} <= names
    assert f"{here}/secrets/units/locker-edge-pi1\n" in made.stdout
    assert "user locker-edge-pi1" in (here / "secrets/mosquitto/acl").read_text()
    again = patchbay(here, "users", "secrets", "--host", "pi1")
    assert again.stdout == f"all is there already: {here}/secrets\n"


def test_without_a_directory_they_are_in_the_state_directory(here: Path) -> None:
    assert patchbay(here, "users", "--only", "none").returncode == 0
    assert (here / ".patchbay/secrets/operators/operator").exists()
    assert not (here / ".patchbay/secrets/units").exists()


def test_one_instance_more_and_one_person_more_and_one_less(here: Path) -> None:
    more = ("--instance", "locker-edge-pi2", "--operator", "ann", "--viewer", "bob")
    assert patchbay(here, "users", "secrets", "--only", "none", *more).returncode == 0
    made = patchbay(here, "users", "secrets", "--only", "none", "--remove", "bob")
    assert made.returncode == 0, made.stderr
    acl = (here / "secrets/mosquitto/acl").read_text()
    assert "user locker-edge-pi2\n" in acl
    assert "user ann.2\n" in acl
    assert "user bob" not in acl


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--instance", "locker-egde-pi2"), "locker-egde-pi2: no instance of a unit"),
        (("--owner", "locker-edge-x"), "--owner locker-edge-x: it is said as WHO=UID"),
        (("--owner", "mosquitto=nobody-such"), "nobody-such: no owner"),
        (("--only", "nothing"), "nothing: no such service"),
        (("--viewer", "Ann"), "'Ann': a name has"),
    ],
)
def test_a_mistake_is_one_line(here: Path, words: tuple[str, ...], said: str) -> None:
    refused = patchbay(here, "users", "secrets", *words)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"patchbay: {said}")
    assert refused.stderr.count("\n") == 1


def test_certificates_and_a_configuration_stand_beside_the_users(here: Path) -> None:
    made = patchbay(here, "certs", "secrets", "--name", "broker", "--name", "10.0.0.7")
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((here / "secrets/ca/ca.key").stat().st_mode) == 0o600
    told = patchbay(here, "conf", "secrets", "--data", "/data", "--at", "/run/mosquitto")
    path = here / "secrets/mosquitto/mosquitto.conf"
    assert told.stdout == f"{path}\n"
    assert "acl_file /run/mosquitto/acl\n" in path.read_text()


def test_who_owns_a_file_is_said_by_the_name_of_the_unit(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    owners = ("--owner", "locker-edge-a=10001", "--owner", "store/locker=10002")
    more = ("--owner", "mosquitto=1883")
    made = patchbay(here, "users", "secrets", "--host", "a", *owners, *more)
    assert made.returncode == 0, made.stderr
    owned = {
        name: (here / "secrets" / name).stat().st_uid
        for name in ("units/locker-edge-a", "store/locker", "mosquitto/passwords", "store/admin")
    }
    assert owned == {
        "units/locker-edge-a": 10001,
        "store/locker": 10002,
        "mosquitto/passwords": 1883,
        "store/admin": os.getuid(),
    }
