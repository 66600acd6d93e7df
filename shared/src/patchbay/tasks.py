"""Background tasks, each with a name and an owner that learns of its failure.

    Unit.tasks   the unit's: a task that fails stops the unit with an error
    Bus.tasks    the same, or the client's own where there is no unit, as on the command line
    failed=...   a task of one session or request, which fails alone: its session is told

Nothing else in a unit starts a task (a lint rule forbids it), so none dies unnoticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

Failed = Callable[[Exception, str], None]
"""Called with the error of a task that raised, and its name."""


class Tasks:
    """The tasks of one owner, in one `asyncio.TaskGroup`.

    ``async with`` it: at the end those that still run are cancelled and awaited. Where an owner has
    no such scope, its tasks run until they end or are cancelled. One that raises does not take the
    others with it: ``failed`` decides.
    """

    def __init__(self, owner: str, failed: Failed) -> None:
        self._owner = owner
        self._failed = failed
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        group, self._group = self._group, None
        if group is not None:
            await group.__aexit__(kind, error, traceback)

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        name: str,
        *,
        failed: Callable[[Exception], None] | None = None,
    ) -> asyncio.Task[T | None]:
        """Run ``work`` in the background; its result is None if it raised.

        ``failed`` is told if it raises, instead of the owner.
        """
        whole = f"{self._owner}: {name}"
        run = self._supervised(work, whole, failed)
        if self._group is not None:
            task = self._group.create_task(run, name=whole)
        else:
            task = asyncio.get_running_loop().create_task(run, name=whole)
        self._running.add(task)
        task.add_done_callback(lambda done: self._ended(done, work))
        return task

    def cancel(self) -> None:
        """Cancel those that still run."""
        for task in self._running:
            task.cancel()

    async def _supervised(
        self, work: Coroutine[Any, Any, T], name: str, failed: Callable[[Exception], None] | None
    ) -> T | None:
        try:
            return await work
        except Exception as error:  # the outermost frame of this task
            if failed is None:
                self._failed(error, name)
            else:
                failed(error)
        return None

    def _ended(self, task: asyncio.Task[Any], work: Coroutine[Any, Any, Any]) -> None:
        self._running.discard(task)
        work.close()  # of a task that was cancelled before it had begun
