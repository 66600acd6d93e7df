"""supervisord's configuration, read back by supervisord's own reader, and its socket's path."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from patchbay.errors import Unavailable
from patchbay.up import supervisor
from patchbay.up.plan import Plan, Program


def read_back(state: Path, units: list[Program]) -> Any:
    """What supervisord makes of our configuration."""
    made = Plan(
        infrastructure=[Program("broker", ["mosquitto"])],
        units=units,
        demos=[Program("locker.demo", ["demo"])],
        ports=[],
        addresses={},
    )
    supervisor.log_dir(state).mkdir(parents=True)
    path = state / "supervisord.conf"
    path.write_text(supervisor.render(made, state, state / "s.sock"))
    options = ServerOptions()
    options.realize(["-c", str(path)])
    return options


def test_groups_start_by_rising_priority_and_stop_by_falling(tmp_path: Path) -> None:
    options = read_back(tmp_path, [Program("locker.edge", ["edge"])])
    groups = {group.name: group.priority for group in options.process_group_configs}
    assert groups == {"infrastructure": 1, "units": 2, "demos": 3}


def test_what_dies_is_started_again_for_ever_and_takes_its_children_along(tmp_path: Path) -> None:
    options = read_back(tmp_path, [Program("locker.edge", ["edge"])])
    (unit,) = options.process_group_configs[1].process_configs
    assert unit.name == "locker.edge"
    assert unit.startretries == 1_000_000
    assert unit.stopasgroup
    assert unit.killasgroup
    assert unit.stdout_logfile == str(tmp_path / "log" / "locker.edge.log")


@pytest.mark.parametrize("name", ["a b", "100%", "it's"])
def test_odd_characters_in_paths_survive(tmp_path: Path, name: str) -> None:
    command = ["/opt/%s python/bin/python", "-m", "x y", name]
    options = read_back(tmp_path / name, [Program("locker.edge", command)])
    (unit,) = options.process_group_configs[1].process_configs
    assert unit.stdout_logfile == str(tmp_path / name / "log" / "locker.edge.log")
    assert shlex.split(unit.command) == command


def test_the_socket_is_in_the_state_directory(tmp_path: Path) -> None:
    state = Path("/srv/state")
    assert supervisor.socket_path(state) == state / "supervisor.sock"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files with a short path, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="pb") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_a_long_state_directory_gets_a_short_socket(tmp_path: Path, temporary: Path) -> None:
    path = supervisor.socket_path(tmp_path / ("long" * 40))
    other = supervisor.socket_path(tmp_path / ("Long" * 40))
    assert len(str(path)) < 100
    assert path != other
    assert path.parent.parent == temporary
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, temporary: Path) -> None:
    state = tmp_path / ("long" * 40)
    directory = supervisor.socket_path(state).parent
    directory.chmod(0o755)
    with pytest.raises(Unavailable, match=f"{directory} is not ours alone"):
        supervisor.socket_path(state)


def test_a_supervisord_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        supervisor.processes(tmp_path / "nothing.sock")
