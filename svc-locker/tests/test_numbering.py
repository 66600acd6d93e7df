"""What SEND says, case by case and then for any sequence of reports."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchbay_locker.numbering import LATE_WINDOW, Last, Verdict, judge, key

NOW = 1_700_000_000


@dataclass(frozen=True)
class Said:
    """A report, as far as its number goes."""

    send: int
    reset: bool = False
    box_acc: tuple[int, ...] = ()
    note: str = ""

    @property
    def digest(self) -> bytes:
        return blake2b(repr(self).encode(), digest_size=8).digest()


def follow(*reports: Said, answered: bool = True, now_s: int = NOW) -> list[Verdict]:
    """The verdicts on reports that come one after the other, a second apart."""
    last: Last | None = None
    verdicts: list[Verdict] = []
    for number, report in enumerate(reports):
        verdicts.append(judge(last, report, now_s + number))
        last = verdicts[-1].last.with_answer() if answered else verdicts[-1].last
    return verdicts


def kinds(verdicts: list[Verdict]) -> list[str]:
    return ["reboot" if verdict.rebooted else verdict.kind for verdict in verdicts]


def sends(*numbers: int) -> list[str]:
    """What a board that never says RESET=1 is taken to do."""
    return kinds(follow(*[Said(number, note=str(at)) for at, number in enumerate(numbers)]))


def test_the_first_report_of_an_unknown_board_begins_a_boot_now() -> None:
    [verdict] = follow(Said(141349))
    assert (verdict.kind, verdict.boot, verdict.rebooted) == ("new", NOW, False)


def test_the_first_report_of_an_unknown_board_that_says_reset_is_a_reboot() -> None:
    [verdict] = follow(Said(141349, reset=True))
    assert (verdict.kind, verdict.boot, verdict.rebooted) == ("new", NOW, True)


def test_a_higher_send_is_new_in_the_same_boot() -> None:
    verdicts = follow(Said(1), Said(2), Said(1000))
    assert kinds(verdicts) == ["new"] * 3
    assert {verdict.boot for verdict in verdicts} == {NOW}


def test_the_same_send_and_bytes_are_a_repeat_and_change_nothing() -> None:
    for report in (Said(5), Said(5, box_acc=(1,)), Said(5, reset=True)):
        first, again, third = follow(report, report, report)
        assert again.kind == third.kind == "repeat"
        assert again.last == first.last.with_answer()
        assert not again.rebooted
        assert not again.maybe_repeat


def test_reset_begins_a_new_boot_whatever_the_send() -> None:
    for send in (0, 1, 49, 50, 51, 10_000):
        before, after = follow(Said(50), Said(send, reset=True))
        assert after.rebooted
        assert after.boot > before.boot
        assert after.last.send == send


def test_a_board_that_says_reset_until_it_is_answered_has_rebooted_once() -> None:
    verdicts = follow(
        Said(50), Said(1, reset=True), Said(2, reset=True), Said(4, reset=True), Said(5)
    )
    assert kinds(verdicts) == ["new", "reboot", "new", "new", "new"]
    assert len({verdict.boot for verdict in verdicts[1:]}) == 1


def test_a_board_that_reboots_while_it_still_says_reset_has_rebooted_again() -> None:
    assert kinds(follow(Said(7, reset=True), Said(1, reset=True))) == ["reboot", "reboot"]


def test_a_send_lower_by_more_than_the_window_is_a_reboot() -> None:
    assert sends(500, 500 - LATE_WINDOW - 1, 500 - LATE_WINDOW) == ["new", "reboot", "new"]


def test_a_send_lower_by_the_window_is_late() -> None:
    assert sends(500, 500 - LATE_WINDOW, 501) == ["new", "late", "new"]


def test_the_same_send_with_other_bytes_is_late() -> None:
    assert sends(50, 50, 51) == ["new", "late", "new"]


def test_a_late_report_changes_no_number() -> None:
    first, late, after = follow(Said(50), Said(48), Said(51))
    assert late.boot == after.boot == first.boot
    assert late.last.send == 50
    assert after.kind == "new"


def test_a_report_that_continues_from_a_late_one_shows_a_reboot() -> None:
    assert sends(50, 1, 2, 3) == ["new", "late", "reboot", "new"]
    assert sends(50, 49, 50, 51) == ["new", "late", "reboot", "new"]


def test_late_reports_that_do_not_follow_each_other_stay_late() -> None:
    assert sends(50, 40, 45, 42, 51) == ["new", "late", "late", "late", "new"]


def test_a_higher_send_clears_the_suspicion() -> None:
    assert sends(50, 40, 51, 41, 52) == ["new", "late", "new", "late", "new"]


def test_a_late_report_that_comes_twice_is_one_fact() -> None:
    late = Said(48, box_acc=(3,))
    _, first, second = follow(Said(50), late, late)
    assert first.kind == second.kind == "late"
    assert key("b", first.boot, late.send, late.digest) == key(
        "b", second.boot, late.send, late.digest
    )


@pytest.mark.parametrize("send", [2, 3, 20])
def test_accesses_repeated_in_the_next_report_may_be_the_same_if_no_answer_was_written(
    send: int,
) -> None:
    first, second = follow(Said(1, box_acc=(3, 4)), Said(send, box_acc=(3, 4)), answered=False)
    assert not first.maybe_repeat
    assert second.maybe_repeat


@pytest.mark.parametrize(
    ("second", "answered"),
    [
        (Said(2, box_acc=(3, 4)), True),
        (Said(2, box_acc=(3,)), False),
        (Said(2), False),
    ],
)
def test_other_accesses_are_not_marked(second: Said, answered: bool) -> None:
    verdicts = follow(Said(1, box_acc=(3, 4)), second, answered=answered)
    assert not verdicts[1].maybe_repeat


def test_no_access_is_no_repeat_of_one() -> None:
    assert not follow(Said(1), Said(2), answered=False)[1].maybe_repeat


def test_accesses_of_a_late_report_may_be_repeats() -> None:
    assert follow(Said(50), Said(48, box_acc=(3,)))[1].maybe_repeat
    assert not follow(Said(50), Said(48))[1].maybe_repeat


def test_a_boot_rises_though_the_clock_stands_or_goes_back() -> None:
    last = judge(None, Said(9, reset=True), NOW).last
    for now_s in (NOW, NOW - 1000, 0):
        verdict = judge(last, Said(1, reset=True), now_s)
        assert verdict.boot == last.boot + 1
        last = judge(verdict.last, Said(9), now_s).last


def test_a_key_names_board_boot_and_send() -> None:
    assert key("1953", NOW, 141349) == "1953:1700000000:0000141349"


def test_keys_of_one_boot_sort_as_they_were_sent() -> None:
    names = [key("1953", NOW, send) for send in (2, 10, 99, 100, 2_000_000_000)]
    assert names == sorted(names)


def test_a_late_key_is_no_key_of_a_new_report() -> None:
    assert key("1953", NOW, 5, b"\x01\xff") == "1953:1700000000:0000000005:late:01ff"


def test_with_answer_changes_that_alone() -> None:
    last = Last(NOW, 5, b"12345678", (1, 2), suspect=3, reset=True)
    assert last.with_answer() == replace(last, answered=True)


lasts = st.builds(
    Last,
    st.integers(0, 2**62),
    st.integers(0, 10**18 - 1),
    st.binary(max_size=16),
    st.lists(st.integers(1, 65_535), max_size=70).map(tuple),
    st.booleans(),
    st.none() | st.integers(0, 10**18 - 1),
    st.booleans(),
)


@settings(deadline=None)
@given(lasts)
def test_memory_that_is_kept_reads_the_same(last: Last) -> None:
    assert Last.from_bytes(last.to_bytes()) == last


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_memory_are_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        assert Last.from_bytes(data).to_bytes()[:16] == data[:16]


@settings(deadline=None)
@given(lasts, st.data())
def test_memory_that_was_cut_is_a_value_error(last: Last, data: st.DataObject) -> None:
    kept = last.to_bytes()
    with pytest.raises(ValueError, match="not the memory"):
        Last.from_bytes(kept[: data.draw(st.integers(0, len(kept) - 1))])


reports = st.builds(
    Said,
    st.integers(0, 8) | st.integers(90, 115),
    st.booleans(),
    st.sampled_from([(), (3,), (1, 54, 43)]),
    st.sampled_from(["", "x"]),
)
steps = st.lists(st.tuples(reports, st.booleans(), st.integers(-5, 5)), max_size=40)


@settings(deadline=None)
@given(steps)
def test_no_two_facts_share_a_key_and_boot_and_send_rise(
    history: list[tuple[Said, bool, int]],
) -> None:
    last: Last | None = None
    now_s = NOW
    facts: dict[str, tuple[str, Said]] = {}
    place = (0, 0)
    for report, answered, passed_s in history:
        now_s += passed_s
        verdict = judge(last, report, now_s)
        assert verdict.boot == verdict.last.boot
        if last is not None:
            assert verdict.boot >= last.boot
            assert verdict.rebooted <= (verdict.boot > last.boot)
        if verdict.kind == "new":
            assert (verdict.boot, report.send) > place
            place = (verdict.boot, report.send)
        if verdict.kind == "repeat":
            assert verdict.last == last
        else:
            late = verdict.kind == "late"
            name = key("1953", verdict.boot, report.send, report.digest if late else None)
            if name in facts:
                assert late
                assert facts[name] == ("late", report)
            facts[name] = (verdict.kind, report)
        last = verdict.last.with_answer() if answered else verdict.last


# How a run of a board goes: how many reports say RESET=1 until an answer comes, how many follow,
# and which of those that follow reach us (all that say RESET=1 may not: then there is no reboot).
runs = st.lists(
    st.tuples(st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=150)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(runs, st.integers(0, 1))
def test_a_board_that_keeps_to_the_protocol_has_one_boot_for_each_reboot(
    lives: list[tuple[int, list[bool]]], begins_at: int
) -> None:
    last: Last | None = None
    boots: list[set[int]] = []
    rebooted = 0
    for unanswered, arrived in lives:
        boots.append(set())
        sent = [Said(begins_at + n, reset=True) for n in range(unanswered)]
        after = begins_at + unanswered
        sent += [Said(after + n) for n, arrives in enumerate(arrived) if arrives or n == 0]
        for report in sent:
            verdict = judge(last, report, NOW)
            assert verdict.kind == "new"
            boots[-1].add(verdict.boot)
            rebooted += verdict.rebooted
            last = verdict.last
    assert [len(seen) for seen in boots] == [1] * len(lives)
    assert len(set.union(*boots)) == len(lives) == rebooted


@settings(deadline=None)
@given(st.lists(st.integers(2, 300), min_size=2, max_size=5))
def test_a_board_that_never_says_reset_is_seen_to_reboot_by_its_second_report(
    lives: list[int],
) -> None:
    last: Last | None = None
    for life, reports_sent in enumerate(lives):
        verdicts: list[Verdict] = []
        for send in range(1, reports_sent + 1):
            verdicts.append(judge(last, Said(send, note=str(life)), NOW))
            last = verdicts[-1].last
        seen = [verdict.rebooted for verdict in verdicts]
        assert sum(seen[:2]) == (0 if life == 0 else 1)
        assert not any(seen[2:])
