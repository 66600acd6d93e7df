"""Pins in a file: they keep their levels, and tell when each changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay_bartender.edge import simulated
from patchbay_bartender.edge.simulated import Change, SimulatedGpio, changes
from tests.bartender_bar import Hand


def test_every_change_has_its_time(tmp_path: Path, hand: Hand) -> None:
    gpio = SimulatedGpio(tmp_path / "deep" / "pins", hand)
    gpio.setup([7, 11], True)
    hand.now += 1.5
    gpio.output(7, False)
    gpio.close()
    assert changes(tmp_path / "deep" / "pins") == [
        Change(1000.0, 7, True),
        Change(1000.0, 11, True),
        Change(1001.5, 7, False),
    ]


def test_a_file_that_a_power_cut_has_left_is_read_and_goes_on(tmp_path: Path, hand: Hand) -> None:
    file = tmp_path / "pins"
    file.write_bytes(b"900.0 7 1\n\0\0\xff\n901.0 11 0\n902.0 1")
    gpio = SimulatedGpio(file, hand)
    gpio.setup([7], True)
    gpio.close()
    SimulatedGpio(file, hand).setup([11], True)
    assert changes(file) == [
        Change(900.0, 7, True),
        Change(901.0, 11, False),
        Change(1000.0, 7, True),
        Change(1000.0, 11, True),
    ]


def test_pins_keep_their_levels_when_a_process_dies(tmp_path: Path, hand: Hand) -> None:
    SimulatedGpio(tmp_path / "pins", hand).close()
    first = SimulatedGpio(tmp_path / "pins", hand)
    first.setup([7], True)
    first.output(7, False)  # and nothing is closed
    assert changes(tmp_path / "pins")[-1] == Change(1000.0, 7, False)
    hand.now += 2
    second = SimulatedGpio(tmp_path / "pins", hand)
    second.setup([7], True)
    assert changes(tmp_path / "pins")[-2:] == [Change(1000.0, 7, False), Change(1002.0, 7, True)]
    first.close()
    second.close()


def test_there_is_nothing_to_read_before_there_are_pins(tmp_path: Path) -> None:
    assert changes(tmp_path / "pins") == []


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("1.000000 7 1\n2.000000 7")
    assert changes(tmp_path / "pins") == [Change(1.0, 7, True)]


def test_the_file_begins_anew_with_the_levels_that_are(
    tmp_path: Path, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "KEPT_CHANGES", 10)
    gpio = SimulatedGpio(tmp_path / "pins", hand)
    gpio.setup([7, 11], True)
    for _ in range(20):
        gpio.output(11, False)
        gpio.output(7, False)
        gpio.output(7, True)
    found = changes(tmp_path / "pins")
    assert len(found) <= 10
    assert {one.pin: one.level for one in found} == {7: True, 11: False}
    gpio.close()
