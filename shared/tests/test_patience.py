"""How long a sender waits: learnt, doubled, bounded."""

from __future__ import annotations

from patchbay.outbox import Patience
from patchbay.outbox.patience import PATIENCE_MAX_S, PATIENCE_S


def wait_of(patience: Patience, now: float) -> float:
    """How much later it would be over; whole tenths of a second. It is over then."""
    for tenths in range(10_000):
        if patience.is_over(now + tenths / 10):
            return tenths / 10 - 0.1
    raise AssertionError("never over")


def test_without_an_acknowledgement_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    patience = Patience()
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(wait_of(patience, now))
        now += waits[-1] + 0.1
    assert [round(one) for one in waits] == [5, 10, 20, 40, 60, 60]


def test_a_domain_that_takes_long_is_waited_for_from_then_on() -> None:
    patience = Patience()
    patience.begin(100.0)
    assert patience.is_over(105.1)
    patience.progressed(106.5)
    assert not patience.is_over(106.5 + 12.9)
    assert patience.is_over(106.5 + 13.1)


def test_what_it_takes_is_measured_from_the_first_sending_though_it_was_repeated() -> None:
    patience = Patience()
    patience.begin(0.0)
    assert patience.is_over(6.0)
    patience.progressed(6.5)  # for the first: nobody is that quick
    assert not patience.is_over(6.5 + 12.9)


def test_a_small_quick_round_does_not_make_it_forget_the_large_ones() -> None:
    patience = Patience()
    patience.begin(0.0)
    patience.progressed(8.0)
    patience.progressed(8.1)
    assert not patience.is_over(8.1 + 12.7)
    assert patience.is_over(8.1 + 12.9)


def test_a_domain_that_is_quick_again_is_soon_waited_for_no_longer_than_at_first() -> None:
    patience = Patience()
    patience.begin(0.0)
    patience.progressed(3600.0)
    assert not patience.is_over(3600.0 + PATIENCE_MAX_S)
    for acknowledged in range(1, 13):
        patience.progressed(3600.0 + acknowledged)
    assert wait_of(patience, 3612.0) == PATIENCE_S


def test_time_in_which_nothing_could_arrive_is_not_what_the_domain_took() -> None:
    patience = Patience()
    patience.begin(0.0)
    patience.begin(3600.0)  # connected again
    patience.progressed(3601.0)
    assert wait_of(patience, 3601.0) == PATIENCE_S
