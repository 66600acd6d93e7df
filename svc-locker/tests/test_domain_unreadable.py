"""A board whose document cannot be read waits, and all others are served."""

from __future__ import annotations

from typing import Any

import pytest

from patchbay.testing import eventually, until
from tests.locker_domain import TOPICS, Office, keep, known_board, record, rental

BAD: dict[str, dict[str, Any]] = {
    "wrong type": {"boot": "four"},
    "missing field": {"send": None},
    "extra nesting": {"rentals": {"1": {"1": {}}}},
    "version is a text": {"v": "1"},
    "version is NaN": {"v": float("nan")},
    "interval is NaN": {"interval_s": float("nan")},
    "rev above 2^53": {"rev": 2**63 - 1},
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside is looked at again at once."""
    for module in ("aggregates", "parked"):
        monkeypatch.setattr(f"patchbay.inbox.{module}.RECHECK_S", 0.2)


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_an_unreadable_board_waits_and_the_others_are_served(
    office: Office, fields: dict[str, Any]
) -> None:
    await keep(office.store, known_board(rental(1)), known_board(id="other"))
    [good] = await office.documents("boards", _id="1953")
    bad = {**good, **fields}
    await office.store.save("boards", [bad])
    await office.store.insert_new("rentals", [record(rental(1))])
    await office.open()

    # The others are served, its commands are refused, and it is reported once.
    await office.report(board="other", send=8)
    assert (await office.done("assign", board="other", cell=2, minutes=5))["cell"] == 2
    assert await office.refused("assign", cell=2, minutes=5) == "unreadable"
    assert await office.refused("state") == "unreadable"
    assert (await office.done("boards", board="all"))["total"] == 1
    # Its reports are acknowledged, and wait.
    for send in (8, 9):
        await office.report(send=send, box_acc=[1])
    assert len(await office.documents("parked")) == 2
    assert str((await office.documents("boards", _id="1953"))[0]) == str(bad)
    assert (await office.document("rentals", "rental-1"))["status"] == "active"
    await eventually(lambda: _letters(office, 1))

    # Repaired, it is taken up again: with what has come meanwhile, in order.
    await office.store.save("boards", [good])
    await eventually(office.has("boards", "1953", send=9, accesses=2))
    await until(lambda: any(one["send"] == 9 for one in office.ears.states()))
    await eventually(lambda: _parks_nothing(office))
    assert (await office.done("assign", cell=2, minutes=5))["cell"] == 2
    assert await _letters(office, 1)


async def test_an_unreadable_board_that_is_removed_begins_anew(office: Office) -> None:
    await office.store.insert_new("boards", [{"_id": "1953"}, {"_id": 5}])
    await office.open()
    await office.report(send=8)
    assert await office.documents("parked")
    await office.store.remove("boards", {"_id": "1953"})
    await eventually(office.has("boards", "1953", send=8))


async def test_a_repaired_board_is_published_though_it_is_silent(office: Office) -> None:
    await keep(office.store, known_board(rental(1)))
    [good] = await office.documents("boards")
    await office.store.save("boards", [{**good, "boot": None}])
    await office.open()
    assert not office.ears.on(TOPICS.desired("locker", "1953"))
    await office.store.save("boards", [good])
    await until(lambda: office.ears.desired())
    assert [one["cell"] for one in office.ears.desired()[-1]["rentals"]] == [1]


async def test_an_unreadable_record_of_a_rental_is_left_as_it_is(office: Office) -> None:
    await keep(office.store, known_board(rental(1)))
    bad = record(rental(2), expires_at="tomorrow")
    await office.store.insert_new("rentals", [bad])
    await office.open()
    await office.report(send=8)
    assert (await office.document("rentals", "rental-2")) == bad
    await eventually(lambda: _letters(office, 1))


async def test_the_source_of_an_unreadable_watermark_waits_and_loses_nothing(
    office: Office,
) -> None:
    await office.open()
    await office.report()
    await office.close()
    [good] = await office.documents("sources")
    await office.store.save("sources", [{**good, "upto": "1"}])
    await office.open()
    office.add(send=2)
    await eventually(lambda: _letters(office, 1))
    assert office.outbox.waiting == 1
    await office.store.save("sources", [good])
    await eventually(office.has("boards", "1953", send=2))
    await office.persisted()


async def _letters(office: Office, count: int) -> bool:
    return len(await office.documents("dead")) == count


async def _parks_nothing(office: Office) -> bool:
    return await office.documents("parked") == []
