"""One job that the store alone refuses does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from patchbay.chaos.store_link import How, Refusal, StoreLink, containing
from patchbay.store import Store
from patchbay.testing import until
from patchbay_allocator.wire.intake import Job

if TYPE_CHECKING:
    from conftest import Hall, House

COLORS = [f"{number:06x}" for number in range(10)]


def refusal(how: How) -> Refusal:
    return Refusal(code=96, how=how, only=containing("odd one"), collections={"jobs"})


def jobs() -> list[Job]:
    """The odd one is the first in the queue."""
    names = ["odd one", *["even"] * (len(COLORS) - 1)]
    return [Job("px", name, color) for name, color in zip(names, COLORS, strict=True)]


@pytest.mark.parametrize("how", ["command", "documents"])
async def test_a_job_that_cannot_be_claimed_is_passed_over_until_it_can(
    house_on: Callable[[Store], House],
    linked_store: Store,
    store_link: StoreLink,
    hall: Hall,
    how: How,
) -> None:
    house = house_on(linked_store)
    hall.gate.set()
    await hall.open()
    await house.start(*hall.ports)
    await house.ask("mode", mode="manual")
    await house.send(*jobs())
    await house.counted(waiting=len(COLORS))
    store_link.refuse_writes(refusal(how))
    await house.ask("mode", mode="auto")
    await house.counted(done=len(COLORS) - 1, waiting=1)
    store_link.accept_writes()
    await house.counted(done=len(COLORS))
    await house.stop()


async def test_a_job_that_cannot_be_stored_holds_up_no_other(
    house_on: Callable[[Store], House], linked_store: Store, store_link: StoreLink
) -> None:
    house = house_on(linked_store)
    await house.start()
    store_link.refuse_writes(refusal("documents"))
    await house.send(*jobs())
    await house.counted(waiting=len(COLORS) - 1)
    await until(lambda: house.intake.outbox.waiting == 1)
    store_link.accept_writes()
    await house.counted(waiting=len(COLORS))
    await until(lambda: house.intake.outbox.waiting == 0)
    await house.stop()
