"""The rules, without a loop: who may pour, for how long, and what is counted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from patchbay_bartender import rules
from patchbay_bartender.bar import UNSETTLED, Bar, Pump, Run
from patchbay_bartender.messages import (
    Blend,
    Configure,
    Failed,
    Finished,
    PumpsFinished,
    PumpsRefused,
    PumpsStarted,
    Refill,
    Rejected,
    Result,
    Started,
)
from patchbay_bartender.rules import Limits, Publish, Record

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 20, 13, tzinfo=UTC)
LIMITS = Limits(max_cup_size=1.0, max_run_s=300.0)


@pytest.fixture
def bar() -> Bar:
    return Bar(bar="bar", pumps=[Pump(refill_time=t) for t in (2, 2, 3, 3, 4, 4, 5, 5)])


def blend(bar: Bar, cup: float, ratios: dict[str, float], sec_per_liter: float = 213) -> Run:
    wanted = Blend(cup_size=cup, ratios=dict(ratios), by="Ann")
    return rules.blend(bar, wanted, sec_per_liter, LIMITS, "r1", NOW)


def running(bar: Bar, *, refill: int | None = None) -> Run:
    """A run that is under way: 40 ml, 0.2 of pump 1 and 0.7 of pump 5."""
    if refill is None:
        bar.run = blend(bar, 0.04, {"1": 0.2, "5": 0.7})
    else:
        bar.run = rules.refill(bar, Refill(pump=refill), LIMITS, "r1", NOW)
    return bar.run


def said(result: Result, reason: str = "", **ran: float) -> PumpsFinished:
    return PumpsFinished("r1", result, reason, {k.removeprefix("p"): v for k, v in ran.items()})


def code(refused: pytest.ExceptionInfo[Rejected]) -> str:
    return refused.value.code


# Times


def test_the_seed_s_example_takes_the_time_of_its_slowest_pump(bar: Bar) -> None:
    run = blend(bar, 0.04, {"1": 0.2, "2": 0.1, "5": 0.7})
    assert run.seconds == {"1": 1.704, "2": 0.852, "5": 5.964}
    assert run.total_s == 5.964
    assert run.millilitres == {"1": 8, "2": 4, "5": 28}


def test_a_slow_pump_runs_for_longer_for_the_same_drink(bar: Bar) -> None:
    bar.pumps[5].speed_ratio = 1.5
    run = blend(bar, 0.1, {"5": 0.5}, sec_per_liter=100)
    assert run.seconds == {"5": 7.5}
    assert run.millilitres == {"5": 50}


def test_the_sum_of_the_ratios_is_not_checked(bar: Bar) -> None:
    assert len(blend(bar, 0.1, {str(pump): 1.0 for pump in range(8)}).seconds) == 8


def test_a_pump_with_a_ratio_of_zero_does_not_run_though_it_be_disabled(bar: Bar) -> None:
    bar.pumps[2].enabled = False
    assert list(blend(bar, 0.1, {"0": 0, "1": 1, "2": 0.0}).seconds) == ["1"]


def test_a_pump_whose_time_rounds_to_zero_does_not_keep_the_others_from_running(bar: Bar) -> None:
    run = blend(bar, 0.1, {"0": 5.5e-17, "1": 1})
    assert (run.seconds, run.millilitres) == ({"1": 21.3}, {"1": 100.0})


def test_a_refill_takes_the_time_of_its_pump(bar: Bar) -> None:
    run = rules.refill(bar, Refill(pump=6, by="Ann"), LIMITS, "r1", NOW)
    assert (run.seconds, run.millilitres, run.by) == ({"6": 5.0}, {}, "Ann")


# Refusals


@pytest.mark.parametrize(
    ("cup", "ratios", "expected"),
    [
        (0, {"1": 0.2}, "bad_cup_size"),
        (-1, {"1": 0.2}, "bad_cup_size"),
        (float("nan"), {"1": 0.2}, "bad_cup_size"),
        (float("inf"), {"1": 0.2}, "bad_cup_size"),
        (1.0001, {"1": 0.2}, "bad_cup_size"),
        (0.1, {}, "no_ratios"),
        (0.1, {"8": 0.1}, "no_such_pump"),
        (0.1, {"-1": 0.1}, "no_such_pump"),
        (0.1, {"01": 0.1}, "no_such_pump"),
        (0.1, {"": 0.1}, "no_such_pump"),
        (0.1, {"3": 0.1}, "pump_disabled"),
        (0.1, {"1": 1.01}, "bad_ratio"),
        (0.1, {"1": -0.01}, "bad_ratio"),
        (0.1, {"1": float("nan")}, "bad_ratio"),
        (0.1, {"1": 0}, "nothing_to_do"),
        (1e-9, {"1": 1e-9}, "nothing_to_do"),
        (1.0, {"7": 1.0}, "too_long"),
    ],
)
def test_a_blend_that_cannot_be_is_refused(
    bar: Bar, cup: float, ratios: dict[str, float], expected: str
) -> None:
    bar.pumps[3].enabled = False
    bar.pumps[7].speed_ratio = 2.0
    with pytest.raises(Rejected) as refused:
        blend(bar, cup, ratios)
    assert code(refused) == expected


def test_a_refill_of_a_pump_that_cannot_is_refused(bar: Bar) -> None:
    bar.pumps[3].enabled = False
    for pump, expected in ((8, "no_such_pump"), (-1, "no_such_pump"), (3, "pump_disabled")):
        with pytest.raises(Rejected) as refused:
            rules.refill(bar, Refill(pump=pump), LIMITS, "r1", NOW)
        assert code(refused) == expected


@pytest.mark.parametrize(
    ("remaining", "text"),
    [
        (2.3, "Already blending ! Retry in 3 sec"),
        (3.0, "Already blending ! Retry in 3 sec"),
        (0.2, "Already blending ! Retry in 1 sec"),
        (0.0, "Already blending ! Retry in 1 sec"),
    ],
)
def test_who_comes_second_is_told_when_to_come_again(bar: Bar, remaining: float, text: str) -> None:
    with pytest.raises(Rejected) as refused:
        rules.busy(running(bar), remaining)
    assert refused.value.message == text


def test_a_refill_is_called_one(bar: Bar) -> None:
    with pytest.raises(Rejected) as refused:
        rules.busy(running(bar, refill=1), 1.5)
    assert refused.value.message == "Already refilling ! Retry in 2 sec"
    rules.busy(None, 0)


# What is set


def test_each_setting_changes_what_it_names(bar: Bar) -> None:
    assert rules.configure(bar, Configure(pump=1, enabled=False), LIMITS) == "pumps_states"
    assert rules.configure(bar, Configure(pump=1, refill_time=7), LIMITS) == "pumps_states"
    assert rules.configure(bar, Configure(pump=1, speed_ratio=1.5), LIMITS) == "config"
    assert rules.configure(bar, Configure(sec_per_liter=99), LIMITS) == "sec_per_liter"
    assert rules.configure(bar, Configure(), LIMITS) == "config"
    both = Configure(pump=1, enabled=True, sec_per_liter=99)
    assert rules.configure(bar, both, LIMITS) == "config"
    pump = bar.pumps[1]
    assert (pump.enabled, pump.refill_time, pump.speed_ratio) == (True, 7, 1.5)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Configure(pump=8, enabled=True), "no_such_pump"),
        (Configure(enabled=True), "no_such_pump"),
        (Configure(pump=1, refill_time=0), "bad_number"),
        (Configure(pump=1, refill_time=301), "bad_number"),
        (Configure(pump=1, speed_ratio=-1), "bad_number"),
        (Configure(pump=1, speed_ratio=float("nan")), "bad_number"),
        (Configure(sec_per_liter=0), "bad_number"),
        (Configure(sec_per_liter=float("inf")), "bad_number"),
        (Configure(pump=1, refill_time=3, speed_ratio=0), "bad_number"),
    ],
)
def test_what_makes_no_sense_changes_nothing(bar: Bar, wanted: Configure, expected: str) -> None:
    before = bar.shown()
    with pytest.raises(Rejected) as refused:
        rules.configure(bar, wanted, LIMITS)
    assert code(refused) == expected
    assert bar.shown() == before


# What has become of it


def test_a_run_that_has_started_is_told_once(bar: Bar) -> None:
    run = running(bar)
    effects = rules.started(bar, PumpsStarted("r1", run.seconds))
    assert effects == [
        Publish("started", Started("r1", "blend", "Ann", run.seconds)),
        Record(run, "running"),
    ]
    assert rules.started(bar, PumpsStarted("r1", run.seconds)) == []
    assert rules.started(bar, PumpsStarted("r0", run.seconds)) == []


def test_a_blend_that_is_done_is_counted(bar: Bar) -> None:
    running(bar)
    effects = rules.finished(bar, said("done", p1=1.704, p5=5.97), LATER)
    assert effects[0] == Publish("finished", Finished("r1", "blend", "Ann", {"1": 8, "5": 28}))
    assert isinstance(effects[1], Record)
    assert effects[1].status == "done"
    assert [pump.millilitres for pump in bar.pumps] == [0, 8, 0, 0, 0, 28, 0, 0]
    assert bar.run is None


def test_the_same_end_is_counted_once(bar: Bar) -> None:
    running(bar)
    rules.finished(bar, said("done", p1=1.704, p5=5.964), LATER)
    assert rules.finished(bar, said("done", p1=1.704, p5=5.964), LATER) == []
    assert bar.pumps[5].millilitres == 28


def test_what_was_pumped_before_a_stop_is_counted_and_no_more(bar: Bar) -> None:
    running(bar)
    effects = rules.finished(bar, said("stopped", "stopped", p1=1.704, p5=2.982), LATER)
    failed = Failed("r1", "blend", "Ann", "stopped", "stopped", {"1": 8, "5": 14})
    assert effects[0] == Publish("failed", failed)
    assert isinstance(effects[1], Record)
    assert effects[1].status == "stopped"
    assert bar.pumps[5].millilitres == 14


def test_a_refill_that_is_done_begins_the_count_anew(bar: Bar) -> None:
    bar.pumps[4].millilitres = 123
    running(bar, refill=4)
    rules.finished(bar, said("done", p4=4.0), LATER)
    assert (bar.pumps[4].millilitres, bar.pumps[4].refilled_at) == (0, LATER)


def test_a_refill_that_was_stopped_does_not(bar: Bar) -> None:
    bar.pumps[4].millilitres = 123
    running(bar, refill=4)
    rules.finished(bar, said("stopped", "stopped", p4=1.0), LATER)
    assert (bar.pumps[4].millilitres, bar.pumps[4].refilled_at) == (123, None)


def test_a_run_that_was_refused_has_failed(bar: Bar) -> None:
    running(bar)
    effects = rules.refused(bar, PumpsRefused("r1", "late", "ordered 3 s ago"), LATER)
    assert isinstance(effects[0], Publish)
    assert isinstance(effects[0].data, Failed)
    assert effects[0].data.code == "refused"
    assert "ordered 3 s ago" in effects[0].data.reason
    assert bar.run is None
    assert bar.ended is not None
    assert bar.ended.status == "failed"


def test_a_run_that_was_stopped_before_it_began_was_stopped(bar: Bar) -> None:
    running(bar)
    effects = rules.refused(bar, PumpsRefused("r1", "stopped", "stopped"), LATER)
    assert effects[0] == Publish("failed", Failed("r1", "blend", "Ann", "stopped", "stopped", {}))
    assert isinstance(effects[1], Record)
    assert effects[1].status == "stopped"


def test_a_refusal_of_another_run_changes_nothing(bar: Bar) -> None:
    run = running(bar)
    assert rules.refused(bar, PumpsRefused("r0", "busy", ""), LATER) == []
    assert bar.run is run


def test_a_run_that_was_given_up_is_counted_when_the_pumps_say_what_it_was(bar: Bar) -> None:
    run = running(bar)
    effects = rules.give_up(bar, "pumps_lost", "the pumps are away", LATER)
    assert [type(one) for one in effects] == [Publish, Record]
    assert bar.unsettled == [run]
    assert bar.pumps[5].millilitres == 0
    (record,) = rules.finished(bar, said("done", p1=1.704, p5=5.964), LATER)
    assert isinstance(record, Record)
    assert record.status == "failed"
    assert bar.pumps[5].millilitres == 28
    assert bar.unsettled == []
    assert rules.finished(bar, said("done", p5=5.964), LATER) == []
    assert bar.pumps[5].millilitres == 28


def test_runs_that_are_never_heard_of_again_do_not_pile_up(bar: Bar) -> None:
    for number in range(2 * UNSETTLED):
        bar.run = rules.refill(bar, Refill(pump=1), LIMITS, f"r{number}", NOW)
        rules.give_up(bar, "pumps_lost", "", LATER)
    assert len(bar.unsettled) == UNSETTLED


def test_there_is_nothing_to_give_up_when_nothing_runs(bar: Bar) -> None:
    assert rules.give_up(bar, "pumps_lost", "", LATER) == []
