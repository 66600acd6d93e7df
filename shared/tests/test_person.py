"""The names of a person's connections."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay.bus import person as module
from patchbay.bus.person import person
from patchbay.errors import Unavailable
from patchbay.settings import BrokerSettings

ELSEWHERE = """
import sys
from patchbay.bus.person import person
from patchbay.settings import BrokerSettings
print(person(BrokerSettings(username="ann", password="x", sessions=3), "test")[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of the test's own, which it gives back."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(module, "_held", [])


def test_where_client_ids_are_free_one_is_made_up() -> None:
    settings = BrokerSettings(username="ann", password="x")
    assert person(settings, "watch") == (settings, f"patchbay-watch-{os.getpid()}")


def test_each_connection_of_a_person_gets_a_name_of_its_own() -> None:
    settings = BrokerSettings(username="ann", password="x", sessions=3)
    given = [person(settings, "watch") for _ in range(3)]
    assert [name for _, name in given] == ["ann", "ann.2", "ann.3"]
    assert [one.username for one, _ in given] == ["ann", "ann.2", "ann.3"]
    with pytest.raises(Unavailable, match="3 commands of ann run already"):
        person(settings, "watch")


def test_all_names_have_the_password_of_the_first() -> None:
    settings = BrokerSettings(password_file="/etc/patchbay/{user}", sessions=2)
    files = [person(settings, "watch")[0].password_file for _ in range(2)]
    assert files == ["/etc/patchbay/operator"] * 2


def test_a_name_is_free_again_when_the_process_is_gone_even_killed() -> None:
    def elsewhere() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    first, name = elsewhere()
    second, other = elsewhere()
    try:
        assert (name, other) == ("ann", "ann.2")
        first.kill()
        first.wait()
        third, again = elsewhere()
        third.kill()
        third.communicate()
        assert again == "ann"
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_lock_that_is_somebody_elses_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / f"patchbay-{os.getuid()}-ann.lock").symlink_to("/nowhere/at/all")
    settings = BrokerSettings(username="ann", password="x", sessions=2)
    assert person(settings, "watch")[1] == "ann.2"
