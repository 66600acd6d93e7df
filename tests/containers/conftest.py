"""One engine, one image and one whole system for all tests in containers.

Without an engine they are skipped, and one line says why. At the end of the run another one says
what they ran on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.containers.composed import System
from tests.containers.engine import IMAGE, Engine, Missing
from tests.containers.engine import engine as make_engine

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # its image would come from a registry

_said: list[str] = []


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the images; it stays as it was found."""
    try:
        with make_engine(tmp_path_factory.mktemp("engine")) as found:
            _said.append(found.said())
            yield found
    except Missing as reason:
        _said.append(f"skipped, {reason}")
        pytest.skip(f"no containers here: {reason}")


@pytest.fixture(scope="session")
def project(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> System:
    """The project of compose.yaml, not started, with the image of our units built."""
    system = System(engine, tmp_path_factory.mktemp("compose"))
    system.compose("build", "setup")
    return system


@pytest.fixture(scope="session")
def unit_image(project: System) -> str:
    """The name of that image."""
    return IMAGE


@pytest.fixture(scope="session")
def system(project: System) -> Iterator[System]:
    """The whole system, started from nothing, and healthy."""
    system = project
    try:
        system.up()
        system.healthy()
        yield system
    finally:
        system.down()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests in containers ran on."""
    for line in dict.fromkeys(_said):
        terminalreporter.write_line(f"containers: {line}")
