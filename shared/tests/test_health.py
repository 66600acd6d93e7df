"""What a heartbeat file says of a unit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patchbay.health import (
    STALE_S,
    Heartbeat,
    check,
    heartbeat_file,
    instance_id,
    uptime,
    write_heartbeat,
)


def beat(
    state: Path,
    instance: str = "locker-edge-pi1",
    *,
    unit: str = "locker.edge",
    pid: int | None = None,
    online: bool = True,
    age_s: float = 0.0,
) -> None:
    write_heartbeat(
        heartbeat_file(state, instance),
        Heartbeat(unit=unit, pid=pid or os.getpid(), online=online, at=time.time() - age_s),
    )


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_fresh_heartbeat_of_an_online_unit_is_health(tmp_path: Path) -> None:
    beat(tmp_path)
    health = check("locker.edge", tmp_path)
    assert health.ok
    assert health.reason == "online"


def test_no_heartbeat_is_no_health(tmp_path: Path) -> None:
    health = check("locker.edge", tmp_path)
    assert not health.ok
    assert health.reason.startswith("not running")


def test_an_old_heartbeat_means_that_the_unit_hangs(tmp_path: Path) -> None:
    beat(tmp_path, age_s=STALE_S + 5)
    health = check("locker.edge", tmp_path)
    assert not health.ok
    assert "hangs" in health.reason


def test_a_heartbeat_from_the_future_does_not_count(tmp_path: Path) -> None:
    beat(tmp_path, age_s=-3600)
    assert not check("locker.edge", tmp_path).ok


def test_a_heartbeat_of_a_killed_process_does_not_count(tmp_path: Path, dead_pid: int) -> None:
    beat(tmp_path, pid=dead_pid)
    health = check("locker.edge", tmp_path)
    assert not health.ok
    assert health.reason == f"dead: process {dead_pid} is gone"


def test_a_unit_that_is_not_online_is_healthy_and_not_ready(tmp_path: Path) -> None:
    beat(tmp_path, online=False)
    assert check("locker.edge", tmp_path).ok
    health = check("locker.edge", tmp_path, ready=True)
    assert not health.ok
    assert "not online" in health.reason


def test_what_another_name_left_behind_does_not_hide_a_healthy_unit(tmp_path: Path) -> None:
    beat(tmp_path, "locker-edge-old", age_s=3600)
    beat(tmp_path, "locker-edge-new")
    assert check("locker.edge", tmp_path).ok
    assert not check("locker.edge", tmp_path, "locker-edge-old").ok
    assert check("locker.edge", tmp_path, "locker-edge-new").ok


def test_an_instance_is_asked_for_by_its_name_or_its_id(tmp_path: Path) -> None:
    beat(tmp_path)
    assert check("locker.edge", tmp_path, "pi1").ok
    assert check("locker.edge", tmp_path, "locker-edge-pi1").ok
    assert not check("locker.edge", tmp_path, "pi2").ok
    assert not check("locker.edge", tmp_path, "locker-edge-pi2").ok
    assert not check("locker.domain", tmp_path, "locker-edge-pi1").ok


def test_a_service_is_healthy_when_all_its_units_are(tmp_path: Path) -> None:
    beat(tmp_path)
    beat(tmp_path, "locker-domain-pi1", unit="locker.domain")
    beat(tmp_path, "mesh-api-pi1", unit="mesh.api", online=False)
    assert check("locker", tmp_path).reason == "locker.domain online; locker.edge online"
    assert check("locker", tmp_path).ok
    beat(tmp_path, "locker-domain-pi1", unit="locker.domain", online=False)
    assert not check("locker", tmp_path, ready=True).ok


def test_files_of_others_are_passed_over(tmp_path: Path) -> None:
    beat(tmp_path)
    (tmp_path / "run" / "up.json").write_text('{"ready": true}')
    (tmp_path / "run" / "half.json").write_text('{"unit": "locker.ed')
    assert check("locker.edge", tmp_path).ok


def test_an_instance_id_can_stand_in_a_topic() -> None:
    assert instance_id("locker.edge", "pi1") == "locker-edge-pi1"
    assert re.fullmatch("locker-edge-[a-z0-9_-]+", instance_id("locker.edge", "Pi/1 +#"))
    assert re.fullmatch("locker-edge-[a-z0-9_-]+", instance_id("locker.edge"))


def test_no_part_of_a_heartbeat_stays_behind(tmp_path: Path) -> None:
    beat(tmp_path)
    beat(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["locker-edge-pi1.json"]


def test_who_waits_is_healthy_and_not_ready_and_who_is_stuck_is_neither(tmp_path: Path) -> None:
    file = heartbeat_file(tmp_path, "locker-edge-pi1")
    beat = Heartbeat(
        unit="locker.edge",
        pid=os.getpid(),
        online=True,
        at=time.time(),
        up=uptime(),
        state="waiting",
    )
    write_heartbeat(file, beat._replace(cause="store"))
    assert check("locker.edge", tmp_path) == (True, "waiting: store")
    assert check("locker.edge", tmp_path, ready=True) == (False, "waiting: store")
    write_heartbeat(file, beat._replace(state="stuck", cause="outbox"))
    assert check("locker.edge", tmp_path) == (False, "stuck: outbox does not get on")


def test_a_step_of_the_clock_makes_nobody_look_dead(tmp_path: Path) -> None:
    for at in (0.0, time.time() + 1e9):
        beat = Heartbeat(unit="locker.edge", pid=os.getpid(), online=True, at=at, up=uptime())
        write_heartbeat(heartbeat_file(tmp_path, "locker-edge-pi1"), beat)
        assert check("locker.edge", tmp_path).ok
