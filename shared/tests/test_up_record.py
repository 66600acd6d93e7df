from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchbay.errors import SettingsError, Unavailable
from patchbay.up.record import Claim, Record, UnitRecord, running

RECORD = Record(
    pid=os.getpid(),
    socket="/s.sock",
    root_topic="patchbay",
    mqtt_host="127.0.0.1",
    mqtt_port=1883,
    broker=True,
    store=False,
    units=[UnitRecord("locker.edge", "locker-edge-pi1")],
    addresses={"mqtt": "127.0.0.1:1883"},
)


def test_others_read_what_runs_as_long_as_it_runs(tmp_path: Path) -> None:
    with Claim(tmp_path) as claim:
        assert running(tmp_path) is None
        claim.write(RECORD)
        assert running(tmp_path) == RECORD
    assert running(tmp_path) is None


def test_a_second_claim_is_refused_and_the_first_holder_named(tmp_path: Path) -> None:
    with (
        Claim(tmp_path),
        pytest.raises(Unavailable, match=rf"pid {os.getpid()}\) runs on"),
        Claim(tmp_path),
    ):
        pass
    with Claim(tmp_path):
        pass


def test_a_record_that_a_killed_up_left_behind_does_not_count(tmp_path: Path) -> None:
    with Claim(tmp_path) as claim:
        claim.write(RECORD)
        left = (tmp_path / "up.json").read_bytes()
    (tmp_path / "up.json").write_bytes(left)
    assert running(tmp_path) is None


def test_nothing_runs_where_nothing_is_and_nothing_is_made_there(tmp_path: Path) -> None:
    assert running(tmp_path / "nowhere") is None
    assert running(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_one_line_that_names_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"^\[runtime\] state_dir: /proc/nowhere"):
        Claim(Path("/proc/nowhere")).__enter__()
