"""``patchbay up``, ``status``, ``watch`` and ``health`` with real processes."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import System, all_gone, cli, wait_for


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system that has not been started."""
    system = System(tmp_path, "--demo")
    yield system
    system.clean_up()


def test_up_says_ready_and_status_tells_what_runs(system: System) -> None:
    system.start()
    mqtt, mongo, locker = (base + system.offset for base in (1883, 27_017, 5000))
    assert system.output.read_text().splitlines() == [
        "patchbay ready",
        f"mqtt    127.0.0.1:{mqtt}",
        f"mongo   mongodb://127.0.0.1:{mongo}",
        f"locker  127.0.0.1:{locker}",
    ]
    status = system.status()
    assert status["ready"] is True
    assert [unit["unit"] for unit in status["units"]] == ["locker.edge", "locker.domain"]
    assert {unit["status"] for unit in status["units"]} == {"online"}
    assert status["units"][0]["instance"].startswith("locker-edge-")
    assert status["addresses"] == {
        "mqtt": f"127.0.0.1:{mqtt}",
        "mongo": f"mongodb://127.0.0.1:{mongo}",
        "locker": f"127.0.0.1:{locker}",
    }
    pids = {process.pid for process in system.processes()}
    assert set(system.pids().values()) <= pids

    shown = cli("status", "--state", str(system.state))
    assert shown.returncode == 0
    assert "locker.edge" in shown.stdout
    watched = cli("watch", "patchbay/status/+", "--count", "2", "--state", str(system.state))
    assert watched.stdout.count(" online\n") == 2
    health = ("health", "locker.domain", "--state", str(system.state))
    # A heartbeat is up to two seconds behind the bus.
    wait_for(lambda: cli(*health).returncode == 0, "healthy")
    assert cli(*health).stdout == "locker.domain: online\n"

    everything = system.processes()
    assert system.end(signal.SIGINT) == 0
    assert all_gone(everything)
    assert cli("status", "--json", "--state", str(system.state)).returncode == 1


def test_what_is_killed_comes_again_and_sigterm_ends_it_all(system: System) -> None:
    system.start()
    before = system.pids()
    everything = system.processes()
    for process in everything:
        if process.pid in before.values():
            process.kill()
    wait_for(lambda: system.status()["ready"], "ready again")
    after = system.pids()
    assert not set(before.values()) & set(after.values())
    everything = system.processes()
    assert system.end(signal.SIGTERM) == 0
    assert all_gone(everything)


def test_a_killed_supervisord_leaves_no_process(system: System) -> None:
    system.start()
    everything = system.processes()
    system.supervisord().kill()
    assert system.process.wait(40) == 1
    assert all_gone(everything)
    assert "supervisord is gone (SIGKILL)" in system.errors.read_text()


def test_a_killed_up_leaves_no_process(system: System) -> None:
    system.start()
    everything = system.processes()
    system.end(signal.SIGKILL)
    wait_for(lambda: all_gone(everything), "everything gone")


def test_ctrl_c_before_all_is_online_ends_it_all(system: System) -> None:
    system.spawn()
    wait_for(lambda: len(system.processes()) > 4, "the first processes")
    everything = system.processes()
    assert system.end(signal.SIGINT) == 0
    assert all_gone(everything)
    assert not system.ready


def test_a_second_up_on_the_same_state_is_refused(system: System) -> None:
    system.start()
    second = cli("up", "--state", str(system.state), "--port-offset", str(system.offset + 1))
    assert second.returncode == 1
    assert second.stderr.startswith(f"patchbay: another `patchbay up` (pid {system.process.pid})")
    assert len(second.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("base", "named"),
    [(1883, "[broker] port"), (27_017, "[store] port"), (5000, "[locker] port")],
)
def test_a_port_in_use_is_named_before_anything_starts(
    system: System, base: int, named: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + system.offset))
        taken.listen()
        system.spawn()
        assert system.process.wait(60) == 1
    (line,) = system.errors.read_text().splitlines()
    assert line.startswith(f"patchbay: port {base + system.offset} ")
    assert named in line
    assert not (system.state / "log").exists()


def test_a_wrong_setting_is_named_in_one_line(system: System) -> None:
    system.spawn({"PATCHBAY_LOCKER__PROT": "5000"})
    assert system.process.wait(60) == 1
    (line,) = system.errors.read_text().splitlines()
    assert line.startswith("patchbay: PATCHBAY_LOCKER__PROT: unknown key")


def test_a_unit_that_does_not_stay_up_is_shown_with_its_last_words(system: System) -> None:
    system.state.mkdir()
    (system.state / "units").write_text("a file where the units want a directory")
    system.spawn()
    everything = set()
    while system.process.poll() is None:
        everything |= system.processes()
    assert system.process.returncode == 1
    assert all_gone(everything)
    errors = system.errors.read_text()
    assert "does not stay up" in errors
    assert "[runtime] state_dir: " in errors


def test_status_of_nothing_says_so(tmp_path: Path) -> None:
    found = cli("status", "--state", str(tmp_path))
    assert found.returncode == 1
    said = f"patchbay: nothing runs on {tmp_path}: "
    hint = "start it with `patchbay up`, or name another state directory with --state DIR"
    assert found.stderr == f"{said}{hint}\n"


def test_status_takes_the_options_of_up(tmp_path: Path) -> None:
    found = cli("status", "--state", str(tmp_path), "--port-offset", "100")
    assert found.returncode == 1
    assert found.stderr.startswith(f"patchbay: nothing runs on {tmp_path}: ")
