"""``patchbay chaos`` runs, breaks and reckons a system of its own, and no other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from patchbay.testing import PATIENCE_S
from tests.running import CLI, all_gone, cli, wait_for


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """``patchbay chaos`` on this state directory; its output goes to ``out`` beside it."""
    command = [*CLI, "chaos", "--state", str(directory / "state"), *arguments]
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def output(directory: Path) -> str:
    return (directory / "out").read_text()


def figures(text: str) -> dict[str, list[int]]:
    """Accepted, refused, unknown, lost, doubled, miscounted and late of each service."""
    rows = re.findall(r"s +([a-z]+)((?: +\d+){7})$", text, re.MULTILINE)
    return {name: [int(number) for number in numbers.split()] for name, numbers in rows}


def test_a_short_run_finds_nothing_lost_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(
        tmp_path, "--minutes", "0.1", "--only", "locker,lantern", "--seed", "3"
    ) as process:
        wait_for(lambda: "faults begin" in output(tmp_path), "faults begin")
        children = set(psutil.Process(process.pid).children(recursive=True))
        assert len(children) >= 8
        code = process.wait(PATIENCE_S * 3)
    found = figures(output(tmp_path))
    assert set(found) == {"lantern", "locker"}, output(tmp_path)
    assert found["locker"][0] > 0
    assert [numbers[3:] for numbers in found.values()] == [[0] * 4] * 2, output(tmp_path)
    assert code == 0
    assert "seed 3" in output(tmp_path)
    assert (tmp_path / "state" / "chaos.log").read_text()
    assert all_gone(children)


def test_ctrl_c_ends_a_run_with_its_figures(tmp_path: Path) -> None:
    with running(tmp_path, "--minutes", "60", "--only", "lantern") as process:
        wait_for(lambda: "faults begin" in output(tmp_path), "faults begin")
        children = set(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S * 3)
    assert "interrupted" in output(tmp_path)
    found = figures(output(tmp_path))
    assert set(found) == {"lantern"}, output(tmp_path)
    accepted = found["lantern"][0]
    assert code == (0 if accepted else 1), "a run in which nothing was accepted shows nothing"
    assert all_gone(children)


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path, "--minutes", "60", "--only", "lantern") as process:
        wait_for(lambda: "faults begin" in output(tmp_path), "faults begin")
        children = set(psutil.Process(process.pid).children(recursive=True))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: all_gone(children), "all processes are gone")


def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("{}")
    done = cli("chaos", "--state", str(tmp_path), "--minutes", "0.1")
    assert done.returncode == 1
    assert f"{tmp_path} was not made by patchbay chaos" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["up.json"]


def test_an_unknown_service_is_named(tmp_path: Path) -> None:
    done = cli("chaos", "--state", str(tmp_path / "new"), "--only", "lanterns")
    assert done.returncode == 1
    assert "--only lanterns: no such service" in done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_minute_of_all_services_finds_nothing_lost(tmp_path: Path) -> None:
    with running(tmp_path, "--minutes", "1", "--seed", "11") as process:
        code = process.wait(600)
    found = figures(output(tmp_path))
    assert set(found) == {"allocator", "bartender", "lantern", "locker", "mesh"}, output(tmp_path)
    assert [numbers[3:] for numbers in found.values()] == [[0] * 4] * 5, output(tmp_path)
    assert code == 0
