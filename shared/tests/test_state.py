"""The state directory: who may use it, and what is said where it cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.errors import SettingsError
from patchbay.state import open_state
from patchbay.testing import PATIENCE_S

NEWER = {"format": 2, "version": "9.1.0"}


def command(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run a command to its end: its exit code, and what it says."""
    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **environ},
    )
    return ended.returncode, ended.stdout + ended.stderr


def unit(state: Path, **environ: str) -> tuple[int, str]:
    """Run a domain until it ends by itself."""
    environ = {"PATCHBAY_BROKER__PORT": "1", "PATCHBAY_STORE__PORT": "1", **environ}
    environ |= {"PATCHBAY_RUNTIME__STATE_DIR": str(state)}
    return command("patchbay.runtime", "locker.domain", "--instance", "state", **environ)


def up(state: Path, **environ: str) -> tuple[int, str]:
    return command("patchbay.cli", "up", "--only", "lantern", "--state", str(state), **environ)


def one_line(said: str) -> str:
    lines = said.splitlines()
    assert len(lines) == 1, said
    return lines[0]


@pytest.fixture(params=["read-only", "full"])
def sick_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system that is read-only, or has no room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is made by mount, which only root may do, and not everywhere")
    if request.param == "full":
        (place / "all").write_bytes(bytes(64 * 1024 - 4096))
        (place / "state").mkdir()
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_new_state_says_its_format(tmp_path: Path) -> None:
    open_state(tmp_path / "a" / "state")
    said = json.loads((tmp_path / "a" / "state" / "version").read_text())
    assert said["format"] == 1
    open_state(tmp_path / "a" / "state")
    assert [file.name for file in (tmp_path / "a" / "state").iterdir()] == ["version"]


@pytest.mark.parametrize("start", [unit, up])
def test_a_state_that_a_newer_version_has_written_is_refused_in_one_sentence(
    tmp_path: Path, start: type
) -> None:
    (tmp_path / "version").write_text(json.dumps(NEWER))
    code, said = start(tmp_path)
    assert code == 1
    assert "was written by patchbay 9.1.0 in format 2" in one_line(said)
    assert "reads format 1" in said
    assert json.loads((tmp_path / "version").read_text()) == NEWER


def test_a_unit_s_own_directory_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "units" / "locker-domain-state"
    own.mkdir(parents=True)
    (own / "version").write_text(json.dumps(NEWER))
    code, said = unit(tmp_path)
    assert code == 1
    assert "in format 2" in one_line(said)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"{", b"[]", b'{"format": "x"}', b'{"format": null}', b"[" * 4000]
)
def test_a_damaged_version_keeps_nobody_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "version").write_bytes(content)
    open_state(tmp_path)
    assert json.loads((tmp_path / "version").read_text())["format"] == 1


def test_a_state_on_a_sick_disk_is_one_line_that_names_the_setting(sick_disk: Path) -> None:
    starts = [up] if (sick_disk / "all").exists() else [up, unit]  # a unit waits for room
    for start in starts:
        code, said = start(sick_disk / "state" / "deeper")
        assert code == 1
        assert "[runtime] state_dir: " in one_line(said)


@pytest.mark.parametrize("start", [unit, up])
def test_a_state_that_is_a_file_is_one_line(tmp_path: Path, start: type) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        code, said = start(place)
        assert code == 1
        assert "[runtime] state_dir: " in one_line(said)


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(SettingsError, match="state_dir"):
        open_state(Path("a\0b"))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1", "must begin with mongodb://"),
        ("mongodb://127.0.0.1:99999/", "Port must be"),
        ("mongodb://user:p@ss:w/rd@127.0.0.1:49517/", "must be escaped"),
        ("mongodb://u:sec/ret@h/", "Bad database name"),
        ("mongodb://127.0.0.1/?tls=true&tlsCAFile=/nope.pem", "No such file"),
        ("mongodb://127.0.0.1/?tls=true&tlsCAFile=/etc/passwd", "certificate"),
        ("mongodb+srv://a,b/", "hostname"),
        ("mongodb://", "host"),
        ("mongodb://[::1", "IPv6"),
    ],
)
def test_an_invalid_uri_of_the_store_is_one_line_without_the_password(
    tmp_path: Path, uri: str, said: str
) -> None:
    code, line = unit(tmp_path, PATCHBAY_STORE__URI=uri)
    assert code == 1
    assert said in one_line(line)
    assert "[store]" in line
    assert "uri" in line
    assert "ss:w" not in line
    assert "ret@" not in line


def test_up_refuses_an_invalid_uri_before_anything_starts(tmp_path: Path) -> None:
    code, said = up(tmp_path, PATCHBAY_STORE__URI="mongodb://127.0.0.1:99999/")
    assert code == 1
    assert "[store] uri: Port must be" in one_line(said)
    assert not (tmp_path / "log").exists()
