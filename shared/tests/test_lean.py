"""What happens to be installed is not imported for its own sake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from patchbay.lean import without


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ("log", ("rich", "typing_extensions")),
        ("bus", ("dns",)),
        ("store", ("cryptography",)),
    ],
)
def test_an_import_of_ours_leaves_out_what_we_do_not_use(
    ours: str, others: tuple[str, ...]
) -> None:
    """And who needs it can import it afterwards."""
    program = (
        f"import sys, importlib, patchbay.{ours}\n"
        f"print([one for one in {others} if one in sys.modules])\n"
        f"for one in {others}: importlib.import_module(one)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_what_is_imported_already_stays() -> None:
    with without("json"):
        import json
    assert json.loads("1") == 1


def test_what_is_left_out_is_not_found_and_found_again() -> None:
    sys.modules.pop("this", None)
    with without("this"), pytest.raises(ImportError):
        import this  # noqa: F401
    assert "this" not in sys.modules
