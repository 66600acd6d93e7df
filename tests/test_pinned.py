"""tools/pinned prints the part of requirements.txt that an image needs."""

from __future__ import annotations

import re
import subprocess
import sys

from patchbay.testing import PATIENCE_S
from tests.pages import ROOT


def pinned(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/pinned", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout


def names(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def test_what_runs_is_there_with_all_that_it_stands_on_and_no_tool() -> None:
    found = names(pinned("--runtime"))
    assert {"paho-mqtt", "msgspec", "pymongo", "dnspython", "typer", "shellingham"} <= found
    assert not {"pytest", "mypy", "playwright", "numpy", "secantusdb", "flit-core"} & found


def test_every_package_comes_with_its_hashes() -> None:
    for block in re.split(r"\n(?=\w)", pinned("--runtime")):
        assert "--hash=sha256:" in block


def test_a_package_is_found_by_any_of_its_spellings() -> None:
    assert names(pinned("SecantusDB")) == names(pinned("secantusdb")) > {"pymongo", "shapely"}
    assert names(pinned("flit_core")) == {"flit-core"}


def test_an_unknown_package_is_said_and_exit_code_1() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/pinned", "no-such-package"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert "no-such-package" in done.stderr
