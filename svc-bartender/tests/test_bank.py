"""The bank, by a clock that the test drives: no pump is on but for a stated time."""

from __future__ import annotations

import pytest

from patchbay_bartender.settings import BOARD_PINS
from tests.bartender_bar import Hand, Levels, bank, on


def test_all_pumps_are_off_at_the_start_before_anything_else(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand):
        assert gpio.said == [("setup", pin, True) for pin in BOARD_PINS]
        assert on(gpio) == []


def test_a_pump_is_on_for_its_time_and_no_longer(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        pumps.start({0: 1.7, 5: 5.96})
        assert on(gpio) == [0, 5]
        assert pumps.due == pytest.approx(hand.now + 1.7)
        hand.now += 1.69
        assert pumps.sweep() == []
        hand.now += 0.011
        assert pumps.sweep() == [0]
        assert on(gpio) == [5]
        hand.now += 4.26
        assert pumps.sweep() == [5]
        assert on(gpio) == []
        assert pumps.ran == {0: pytest.approx(1.701), 5: pytest.approx(5.961)}
        assert pumps.due is None


def test_no_pump_is_on_for_longer_than_the_longest_run(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand, max_run_s=10) as pumps:
        pumps.start({3: 1e9})
        hand.now += 10
        assert pumps.sweep() == [3]
        assert on(gpio) == []


def test_a_stop_switches_everything_off_and_says_what_it_was(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        pumps.start({1: 10, 2: 20})
        hand.now += 3
        assert pumps.stop() == [1, 2]
        assert on(gpio) == []
        assert pumps.ran == {1: pytest.approx(3), 2: pytest.approx(3)}
        assert pumps.stop() == []


def test_an_exception_leaves_no_pump_on(hand: Hand) -> None:
    gpio = Levels()

    def crash() -> None:
        with bank(gpio, hand) as pumps:
            pumps.start({1: 10, 2: 20})
            assert on(gpio) == [1, 2]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert on(gpio) == []
    assert gpio.closed


def test_a_pin_that_cannot_be_set_leaves_none_on(hand: Hand) -> None:
    gpio = Levels()
    gpio.broken.add((BOARD_PINS[2], False))
    with bank(gpio, hand) as pumps:
        with pytest.raises(OSError, match="broken"):
            pumps.start({1: 10, 2: 20, 3: 30})
        assert on(gpio) == []
        assert pumps.on == []


def test_one_pin_that_cannot_be_switched_off_does_not_keep_the_others_on(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        pumps.start({1: 10, 2: 20, 3: 30})
        gpio.broken.add((BOARD_PINS[1], True))
        with pytest.raises(OSError, match="broken"):
            pumps.stop()
        assert on(gpio) == [1]
        assert pumps.on == [1]  # so whoever watches tries again
        gpio.broken.clear()
        pumps.stop()
        assert on(gpio) == []


def test_pumps_that_are_on_are_not_switched_on_again(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand) as pumps:
        pumps.start({1: 10})
        with pytest.raises(RuntimeError):
            pumps.start({2: 10})
        assert on(gpio) == [1]


def test_relays_that_are_active_high_are_off_when_low(hand: Hand) -> None:
    gpio = Levels()
    with bank(gpio, hand, active_low=False) as pumps:
        assert gpio.said == [("setup", pin, False) for pin in BOARD_PINS]
        pumps.start({0: 1})
        assert gpio.levels[7] is True
    assert set(gpio.levels.values()) == {False}


def test_what_remains_is_the_slowest_pump_s(hand: Hand) -> None:
    with bank(Levels(), hand) as pumps:
        assert pumps.remaining() == 0
        pumps.start({1: 10, 2: 20})
        hand.now += 5
        assert pumps.remaining() == pytest.approx(15)
        assert pumps.on == [1, 2]
