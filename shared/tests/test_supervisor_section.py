"""A section for supervisord, read and run by supervisord."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from patchbay.deploy.supervisor_section import section
from patchbay.errors import SettingsError
from patchbay.health import check, heartbeat_file
from patchbay.testing import PATIENCE_S, Part, free_port, until

PYTHON = Path(sys.executable)
UNIT = "locker.edge"


def environ() -> dict[str, str]:
    return {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}


def programs(configuration: Path) -> list[object]:
    """What supervisord itself makes of it."""
    options = ServerOptions()
    options.realize(["-c", str(configuration)])
    return [one for group in options.process_group_configs for one in group.process_configs]


def test_it_says_what_the_boards_own_server_said(tmp_path: Path) -> None:
    text = section(UNIT, PYTHON, tmp_path, Path("/var/log"))
    keys = [line.partition("=")[0] for line in text.splitlines()[1:]]
    assert text.startswith("[program:locker.edge]\n")
    assert keys[:6] == [
        "directory",
        "command",
        "stderr_logfile",
        "stdout_logfile",
        "autostart",
        "autorestart",
    ]


def test_supervisord_reads_it_as_it_was_meant(tmp_path: Path) -> None:
    odd = tmp_path / "a 100% odd, 'place'"
    odd.mkdir()
    text = section(
        UNIT, PYTHON, odd, odd, ["--instance", "pi 1"], {"PATCHBAY_RUNTIME__STATE_DIR": "100% odd"}
    )
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(f"[supervisord]\nnodaemon=true\n{text}")
    [program] = programs(configuration)
    given = vars(program)
    assert given["name"] == UNIT
    assert given["directory"] == str(odd)
    assert given["stderr_logfile"] == str(odd / "patchbay-locker.edge.err.log")
    assert given["stdout_logfile"] == str(odd / "patchbay-locker.edge.log")
    assert given["autostart"] is True
    assert given["environment"] == {"PATCHBAY_RUNTIME__STATE_DIR": "100% odd"}
    assert given["command"].endswith("patchbay.runtime locker.edge --instance 'pi 1'")


@pytest.mark.parametrize(
    ("directory", "environment"),
    [
        ("/a\nb", {}),
        ("/a ;b", {}),
        ("/a", {"X": 'say "x"'}),
        ("/a", {"X": "don't"}),
        ("/a", {"X": "a\nb"}),
    ],
)
def test_what_no_section_can_say_is_refused(directory: str, environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="cannot stand in a section"):
        section(UNIT, PYTHON, Path(directory), Path("/var/log"), (), environment)


@pytest.fixture
def supervised(tmp_path: Path, mosquitto: Part) -> Iterator[Path]:
    """A supervisord with what the command printed, in the directory that is returned."""
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "patchbay.cli", "supervisor-conf", UNIT),
            *("--instance", "x", "--logs", str(tmp_path), "--state", str(tmp_path / "state")),
        ],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    ).stdout
    (tmp_path / "patchbay.toml").write_text(
        f"[broker]\nport = {mosquitto.port}\nbackoff_max_s = 0.5\n[locker]\nport = {free_port()}\n"
    )
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={tmp_path}/supervisord.log\n"
        f"pidfile={tmp_path}/supervisord.pid\n{printed}"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        cwd=tmp_path,
        env=environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield tmp_path
    process.terminate()
    process.wait(30)


def pid(state: Path) -> int:
    """The process that last said that it lives."""
    text = heartbeat_file(state, "locker-edge-x").read_text()
    return int(text.partition('"pid":')[2].partition(",")[0])


async def test_supervisord_runs_it_and_starts_it_again_when_it_is_killed(supervised: Path) -> None:
    state = supervised / "state"

    def is_well() -> bool:
        return check(UNIT, state).ok

    await until(is_well)
    first = pid(state)
    os.kill(first, signal.SIGKILL)
    await until(lambda: pid(state) != first)
    await until(is_well)
    log = supervised / "patchbay-locker.edge.err.log"
    await until(lambda: log.stat().st_size > 0)  # supervisord writes what it has read, when it does
    assert (supervised / "patchbay-locker.edge.log").exists()
