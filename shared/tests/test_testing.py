"""What tests measure of the machine that they run on."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from patchbay.testing import Lateness, start_s, until


async def test_who_could_not_run_was_late_by_as_much() -> None:
    with Lateness() as lateness:
        await until(lambda: lateness.worst_s > 0)  # it sleeps
        ctypes.PyDLL(None).usleep(300_000)  # no other thread of ours runs meanwhile
        assert lateness.worst_s >= 0.25  # it may have slept for some of it


def test_a_start_is_measured_to_its_end() -> None:
    assert start_s("time; time.sleep(0.2)") >= 0.2
    with pytest.raises(subprocess.CalledProcessError):
        start_s("patchbay_has_no_such_module")
