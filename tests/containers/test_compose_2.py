"""The same files by compose 2, which names and orders things its own way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.containers.composed import System
from tests.containers.engine import Engine
from tests.containers.honest import deliver_a_code


@pytest.mark.usefixtures("unit_image")
async def test_compose_2_starts_all_and_a_code_is_delivered(engine: Engine, tmp_path: Path) -> None:
    if 2 not in engine.composes:
        pytest.skip("compose 2 is not installed, and could not be had")
    system = System(engine, tmp_path, 2)
    try:
        system.up()
        system.healthy()
        assert {one.attrs["State"]["ExitCode"] for one in system.all_containers()} == {0}
        await deliver_a_code(system, "1066")
    finally:
        system.down()
    assert system.all_containers() == []
