"""The health command: quick, since containers are asked all day."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patchbay.cli.health import main
from patchbay.health import Heartbeat, heartbeat_file, instance_id, write_heartbeat
from patchbay.testing import PATIENCE_S


def beat(state: Path, unit: str = "locker.edge", name: str = "pi1", *, online: bool = True) -> None:
    heartbeat = Heartbeat(unit=unit, pid=os.getpid(), online=online, at=time.time())
    write_heartbeat(heartbeat_file(state, instance_id(unit, name)), heartbeat)


def test_a_healthy_unit_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat(tmp_path)
    assert main(["locker.edge", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "locker.edge: online\n"


def test_one_that_is_not_online_is_healthy_and_not_ready(tmp_path: Path) -> None:
    beat(tmp_path, online=False)
    assert main(["locker.edge", "--state", str(tmp_path)]) == 0
    assert main(["locker.edge", "--ready", "--state", str(tmp_path)]) == 1
    beat(tmp_path)
    assert main(["locker.edge", "--ready", "--state", str(tmp_path)]) == 0


def test_the_instance_that_is_asked_for_speaks(tmp_path: Path) -> None:
    beat(tmp_path, name="pi1", online=False)
    beat(tmp_path, name="pi2")
    assert main(["locker.edge", "--ready", "--instance", "pi1", "--state", str(tmp_path)]) == 1
    assert main(["locker.edge", "--instance", "pi2", "--state", str(tmp_path)]) == 0


def test_without_a_name_all_that_ran_here_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(tmp_path)]) == 1
    beat(tmp_path, "locker.edge")
    assert main(["--state", str(tmp_path)]) == 0
    beat(tmp_path, "mesh.uart", online=False)
    capsys.readouterr()
    assert main(["--state", str(tmp_path), "--ready"]) == 1
    assert capsys.readouterr().out.startswith("locker.edge online; mesh.uart running but not")


def test_the_environment_says_where_state_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat(tmp_path)
    monkeypatch.setenv("PATCHBAY_RUNTIME__STATE_DIR", str(tmp_path))
    assert main(["locker.edge"]) == 0


def test_a_settings_file_says_where_state_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATCHBAY_RUNTIME__STATE_DIR", raising=False)
    beat(tmp_path / "there")
    file = tmp_path / "patchbay.toml"
    file.write_text(f'[runtime]\nstate_dir = "{tmp_path / "there"}"\n')
    assert main(["locker.edge", "--config", str(file)]) == 0


def test_a_wrong_settings_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PATCHBAY_RUNTIME__STATE_DIR", raising=False)
    file = tmp_path / "patchbay.toml"
    file.write_text("[nothing]\n")
    assert main(["locker.edge", "--config", str(file)]) == 1
    assert capsys.readouterr().err.startswith("patchbay: ")


def test_compose_s_question_loads_next_to_nothing(tmp_path: Path) -> None:
    """It is asked within the unit's own limit of memory. (Without `site`: an editable installation
    imports what an image does not.)"""
    beat(tmp_path)
    program = (
        "import sys, patchbay.cli\n"
        "try: patchbay.cli.main()\n"
        "finally: print(sorted({'argparse', 'msgspec', 'pathlib', 'socket'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n{program}",
            "health",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={**os.environ, "PATCHBAY_RUNTIME__STATE_DIR": str(tmp_path)},
    )
    assert done.stdout == "online\n[]\n"


def test_it_loads_neither_typer_nor_the_settings(tmp_path: Path) -> None:
    beat(tmp_path)
    program = (
        "import sys, patchbay.cli\n"
        "try: patchbay.cli.main()\n"
        "finally: print(sorted({'typer', 'rich', 'patchbay.settings'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "health", "locker.edge", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "locker.edge: online\n[]\n"
