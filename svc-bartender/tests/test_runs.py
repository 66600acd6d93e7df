"""Which runs are known, and what is estimated of one that was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.outbox import Outbox
from patchbay.testing import MakeBus
from patchbay_bartender.edge import runs
from patchbay_bartender.edge.runs import Begun, Runs, boot_id, estimate

BEGUN = Begun(run_id="r1", seconds={"0": 10.0, "5": 2.0}, at=100.0, boot="this")


def test_pumps_ran_until_we_switched_them_off_or_their_time_was_over() -> None:
    assert estimate(BEGUN, 104.0, "this") == {"0": 4.0, "5": 2.0}


def test_a_pump_is_counted_right_but_for_the_time_without_a_process() -> None:
    """Pump 5 was to be on from 100.01, when the write was done, to 102.01."""
    on_at, written_s = 100.01, 0.01
    for killed_at in (100.5, 101.9, 102.5, 109.0):
        for off_at in (killed_at + 0.1, killed_at + 2.0):
            ran = (off_at if killed_at < on_at + 2.0 else on_at + 2.0) - on_at
            error = estimate(BEGUN, off_at, "this")["5"] - ran
            assert -(off_at - killed_at) <= error <= written_s + 1e-9
    never_on = estimate(BEGUN, 102.0, "this")  # killed between the write and the pins
    assert never_on == {"0": 2.0, "5": 2.0}


def test_after_a_reboot_what_was_ordered_counts() -> None:
    assert estimate(BEGUN, 3.0, "another") == BEGUN.seconds
    unnamed = Begun(run_id="r1", seconds={"0": 1.0}, at=100.0, boot="")
    assert estimate(unnamed, 100.1, "") == {"0": 1.0}


def test_a_machine_without_a_boot_id_has_none(tmp_path: Path) -> None:
    assert boot_id(tmp_path / "none") == ""
    (tmp_path / "some").write_text("abc\n")
    assert boot_id(tmp_path / "some") == "abc"


async def test_runs_are_known_after_a_restart_and_the_one_under_way_is_cut_off(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    file = tmp_path / "outbox.sqlite"
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        first = Runs(outbox)
        assert (first.cut_off, first.last) == (None, None)
        first.remember("r0")
        first.begin(BEGUN)
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        second = Runs(outbox)
        assert "r0" in second
        assert "r1" in second
        assert "r2" not in second
        assert second.cut_off == BEGUN
        assert second.last == "r1"
        second.end("r1")
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        third = Runs(outbox)
        assert third.cut_off is None
        assert "r1" in third


async def test_the_end_of_another_run_does_not_end_the_one_under_way(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    file = tmp_path / "outbox.sqlite"
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        first = Runs(outbox)
        first.begin(BEGUN)
        first.end("r0")
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        assert Runs(outbox).cut_off == BEGUN


async def test_the_oldest_runs_are_forgotten(
    make_bus: MakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "REMEMBERED", 3)
    file = tmp_path / "outbox.sqlite"
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        known = Runs(outbox)
        for number in (9, 8, 7, 6, 5):  # by age, not by name
            known.remember(f"r{number}")
    async with Outbox(make_bus("a"), "bartender", file) as outbox:
        known = Runs(outbox)
        assert [f"r{number}" in known for number in (9, 8, 7, 6, 5)] == [
            False,
            False,
            True,
            True,
            True,
        ]


async def test_a_note_that_cannot_be_read_does_not_stop_the_pumps_edge(
    tmp_path: Path, make_bus: MakeBus
) -> None:
    async with Outbox(make_bus("bartender-pumps-1"), "bartender", tmp_path / "o.sqlite") as outbox:
        outbox.note("run/A", b"many")
        outbox.note("run/B", b"4")
        outbox.note("current", b"{}")
    async with Outbox(make_bus("bartender-pumps-1"), "bartender", tmp_path / "o.sqlite") as outbox:
        runs = Runs(outbox)
        assert ("A" in runs, "B" in runs, runs.cut_off) == (False, True, None)
        assert outbox.unreadable_notes == 2
