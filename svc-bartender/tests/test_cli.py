"""``patchbay bartender``, as processes beside a bar that is open."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay.testing import PATIENCE_S, Part, until
from tests.bartender_bar import House, PumpsByHand, with_settings
from tests.house import house_environ

Done = subprocess.CompletedProcess[str]


class Shell:
    """Runs commands, each to its end."""

    def __init__(self, directory: Path, port: int) -> None:
        self._environ = house_environ(
            BROKER__PORT=port, RUNTIME__STATE_DIR=directory / "none", BARTENDER__BAR="bar"
        )
        self._environ["COLUMNS"] = "200"

    async def run(self, *arguments: str) -> Done:
        command = [sys.executable, "-m", "patchbay.cli", "bartender", *arguments]

        def work() -> Done:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
                env=self._environ,
            )

        return await asyncio.to_thread(work)


@pytest.fixture
def shell(tmp_path: Path, mosquitto: Part) -> Shell:
    return Shell(tmp_path, mosquitto.port)


async def test_a_blend_shows_how_far_it_is_and_how_much_it_was(house: House, shell: Shell) -> None:
    done = await shell.run("blend", "0.02", "0=1.0", "7=0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("done: 30 ml")
    assert "blend" in done.stdout
    assert sorted(house.pins.ran()) == [0, 7]
    done = await shell.run("history", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert run["by"].startswith("cli")
    assert (run["kind"], run["status"], run["cup_size"]) == ("blend", "done", 0.02)


@with_settings(start_deadline_s=3)
async def test_an_unknown_outcome_is_one_line_and_an_exit_code_of_its_own(
    bar: House, pumps: PumpsByHand, shell: Shell
) -> None:
    done = await shell.run("blend", "0.02", "0=1.0")  # confirmed, and the pumps say nothing of it
    assert done.returncode == 3
    assert done.stderr.startswith("outcome unknown: pumps_lost: ")
    assert bar.heard.of("bar-pumps/cmd/confirm")


@with_settings(start_deadline_s=3)
async def test_a_run_that_the_pumps_do_not_ask_about_is_an_error(
    bar: House, pumps: PumpsByHand, shell: Shell
) -> None:
    pumps.asks = False
    done = await shell.run("refill", "0", "--no-wait")
    assert (done.returncode, done.stderr) == (1, "not_started: the pumps have not begun it\n")


async def test_what_is_refused_is_one_line_and_an_exit_code(house: House, shell: Shell) -> None:
    done = await shell.run("blend", "5", "0=1.0")
    assert (done.returncode, done.stderr) == (1, "bad_cup_size: cup_size is over 1 litres\n")
    done = await shell.run("refill", "9")
    assert (done.returncode, done.stderr) == (1, "no_such_pump: there is no pump '9'\n")
    done = await shell.run("blend", "0.1", "all")
    assert done.returncode == 2
    assert "PUMP=RATIO" in done.stderr
    assert house.pins.ran() == {}


async def test_a_stop_ends_a_blend_that_somebody_waits_for(house: House, shell: Shell) -> None:
    blending = asyncio.create_task(shell.run("blend", "0.5", "3=1.0"))
    await until(lambda: house.pins.on == [3])
    done = await shell.run("stop")
    assert done.stdout == "all pumps are off\n"
    assert house.pins.on == []
    ended = await blending
    assert ended.returncode == 1
    assert "stopped: stopped" in ended.stderr


async def test_who_does_not_wait_is_told_how_long_it_takes(house: House, shell: Shell) -> None:
    done = await shell.run("refill", "2", "--no-wait", "--json")
    answer = json.loads(done.stdout)
    assert answer["seconds"] == 3.0
    await until(lambda: house.pins.on == [2])
    assert house.domain.kept.bar.state.run is not None
    assert house.domain.kept.bar.state.run.id == answer["run_id"]


async def test_the_configuration_is_shown_and_set(house: House, shell: Shell) -> None:
    done = await shell.run(
        "config", "--pump", "5", "--disable", "--speed-ratio", "1.5", "--sec-per-liter", "100"
    )
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("5 "))
    assert row == ["5", "no", "4", "1.5", "0"]
    assert done.stdout.endswith("100 seconds a litre\n")
    state = json.loads((await shell.run("status", "--json")).stdout)["bar"]
    assert state["sec_per_liter"] == 100
    assert state["driver"] == "simulated"
    shown = (await shell.run("status")).stdout
    assert "bar bar" in shown
    assert "simulated" in shown


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    done = await Shell(tmp_path, 9).run("status")
    assert done.returncode == 1
    assert "no broker at 127.0.0.1:9" in done.stderr
