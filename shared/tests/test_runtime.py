"""Units as processes, run by the real command line against a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchbay import health
from patchbay.runtime import main
from patchbay.testing import PATIENCE_S, MakeBus, Part, free_port, until

TESTS = Path(__file__).parent


class Process:
    """One ``python -m patchbay.runtime ...`` and what it logged."""

    def __init__(
        self, directory: Path, port: int, arguments: tuple[str, ...], settings: dict[str, str]
    ) -> None:
        self.state_dir = directory / "state"
        self.errors = directory / f"{'-'.join(arguments)}.err"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "patchbay.runtime", *arguments, "--instance", "pi1"],
            cwd=directory,
            env=environment(directory, port) | settings,
            stdout=subprocess.DEVNULL,
            stderr=self.errors.open("wb"),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        return [line for line in self.lines() if line["event"] == event]

    def lines(self) -> list[dict[str, Any]]:
        text = self.errors.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    async def told(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return await self.exit_code()


def environment(directory: Path, port: int) -> dict[str, str]:
    """Ours, with the service of `a_unit` installed and a broker at this port."""
    info = directory / "odd-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[patchbay.services]\nodd = a_unit:SERVICE\n")
    paths = (str(TESTS), str(directory), os.environ.get("PYTHONPATH", ""))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PATCHBAY_BROKER__PORT": str(port),
        "PATCHBAY_BROKER__BACKOFF_INITIAL_S": "0.05",
        "PATCHBAY_BROKER__BACKOFF_MAX_S": "0.2",
        "PATCHBAY_RUNTIME__STATE_DIR": str(directory / "state"),
    }


class Start:
    """Starts processes and sees to it that none is left."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.processes: list[Process] = []

    def __call__(self, *arguments: str, **settings: str) -> Process:
        self.processes.append(Process(self.directory, self.port, arguments, settings))
        return self.processes[-1]

    def end(self) -> None:
        for one in self.processes:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()


@pytest.fixture
def start(tmp_path: Path, mosquitto: Part) -> Iterator[Start]:
    starter = Start(tmp_path, mosquitto.port)
    yield starter
    starter.end()


@pytest.fixture
def start_alone(tmp_path: Path) -> Iterator[Start]:
    """As `start`, where there is no broker."""
    starter = Start(tmp_path, free_port())
    yield starter
    starter.end()


class Retained:
    """The last payload of each status topic."""

    def __init__(self, make_bus: MakeBus) -> None:
        self.topics: dict[str, bytes] = {}
        self.bus = make_bus("observer")
        self.bus.listen("patchbay/status/#", self._hear)
        self.bus.start()

    def _hear(self, message: Any) -> None:
        self.topics[message.topic] = message.payload
        message.ack()

    def of(self, instance: str) -> bytes:
        return self.topics.get(f"patchbay/status/{instance}", b"")

    def info(self, instance: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.topics[f"patchbay/status/{instance}/info"])
        return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_unit_says_online_and_offline_and_leaves_with_0(
    start: Start, make_bus: MakeBus, number: signal.Signals
) -> None:
    retained = Retained(make_bus)
    unit = start("odd.well")
    await until(lambda: retained.of("odd-well-pi1") == b"online")
    assert await unit.told(number) == 0
    await until(lambda: retained.of("odd-well-pi1") == b"offline")
    assert unit.said("taken down")[0]["connected"], "the teardown still has the bus"


async def test_a_unit_tells_what_it_is_before_it_says_online(
    start: Start, make_bus: MakeBus
) -> None:
    retained = Retained(make_bus)
    unit = start("odd.well")
    await until(lambda: retained.of("odd-well-pi1") == b"online")
    info = retained.info("odd-well-pi1")
    assert info["unit"] == "odd.well"
    assert info["pid"] == unit.pid
    assert info["backlog"] == 3
    assert info["detail"] == {"boards": 5}
    assert unit.said("no number for the info")[0]["key"] == "broken"


async def test_the_last_will_of_a_killed_unit_says_offline(start: Start, make_bus: MakeBus) -> None:
    retained = Retained(make_bus)
    unit = start("odd.well")
    await until(lambda: retained.of("odd-well-pi1") == b"online")
    await unit.told(signal.SIGKILL)
    await until(lambda: retained.of("odd-well-pi1") == b"offline")
    assert not health.check("odd.well", unit.state_dir).ok


async def test_a_unit_is_ready_while_it_is_online(start: Start, mosquitto: Part) -> None:
    unit = start("odd.well")

    def healthy() -> bool:
        return health.check("odd.well", unit.state_dir, "pi1", ready=True).ok

    await until(healthy)
    mosquitto.kill()
    await until(lambda: not healthy())
    assert health.check("odd.well", unit.state_dir, "pi1").ok  # a restart would heal nothing
    assert unit.process.poll() is None
    mosquitto.start()
    await until(healthy)
    assert await unit.told() == 0
    assert list((unit.state_dir / "run").iterdir()) == []


async def test_a_unit_starts_and_stops_without_a_broker_and_says_so(start_alone: Start) -> None:
    unit = start_alone("odd.well")
    await until(lambda: unit.errors.exists() and unit.said("not connected"))
    await until(lambda: health.check("odd.well", unit.state_dir).reason.startswith("running but"))
    assert await unit.told() == 0


async def test_a_unit_carries_only_what_it_needs(start: Start, make_bus: MakeBus) -> None:
    retained = Retained(make_bus)
    unit = start("odd.well")
    await until(lambda: retained.of("odd-well-pi1") == b"online")
    (line,) = unit.said("ready")
    assert line["modules"] == []
    if sys.platform == "linux":
        status = Path(f"/proc/{unit.pid}/status").read_text()
        resident_kb = int(status.partition("VmRSS:")[2].split()[0])
        assert resident_kb < 50_000


async def test_a_role_finds_its_settings_and_a_directory(start_alone: Start) -> None:
    start_alone.directory.joinpath("patchbay.toml").write_text(
        "[runtime]\ndemo = true\n[odd]\nport = 6000\n"
    )
    unit = start_alone("odd.well")
    await until(lambda: unit.said("ready"))
    (line,) = unit.said("ready")
    assert line["port"] == 6000
    assert line["listen_host"] == "127.0.0.1"
    assert line["state_dir"]


async def test_a_unit_may_open_as_many_files_as_an_edge_has_devices(start_alone: Start) -> None:
    unit = start_alone("odd.well")
    await until(lambda: unit.said("ready"))
    soft, hard = unit.said("ready")[0]["open_files"]
    assert soft == hard or soft >= 65_536


async def test_a_mistake_in_a_role_is_logged_with_its_place_and_exits_with_1(
    start_alone: Start,
) -> None:
    unit = start_alone("odd.crash")
    assert await unit.exit_code() == 1
    (line,) = unit.said("unit failed")
    assert "a mistake in the set-up" in line["exception"]
    assert "a_unit.py" in line["exception"]


async def test_what_people_can_mend_is_one_clear_line(start_alone: Start) -> None:
    unit = start_alone("odd.unavailable")
    assert await unit.exit_code() == 1
    (line,) = unit.lines()
    assert line["event"] == "cannot listen on 127.0.0.1:5000: the port is in use"
    assert line["logger"] == "odd.unavailable"
    assert "exception" not in line


async def test_a_mistake_in_a_task_takes_the_unit_down_in_good_order(start: Start) -> None:
    unit = start("odd.task")
    assert await unit.exit_code() == 1
    (line,) = unit.said("unit failed")
    assert line["task"] == "odd.task: breaking down"
    assert "a mistake in a task" in line["exception"]
    assert unit.said("taken down")


async def test_a_mistake_in_a_callback_is_logged_with_its_place(start: Start) -> None:
    unit = start("odd.callback")
    await until(lambda: unit.said("unhandled error"))
    (line,) = unit.said("unhandled error")
    assert "a mistake in a callback" in line["exception"]


QUICKLY_STUCK = {"PATCHBAY_RUNTIME__STUCK_AFTER_S": "1.0"}


async def test_a_unit_whose_work_does_not_get_on_ends_in_good_order_to_be_started_again(
    start: Start,
) -> None:
    for count in (1, 2):
        unit = start("odd.stuck", **QUICKLY_STUCK)
        if count == 2:  # the first restart has healed nothing: this one waits a minute
            await until(lambda: unit.said("progress"))  # noqa: B023  awaited at once
            await asyncio.sleep(5)
            assert unit.process.poll() is None
            continue
        assert await unit.exit_code() == 1
        assert unit.said("stuck: no progress of wheel: starting again")
        assert unit.said("taken down")
    assert not health.check("odd.stuck", unit.state_dir, "pi1").ok
    assert await unit.told() == 0


@pytest.mark.parametrize("role", ["waits", "held"])
async def test_a_unit_that_waits_for_others_or_has_a_pump_on_is_not_started_again(
    start: Start, make_bus: MakeBus, role: str
) -> None:
    retained = Retained(make_bus)
    unit = start(f"odd.{role}", **QUICKLY_STUCK)
    await until(lambda: unit.said("progress"))
    state = "waiting" if role == "waits" else "stuck"
    await until(lambda: retained.info(f"odd-{role}-pi1")["state"] == state)
    await asyncio.sleep(5)
    assert unit.process.poll() is None
    assert health.check(f"odd.{role}", unit.state_dir, "pi1").ok == (role == "waits")
    assert await unit.told() == 0


async def test_a_role_that_ends_by_itself_is_a_failure(start_alone: Start) -> None:
    unit = start_alone("odd.early")
    assert await unit.exit_code() == 1
    assert "ended before it was told to" in unit.said("unit failed")[0]["exception"]


async def test_a_unit_whose_instance_id_is_taken_stops_with_one_line(start: Start) -> None:
    unit = start("odd.taken")
    assert await unit.exit_code() == 1
    assert unit.said("another client uses our instance id")


async def test_a_role_that_still_waits_in_its_set_up_stops_at_once(start_alone: Start) -> None:
    unit = start_alone("odd.waiting")
    await until(lambda: unit.said("ready"))
    assert await unit.told() == 0
    assert unit.said("taken down")
    assert not unit.said("still running")


async def test_a_role_that_hangs_is_named_and_left_behind(start: Start, make_bus: MakeBus) -> None:
    retained = Retained(make_bus)
    unit = start("odd.hanging")
    await until(lambda: retained.of("odd-hanging-pi1") == b"online")
    assert await unit.told() == 1
    (line,) = (line for line in unit.said("still running") if line["task"] == "odd.hanging")
    assert "a_unit.py:" in line["where"]


async def test_a_role_that_blocks_the_loop_is_ended_with_a_traceback(
    start: Start, make_bus: MakeBus
) -> None:
    retained = Retained(make_bus)
    unit = start("odd.blocking")
    await until(lambda: retained.of("odd-blocking-pi1") == b"online")
    assert await unit.told() == 1
    assert "in blocking" in unit.errors.read_text()


async def test_several_units_of_one_process_are_told_apart(start: Start, make_bus: MakeBus) -> None:
    retained = Retained(make_bus)
    unit = start("odd.well", "odd.hanging", "odd.well")
    await until(lambda: retained.of("odd-well-pi1") == b"online")
    await until(lambda: retained.of("odd-hanging-pi1") == b"online")
    await until(lambda: health.check("odd", unit.state_dir).ok)


async def test_one_that_fails_takes_the_others_of_its_process_along(start: Start) -> None:
    unit = start("odd.well", "odd.crash")
    assert await unit.exit_code() == 1
    assert unit.said("unit failed")[0]["logger"] == "odd.crash"


async def test_a_unit_that_cannot_write_its_heartbeat_says_so_once_and_lives(
    start_alone: Start, tmp_path: Path
) -> None:
    """As on a full disk."""
    in_the_way = tmp_path / "state/run"
    in_the_way.parent.mkdir()
    in_the_way.touch()
    process = start_alone("odd.well")
    await until(lambda: process.said("no heartbeat"))
    in_the_way.unlink()
    await until((in_the_way / "odd-well-pi1.json").exists)
    assert await process.told() == 0
    assert len(process.said("no heartbeat")) == 1


async def test_a_supervised_unit_ends_with_its_parent(start_alone: Start, tmp_path: Path) -> None:
    command = f"{sys.executable} -m patchbay.runtime odd.waiting --supervised & echo $!; wait"
    errors = tmp_path / "supervised.err"
    parent = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        command,
        cwd=tmp_path,
        env=environment(tmp_path, start_alone.port),
        stdout=asyncio.subprocess.PIPE,
        stderr=errors.open("wb"),
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    try:
        await until(lambda: "ready" in errors.read_text())
        parent.kill()
        await parent.wait()
        await until(lambda: not _runs(pid))
    finally:
        if _runs(pid):
            os.kill(pid, signal.SIGKILL)


def test_an_unknown_unit_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["nothing.edge"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("patchbay: nothing.edge: no such service; there are ")
    assert said.count("\n") == 1


def test_a_wrong_setting_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[broker]\nprot = 1\n")
    assert main(["locker.edge", "--config", "mine.toml"]) == 1
    said = capsys.readouterr().err
    assert said == "patchbay: mine.toml: [broker] prot: unknown key (did you mean port?)\n"


def _runs(pid: int) -> bool:
    """Is there such a process, and is it no zombie that waits for its parent?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_state_directory_that_cannot_be_made_is_one_clear_line(start_alone: Start) -> None:
    unit = start_alone("odd.well", PATCHBAY_RUNTIME__STATE_DIR="/proc/nowhere")
    assert await unit.exit_code() == 1
    (line,) = [line for line in unit.lines() if line["level"] == "error"]
    assert line["event"].startswith("[runtime] state_dir: /proc/nowhere")
    assert "exception" not in line
