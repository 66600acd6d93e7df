"""Only the newest dead letters of a service stay in the store, over a real one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from patchbay.bus.letters import write_letter
from patchbay.messages import DeadLetter, now, rfc3339
from patchbay.settings import StoreSettings
from patchbay.store import DEAD_LETTERS, Store
from patchbay.store.newest import delete_old, keep_newest
from patchbay.testing import Part, eventually


def letter(number: int, days: float = -1) -> DeadLetter:
    """A letter of ``days`` from now, the later the higher its number."""
    time = now() + timedelta(days=days, seconds=number)
    return DeadLetter(
        id=f"{number}", reason="r", time=rfc3339(time), source="locker-edge-x", size=0, hex=""
    )


async def stored(store: Store) -> list[object]:
    """The ids of all letters, oldest first."""
    return [one["_id"] for one in await store.find(DEAD_LETTERS, {}, sort=[("at", 1)])]


async def test_only_the_newest_dead_letters_of_a_service_are_stored(store: Store) -> None:
    await store.bury(DEAD_LETTERS, letter(0))  # as an earlier version has written it
    store.service = "locker"
    for number in range(1, 13):
        await store.bury(DEAD_LETTERS, letter(number))
    store.service = "mesh"
    await store.bury(DEAD_LETTERS, letter(20))
    assert await delete_old(store, "locker", 10) == 2
    assert await delete_old(store, "locker", 10) == 0
    assert await delete_old(store, "mesh", 10) == 0
    assert await stored(store) == ["0", *map(str, range(3, 13)), "20"]


async def test_letters_of_earlier_versions_are_limited_too_in_batches(
    store: Store, store_server: Part
) -> None:
    documents = [{"_id": n, "at": now() - timedelta(hours=n)} for n in range(300)]
    await store.insert_new(DEAD_LETTERS, documents)
    store.service = "locker"
    task = asyncio.create_task(keep_newest(store, 5, period_s=0.1))

    async def five() -> bool:
        return await stored(store) == [4, 3, 2, 1, 0]

    await eventually(five)
    for number in range(8):
        await store.bury(DEAD_LETTERS, letter(number, days=1))

    async def ten() -> bool:
        return await stored(store) == [4, 3, 2, 1, 0, *map(str, range(3, 8))]

    await eventually(ten)
    task.cancel()


async def test_a_letter_that_names_a_time_to_come_does_not_outlast_the_others(
    store: Store,
) -> None:
    store.service = "locker"
    await store.bury(DEAD_LETTERS, letter(1, days=36_500))
    await store.bury(DEAD_LETTERS, write_letter("locker-edge-x", "r", b"", id="2"))
    assert await stored(store) == ["1", "2"]


def test_ten_thousand_are_stored_if_nothing_else_is_set() -> None:
    assert StoreSettings().dead_letters_max == 10_000
