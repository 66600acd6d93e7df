"""The driver of a Raspberry Pi, against a module of RPi.GPIO's name that writes down each call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from patchbay.errors import SettingsError
from patchbay_bartender.edge.bank import Bank
from patchbay_bartender.edge.rpi import RpiGpio
from patchbay_bartender.settings import BOARD_PINS
from tests.bartender_bar import Hand


class FakeGpio(ModuleType):
    """What we use of RPi.GPIO 0.7, with its rules: a mode first, then a set-up, then levels."""

    BOARD, BCM = 10, 11
    OUT, IN = 0, 1
    LOW, HIGH = 0, 1

    def __init__(self) -> None:
        super().__init__("RPi.GPIO")
        self.calls: list[tuple[Any, ...]] = []
        self.mode: int | None = None
        self.pins: dict[int, int] = {}
        """Outputs, and their levels. A pin that is not there is an input: it floats."""

    def setwarnings(self, wanted: bool) -> None:
        self.calls.append(("setwarnings", wanted))

    def setmode(self, mode: int) -> None:
        if self.mode not in (None, mode):
            raise ValueError("A different mode has already been set!")
        self.calls.append(("setmode", mode))
        self.mode = mode

    def setup(self, channel: int, direction: int, *, initial: int) -> None:
        if self.mode is None:
            raise RuntimeError("Please set pin numbering mode using GPIO.setmode()")
        self.calls.append(("setup", channel, direction, initial))
        self.pins[channel] = initial

    def output(self, channel: int, level: int) -> None:
        if channel not in self.pins:
            raise RuntimeError("The GPIO channel has not been set up as an OUTPUT")
        self.calls.append(("output", channel, level))
        self.pins[channel] = level

    def cleanup(self, channels: list[int]) -> None:
        self.calls.append(("cleanup", list(channels)))
        for channel in channels:
            del self.pins[channel]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGpio:
    module = FakeGpio()
    package = ModuleType("RPi")
    package.GPIO = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "RPi", package)
    monkeypatch.setitem(sys.modules, "RPi.GPIO", module)
    return module


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "RPi.GPIO", None)
    return None


def bank(hand: Hand, *, release: bool = False, active_low: bool = True) -> Bank:
    gpio = RpiGpio(release=release)
    return Bank(gpio, BOARD_PINS, active_low=active_low, max_run_s=300, clock=hand)


def test_pins_are_outputs_in_board_numbering_and_high_from_the_first_moment(
    fake: FakeGpio, hand: Hand
) -> None:
    with bank(hand):
        assert fake.calls == [
            ("setwarnings", False),
            ("setmode", FakeGpio.BOARD),
            *(("setup", pin, FakeGpio.OUT, FakeGpio.HIGH) for pin in BOARD_PINS),
        ]


def test_a_pump_is_on_while_its_pin_is_low(fake: FakeGpio, hand: Hand) -> None:
    with bank(hand) as pumps:
        pumps.start({0: 1.0, 7: 2.0})
        assert fake.calls[-2:] == [("output", 7, FakeGpio.LOW), ("output", 22, FakeGpio.LOW)]
        hand.now += 1
        pumps.sweep()
        assert fake.calls[-1] == ("output", 7, FakeGpio.HIGH)
        assert fake.pins[22] == FakeGpio.LOW


def test_at_the_end_all_pins_are_high_and_stay_the_outputs_that_hold_the_relays_off(
    fake: FakeGpio, hand: Hand
) -> None:
    with bank(hand) as pumps:
        pumps.start({0: 10.0, 5: 10.0})
    assert fake.pins == dict.fromkeys(BOARD_PINS, FakeGpio.HIGH)
    assert "cleanup" not in [name for name, *_ in fake.calls]


def test_pins_that_are_to_be_released_are_off_before_and_no_others_are(
    fake: FakeGpio, hand: Hand
) -> None:
    with bank(hand, release=True) as pumps:
        pumps.start({0: 10.0})
    assert fake.calls[-9:-1] == [("output", pin, FakeGpio.HIGH) for pin in BOARD_PINS]
    assert fake.calls[-1] == ("cleanup", list(BOARD_PINS))


def test_relays_that_are_active_high_begin_low(fake: FakeGpio, hand: Hand) -> None:
    with bank(hand, active_low=False) as pumps:
        assert set(fake.pins.values()) == {FakeGpio.LOW}
        pumps.start({3: 1.0})
        assert fake.pins[13] == FakeGpio.HIGH
    assert set(fake.pins.values()) == {FakeGpio.LOW}


def test_a_process_after_a_kill_begins_with_all_off(fake: FakeGpio, hand: Hand) -> None:
    killed = bank(hand)
    killed.__enter__()
    killed.start({2: 100})
    assert fake.pins[12] == FakeGpio.LOW
    with bank(hand):
        assert fake.pins == dict.fromkeys(BOARD_PINS, FakeGpio.HIGH)


@pytest.mark.usefixtures("absent")
def test_without_the_library_it_is_said_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"install patchbay-bartender\[pi\]"):
        RpiGpio(release=False)
