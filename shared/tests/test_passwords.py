"""Passwords, and the hash that mosquitto reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from patchbay.access.passwords import draw, fits, hashed
from patchbay.testing import PATIENCE_S


def test_no_two_passwords_are_alike_and_each_fits_into_a_url() -> None:
    drawn = {draw() for _ in range(100)}
    assert len(drawn) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", one) for one in drawn)


def test_a_hash_fits_its_own_password_only() -> None:
    one = hashed("secret")
    assert fits("secret", one)
    assert not fits("Secret", one)


def test_the_same_password_has_another_salt_each_time() -> None:
    assert hashed("secret") != hashed("secret")


@pytest.mark.parametrize("text", ["", "$7$", "$7$x$y$z", "$6$101$AAAA$AAAA", "plain", "$7$1$é$é"])
def test_what_is_no_hash_fits_nothing(text: str) -> None:
    assert not fits("secret", text)


def test_a_hash_is_read_as_mosquittos_own_program_writes_it(tmp_path: Path) -> None:
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    file = tmp_path / "passwords"
    subprocess.run(
        [program, "-b", "-c", str(file), "ann", "secret"], check=True, timeout=PATIENCE_S
    )
    name, _, theirs = file.read_text().strip().partition(":")
    assert name == "ann"
    assert fits("secret", theirs)
    assert not fits("guessed", theirs)
