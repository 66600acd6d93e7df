"""What becomes of jobs, without a loop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from patchbay_allocator import rules
from patchbay_allocator.job import Combinator, Job
from patchbay_allocator.messages import CombinatorState, Rejected, Requested, color, name, requested

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def job(id: str = "a") -> Job:
    wanted = Requested(ClientName="C", CustomerName="이름", ColorCode="696969")
    return rules.new(id=id, wanted=wanted, event_id=f"event-{id}", at=NOW, now=NOW)


def combinator(device: int = 1) -> Combinator:
    return Combinator(device=device, rev=10, since=NOW)


def claimed(one: Job, device: int = 1) -> tuple[Job, Combinator]:
    holding = rules.reserve(combinator(device), one, NOW, "me")
    return rules.claim(one, holding, NOW), holding


def test_a_claim_has_two_halves_and_holds_after_both() -> None:
    one = job()
    holding = rules.reserve(combinator(), one, NOW, "me")
    assert (holding.job, holding.rev, holding.ColorCode) == ("a", 11, "696969")
    assert rules.half_claimed(holding, one)
    assert not rules.holds(holding, one)
    new = rules.claim(one, holding, NOW)
    assert (new.status, new.assignedAt, new.v) == ("inprogress1", 1, 2)
    assert rules.holds(holding, new)
    assert not rules.half_claimed(holding, new)


def test_of_two_combinators_that_hold_one_job_the_first_to_claim_it_has_it() -> None:
    one = job()
    first, second = (rules.reserve(combinator(n), one, NOW, "me") for n in (1, 2))
    assert rules.half_claimed(first, one)
    assert rules.half_claimed(second, one)
    new = rules.claim(one, second, NOW)
    assert rules.holds(second, new)
    assert not rules.holds(first, new)
    assert not rules.half_claimed(first, new)


def test_a_claim_that_cannot_be_finished_never_can_again() -> None:
    one = job()
    holding = rules.reserve(combinator(), one, NOW, "me")
    recolored = rules.recolor(one, "000000", "r", NOW)
    again = rules.failed(rules.claim(one, holding, NOW), "no", "f", NOW)
    for changed in (recolored, again, None):
        assert changed is None or not rules.half_claimed(holding, changed)
        assert not rules.holds(holding, changed)


def test_done_ends_a_job_and_keeps_where_it_was() -> None:
    new, _ = claimed(job(), 2)
    new = rules.finished(new, "done", "e", NOW)
    assert (new.status, new.assignedAt, new.attempts) == ("done", 2, 0)


def test_error_waits_again_and_is_parked_after_the_third() -> None:
    one = job()
    for attempt in (1, 2):
        one = rules.finished(claimed(one)[0], "error", f"e{attempt}", NOW)
        assert (one.status, one.assignedAt, one.attempts) == ("waiting", 0, attempt)
        assert one.lastError == "the combinator said error"
    one = rules.finished(claimed(one)[0], "error", "e3", NOW)
    assert (one.status, one.assignedAt, one.attempts) == ("error", 1, 3)
    one = rules.retry(one, "r", NOW)
    assert (one.status, one.assignedAt, one.attempts) == ("waiting", 0, 0)


def test_an_event_is_known_by_its_id() -> None:
    new = rules.finished(claimed(job())[0], "done", "e", NOW)
    assert new.caused_by("e") is not None
    assert new.caused_by("f") is None


def test_the_combinator_that_is_free_longest_gets_the_oldest_job() -> None:
    free = [
        Combinator(device=1, rev=1, since=NOW),
        Combinator(device=2, rev=1, since=NOW - MINUTE),
        Combinator(device=3, rev=1, since=NOW - 2 * MINUTE),
        Combinator(device=4, rev=1, since=NOW - 3 * MINUTE, job="x", command="x-1-4"),
    ]
    pairs = rules.match(["a", "b", "c"], free, frozenset({1, 2, 4}))
    assert [(id, one.device) for id, one in pairs] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    ("waited", "lost", "command", "reason"),
    [
        (9 * MINUTE, None, "ours", None),
        (11 * MINUTE, None, "ours", "no answer in time"),
        (11 * MINUTE, None, "other", "no answer in time"),
        (MINUTE, timedelta(seconds=59), "ours", None),
        (2 * MINUTE, timedelta(seconds=61), "ours", "the connection was lost"),
        (2 * MINUTE, timedelta(seconds=61), "other", None),
    ],
)
def test_an_attempt_fails_in_time(
    waited: timedelta, lost: timedelta | None, command: str, reason: str | None
) -> None:
    _, holding = claimed(job())
    state = CombinatorState(
        combinator=1,
        edge="e",
        address="",
        online=True,
        command=holding.command if command == "ours" else "",
    )
    now = NOW + waited
    lost_at = now - lost if lost else None
    assert rules.failure(holding, state, lost_at, now, 10 * MINUTE, MINUTE) == reason


def test_a_free_combinator_fails_nothing() -> None:
    assert rules.failure(combinator(), None, None, NOW + 99 * MINUTE, MINUTE, MINUTE) is None


def test_each_command_is_refused_in_the_wrong_state_by_its_code() -> None:
    waiting = job()
    mixing, _ = claimed(waiting)
    done = rules.finished(mixing, "done", "e", NOW)
    parked = mixing
    for cause in ("1", "2", "3"):
        parked = rules.failed(parked, "no", cause, NOW)
    table: list[tuple[Callable[[Job], object], tuple[str, str, str, str]]] = [
        (
            lambda one: rules.assignable(one, force=False),
            ("", "in_progress", "already_done", "wrong_state"),
        ),
        (lambda one: rules.assignable(one, force=True), ("", "in_progress", "", "wrong_state")),
        (rules.cancellable, ("", "in_progress", "wrong_state", "wrong_state")),
        (rules.deletable, ("", "in_progress", "", "")),
        (
            lambda one: rules.recolor(one, "0", "r", NOW),
            ("", "in_progress", "wrong_state", "wrong_state"),
        ),
        (lambda one: rules.retry(one, "r", NOW), ("wrong_state", "in_progress", "wrong_state", "")),
    ]
    for decide, codes in table:
        for one, code in zip((waiting, mixing, done, parked), codes, strict=True):
            try:
                decide(one)
                said = ""
            except Rejected as error:
                said = error.code
            assert said == code, (decide, one.status)


def test_history_is_bounded() -> None:
    one = job()
    for _ in range(rules.HISTORY):
        one = rules.recolor(one, "000000", "r", NOW)
    assert len(one.history) == rules.HISTORY


@pytest.mark.parametrize("text", ["69aB9c", "#69AB9C", " # 69ab9c \n"])
def test_a_colour_is_kept_in_upper_case_without_what_is_around_it(text: str) -> None:
    assert color(text) == "69AB9C"


@pytest.mark.parametrize("text", ["", "12345", "1234567", "12345g", "##123456", "１２３４５６"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="bad_color"):
        color(text)


def test_names_are_kept_composed_and_are_not_empty_and_not_too_long() -> None:
    decomposed = "\u110b\u1175\u1105\u1173\u11b7"
    assert name("CustomerName", decomposed) == "이름"
    assert name("CustomerName", "x" * 256) == "x" * 256
    for bad in ("", "  ", "x" * 257):
        with pytest.raises(Rejected, match="bad_request"):
            requested("C", bad, "000000")
