"""Where secrets are kept: modes, owners, and what stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from patchbay.access.directory import Directory, Owner
from patchbay.errors import SettingsError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_password_is_made_once_and_stays(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert directory.add("units", "locker-edge-pi1")
    first = directory.password("units", "locker-edge-pi1")
    assert not directory.add("units", "locker-edge-pi1")
    assert directory.password("units", "locker-edge-pi1") == first


def test_only_its_owner_may_read_a_secret_and_nobody_may_list_a_directory(tmp_path: Path) -> None:
    Directory(tmp_path / "secrets").add("units", "locker-edge-pi1")
    assert mode(tmp_path / "secrets/units/locker-edge-pi1") == 0o600
    assert mode(tmp_path / "secrets/units") == 0o711
    assert mode(tmp_path / "secrets") == 0o711


def test_a_mode_that_somebody_has_changed_is_put_right(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.add("units", "locker-edge-pi1")
    (tmp_path / "units/locker-edge-pi1").chmod(0o644)
    directory.add("units", "locker-edge-pi1")
    assert mode(tmp_path / "units/locker-edge-pi1") == 0o600


def test_a_file_that_is_replaced_never_stands_there_with_another_mode(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    old = os.umask(0)
    try:
        directory.write("mosquitto/acl", "user a\n")
    finally:
        os.umask(old)
    assert mode(tmp_path / "mosquitto/acl") == 0o600
    assert [path.name for path in (tmp_path / "mosquitto").iterdir()] == ["acl"]


def test_the_names_of_the_files_are_the_list_of_users(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert directory.names("viewers") == []
    directory.add("viewers", "bob")
    directory.add("viewers", "ann")
    (tmp_path / "viewers/.bob.new").touch()
    assert directory.names("viewers") == ["ann", "bob"]
    assert directory.remove("viewers", "bob")
    assert not directory.remove("viewers", "bob")
    assert directory.names("viewers") == ["ann"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Ann", "a.2", "a:b", "a\nb", "x" * 65])
def test_a_name_that_would_break_a_file_of_mosquittos_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="a name has"):
        Directory(tmp_path).add("viewers", name)
    assert not any(tmp_path.iterdir())


def test_files_get_the_owners_that_are_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    owners = {"units/locker-edge-pi1": Owner(10001, 10002), "mosquitto": Owner(1883, 1883)}
    directory = Directory(tmp_path, owners)
    directory.add("units", "locker-edge-pi1")
    directory.add("units", "locker-domain-pi1")
    directory.write("mosquitto/acl", "")
    owned = {
        path.name: (path.stat().st_uid, path.stat().st_gid)
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert owned == {
        "locker-edge-pi1": (10001, 10002),
        "locker-domain-pi1": (os.getuid(), os.getgid()),
        "acl": (1883, 1883),
    }


def test_an_owner_is_given_also_to_what_was_there_before(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    Directory(tmp_path).add("units", "locker-edge-pi1")
    owners = {"units/locker-edge-pi1": Owner(10001, 10001)}
    Directory(tmp_path, owners).add("units", "locker-edge-pi1")
    assert (tmp_path / "units/locker-edge-pi1").stat().st_uid == 10001


def test_a_file_that_is_written_again_stays_whose_it_was(tmp_path: Path) -> None:
    """mosquitto reads its files again at SIGHUP, as its own user."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    Directory(tmp_path, {"mosquitto": Owner(1883, 1883)}).write("mosquitto/acl", "one")
    Directory(tmp_path).write("mosquitto/acl", "two")
    found = (tmp_path / "mosquitto/acl").stat()
    assert (found.st_uid, found.st_gid) == (1883, 1883)
    assert Directory(tmp_path).read("mosquitto/acl") == "two"


@pytest.mark.parametrize(
    ("text", "owner"),
    [("10001", (10001, 10001)), ("10001:5", (10001, 5)), ("root", (0, 0))],
)
def test_an_owner_is_a_number_or_a_user_of_this_machine(text: str, owner: tuple[int, int]) -> None:
    assert Owner.parse(text) == owner


@pytest.mark.parametrize("text", ["", "1:x", "nobody-of-that-name", "1x"])
def test_what_is_no_owner_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no owner"):
        Owner.parse(text)


def test_what_cannot_be_written_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "units").write_text("a file in the way")
    with pytest.raises(SettingsError, match=r"units/x: (File exists|Not a directory)"):
        Directory(tmp_path).add("units", "x")
    with pytest.raises(SettingsError, match=r"nothing: No such file"):
        Directory(tmp_path).read("nothing")
