"""What becomes of jobs: pure decisions, (state, event, now) -> new state. No I/O, no clock.

    waiting --claim--> inprogress<n> --done--> done
       ^                    |
       +--- failed (again) -+---- failed (max_attempts) --> error --retry--> waiting

A refusal is a `Rejected` with the code that goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from patchbay_allocator.job import (
    DONE,
    ERROR,
    IN_PROGRESS,
    WAITING,
    Change,
    Combinator,
    Data,
    Job,
)
from patchbay_allocator.messages import CombinatorState, Rejected, Requested

ATTEMPTS: Final = 3
"""The setting ``max_attempts``, where none is given."""

HISTORY: Final = 64
"""Changes that a job remembers: some twenty times through the queue."""


def new(*, id: str, wanted: Requested, event_id: str, at: datetime, now: datetime) -> Job:
    """A job that waits. ``at`` is when it came."""
    return Job(
        id=id,
        ClientName=wanted.ClientName,
        data=Data(wanted.CustomerName, wanted.ColorCode),
        status=WAITING,
        assignedAt=0,
        createdAt=at,
        updatedAt=now,
        eventId=event_id,
        history=[Change(id=event_id, at=at, status=WAITING)],
    )


def parked(job: Job, reason: str, cause: str, now: datetime) -> Job:
    """Nobody mixes this job without being asked: it is parked, and was given to none."""
    return _change(job, cause, ERROR, now, reason, lastError=reason)


def taken_over(job: Job, now: datetime) -> Job:
    """A job that was found in the seed's form: it gets a version, and stays what it is."""
    return replace(job, v=job.v + 1, updatedAt=now)


def claim_id(job: Job, device: int) -> str:
    """The name of the claim of this job, as it is now, by a combinator."""
    return f"{job.id}-{job.v}-{device}"


def reserve(combinator: Combinator, job: Job, now: datetime, by: str) -> Combinator:
    """The first step of a claim: the combinator holds the job. `claim` is the second."""
    return replace(
        combinator,
        rev=combinator.rev + 1,
        job=job.id,
        command=claim_id(job, combinator.device),
        ColorCode=job.data.ColorCode,
        since=now,
        by=by,
    )


def claim(job: Job, combinator: Combinator, now: datetime) -> Job:
    """The second step of a claim: the job is in progress at the combinator that holds it."""
    return _change(
        job,
        combinator.command,
        f"{IN_PROGRESS}{combinator.device}",
        now,
        assignedAt=combinator.device,
    )


def holds(combinator: Combinator | None, job: Job | None) -> bool:
    """Have both steps of the combinator's claim been made, and nothing since?"""
    return (
        job is not None
        and combinator is not None
        and job.status == f"{IN_PROGRESS}{combinator.device}"
        and bool(job.history)
        and job.history[-1].id == combinator.command
    )


def half_claimed(combinator: Combinator, job: Job | None) -> bool:
    """Has only the first step been made, and may the second still be?

    False for good once it is false: a job's version never goes back.
    """
    return (
        job is not None
        and not job.in_progress
        and claim_id(job, combinator.device) == combinator.command
    )


def release(combinator: Combinator, now: datetime, by: str) -> Combinator:
    """The combinator is free."""
    return replace(
        combinator, rev=combinator.rev + 1, job="", command="", ColorCode="", since=now, by=by
    )


def finished(
    job: Job, status: str, event_id: str, now: datetime, max_attempts: int = ATTEMPTS
) -> Job:
    """A combinator has answered for a job that is in progress there."""
    if status == "done":
        return _change(job, event_id, DONE, now)
    return failed(job, "the combinator said error", event_id, now, max_attempts)


def failed(job: Job, reason: str, cause: str, now: datetime, max_attempts: int = ATTEMPTS) -> Job:
    """An attempt has failed: the job waits again, or is parked after ``max_attempts``."""
    attempts = job.attempts + 1
    if attempts >= max_attempts:
        reason = f"{reason}; attempt {attempts} of {max_attempts}"
        return _change(job, cause, ERROR, now, reason, attempts=attempts, lastError=reason)
    return _change(
        job, cause, WAITING, now, reason, attempts=attempts, lastError=reason, assignedAt=0
    )


def lost(job: Job, cause: str, now: datetime) -> Job:
    """No combinator holds this job, whatever it says of itself: it waits again."""
    return _change(job, cause, WAITING, now, "nobody had it", assignedAt=0)


def failure(
    combinator: Combinator,
    state: CombinatorState | None,
    lost_at: datetime | None,
    now: datetime,
    job_timeout: timedelta,
    grace: timedelta,
) -> str | None:
    """Why what a combinator has in hand is to be counted as failed now; None: it is not.

    ``lost_at`` is when the connection on which it went out was lost, as its edge says.
    """
    if not combinator.command:
        return None
    if now - combinator.since > job_timeout:
        return "no answer in time"
    ours = state is not None and state.command == combinator.command
    if ours and lost_at is not None and now - lost_at > grace:
        return "the connection was lost"
    return None


def match(
    waiting: Sequence[str],
    combinators: Iterable[Combinator],
    connected: frozenset[int],
    can_mix: Callable[[str, int], bool] = lambda _job, _device: True,
) -> list[tuple[str, Combinator]]:
    """Which waiting jobs, oldest first, go to which combinators, of those that can mix the job's
    colour the one free longest first."""
    free = [one for one in combinators if not one.command and one.device in connected]
    free.sort(key=lambda one: (one.since, one.device))
    pairs = []
    for id in waiting:
        one = next((one for one in free if can_mix(id, one.device)), None)
        if one is not None:
            free.remove(one)
            pairs.append((id, one))
    return pairs


# Commands


def assignable(job: Job, *, force: bool) -> None:
    """May this job be given to a combinator by hand?"""
    if job.in_progress:
        raise Rejected("in_progress", f"combinator {job.assignedAt} has job {job.id}")
    if job.status == DONE and not force:
        raise Rejected("already_done", f"job {job.id} is done; force mixes it again")
    if job.status not in (WAITING, DONE):
        raise Rejected("wrong_state", f"job {job.id} is {job.status}: retry it first")


def cancellable(job: Job) -> None:
    """May this job be taken out of the queue?"""
    _only(job, WAITING)


def deletable(job: Job) -> None:
    """May this job be removed?"""
    if job.in_progress:
        raise Rejected("in_progress", f"combinator {job.assignedAt} has job {job.id}")


def recolor(job: Job, color: str, cause: str, now: datetime) -> Job:
    """Another colour, while it waits."""
    _only(job, WAITING)
    data = Data(job.data.CustomerName, color)
    return _change(job, cause, WAITING, now, f"recolored from {job.data.ColorCode}", data=data)


def retry(job: Job, cause: str, now: datetime) -> Job:
    """A parked job waits again, with all its attempts before it."""
    _only(job, ERROR)
    return _change(job, cause, WAITING, now, "retried", attempts=0, assignedAt=0)


def _only(job: Job, status: str) -> None:
    if job.in_progress:
        raise Rejected("in_progress", f"combinator {job.assignedAt} has job {job.id}")
    if job.status != status:
        raise Rejected("wrong_state", f"job {job.id} is {job.status}, not {status}")


def _change(
    job: Job, cause: str, status: str, now: datetime, reason: str = "", **fields: object
) -> Job:
    change = Change(id=cause, at=now, status=status, reason=reason)
    history = [*job.history, change][-HISTORY:]
    return replace(job, status=status, updatedAt=now, v=job.v + 1, history=history, **fields)
