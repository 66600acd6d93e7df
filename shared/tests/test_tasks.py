"""Background tasks: each has an owner, and none dies unnoticed."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from patchbay.tasks import Tasks
from patchbay.testing import PATIENCE_S, until


class Owner:
    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.tasks = Tasks("unit", self.failed)

    def failed(self, error: Exception, name: str) -> None:
        self.failures.append((str(error), name))


async def fail(text: str = "a mistake") -> None:
    raise ValueError(text)


@pytest.mark.parametrize("entered", [True, False])
async def test_the_owner_is_told_of_a_task_that_fails_and_the_others_go_on(entered: bool) -> None:
    owner = Owner()
    ended = asyncio.Event()

    async def wait() -> int:
        await ended.wait()
        return 7

    async def body() -> None:
        other = owner.tasks.spawn(wait(), "other")
        owner.tasks.spawn(fail(), "ticker")
        await until(lambda: owner.failures)
        assert owner.failures == [("a mistake", "unit: ticker")]
        ended.set()
        assert await other == 7

    if entered:
        async with owner.tasks:
            await body()
    else:
        await body()


async def test_a_task_of_a_session_fails_alone() -> None:
    owner, session = Owner(), []
    async with owner.tasks:
        owner.tasks.spawn(fail(), "request", failed=session.append)
        await until(lambda: session)
    assert [str(error) for error in session] == ["a mistake"]
    assert owner.failures == []


async def test_at_the_end_those_that_still_run_are_cancelled_and_awaited() -> None:
    owner = Owner()
    ends: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append(name)

    async with asyncio.timeout(PATIENCE_S):
        async with owner.tasks:
            for name in ("a", "b"):
                owner.tasks.spawn(forever(name), name)
            await asyncio.sleep(0)
    assert sorted(ends) == ["a", "b"]
    assert owner.failures == []


async def test_a_task_that_is_cancelled_before_it_begins_leaves_no_warning() -> None:
    owner = Owner()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        owner.tasks.spawn(fail(), "never").cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
    assert owner.failures == []


async def test_a_task_that_fails_while_it_is_cancelled_is_reported_too() -> None:
    owner = Owner()

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it was closed")

    async with owner.tasks:
        owner.tasks.spawn(stumble(), "closing")
        await asyncio.sleep(0)
    assert owner.failures == [("while it was closed", "unit: closing")]
