"""What the locker service keeps, in a real store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchbay.chaos.store_link import Refusal, StoreLink, containing
from patchbay.messages import DeadLetter, now, parse_time, rfc3339
from patchbay.store import Document, Store
from patchbay_locker.board import Access, Rental, SaveRental
from patchbay_locker.numbering import key
from patchbay_locker.store import ACCESSES, BOARDS, DEAD, RENTALS, LockerStore, access, public
from tests.locker_domain import BOOT, keep, known_board, record, rental

TTL_S = 3600


@pytest.fixture
def kept(store: Store) -> LockerStore:
    return LockerStore(store, TTL_S)


def accessed(device: str, send: int, cell: int, *, boot: int = BOOT) -> Document:
    """An access as the domain keeps it."""
    at = now() + timedelta(seconds=send)
    effect = Access(cell, None, boot, send, at, False)
    return access(key(device, boot, send), device, effect)


async def shown(kept: LockerStore, device: str | None, **page: Any) -> list[tuple[str, int, int]]:
    found = await kept.accesses(device, **{"skip": 0, "limit": 100, **page})
    return [(one["board"], one["send"], one["cell"]) for one in found]


def ids(found: list[Document]) -> list[str]:
    return [one["_id"] for one in found]


# Accesses


async def test_accesses_of_a_board_are_not_those_of_one_whose_name_begins_with_its(
    kept: LockerStore,
) -> None:
    names = ["a", "ab", "a-b", "a_b", "a0", "b", "az"]
    await kept.save_facts([accessed(name, 1, 2) for name in names])
    for name in names:
        assert await shown(kept, name) == [(name, 1, 2)]
    assert await shown(kept, "aa") == []


async def test_accesses_are_shown_newest_first_and_in_pages(kept: LockerStore) -> None:
    facts = [accessed("a", send, cell) for send in (9, 10, 100) for cell in (7, 64)]
    await kept.save_facts([*facts, accessed("a", 1, 2, boot=BOOT + 60)])
    newest_first = [
        ("a", 1, 2),
        ("a", 100, 64),
        ("a", 100, 7),
        ("a", 10, 64),
        ("a", 10, 7),
        ("a", 9, 64),
        ("a", 9, 7),
    ]
    assert await shown(kept, "a") == newest_first
    assert await shown(kept, "a", skip=2, limit=3) == newest_first[2:5]
    assert await shown(kept, "a", skip=7) == []


async def test_accesses_of_all_boards_are_shown_together(kept: LockerStore) -> None:
    await kept.save_facts([accessed("b", 1, 2), accessed("a", 1, 2), accessed("a", 2, 4)])
    assert sorted(await shown(kept, None)) == [("a", 1, 2), ("a", 2, 4), ("b", 1, 2)]


async def test_an_access_that_is_kept_already_stays_as_it_is(
    kept: LockerStore, store: Store
) -> None:
    first = accessed("a", 1, 2)
    again = {**first, "rental": "another", "maybe_repeat": True}
    await kept.save_facts([first])
    await kept.save_facts([again, accessed("a", 2, 2)])
    assert await store.find(ACCESSES, {"_id": first["_id"]}) == [first]
    assert len(await shown(kept, "a")) == 2


# Rentals


async def test_rentals_are_found_by_board_and_whether_they_run_newest_first(
    kept: LockerStore, store: Store
) -> None:
    await keep(store, known_board(rental(2), rental(5)), known_board(rental(7), id="other"))
    moment = now()
    for number, (cell, board, fields) in enumerate(
        (
            (2, "1953", {}),
            (4, "1953", {"status": "expired"}),
            (5, "1953", {}),
            (7, "other", {}),
        )
    ):
        created_at = moment - timedelta(hours=9 - number)
        one = record(rental(cell), board, created_at=created_at, **fields)
        await store.save(RENTALS, [one])

    async def found(
        board: str | None, *, active: bool, skip: int = 0, limit: int = 9
    ) -> tuple[list[str], int]:
        some, total = await kept.rentals(board, active=active, skip=skip, limit=limit)
        return ids(some), total

    assert await found("1953", active=False) == (["rental-5", "rental-4", "rental-2"], 3)
    assert await found("1953", active=True) == (["rental-5", "rental-2"], 2)
    assert await found(None, active=True) == (["rental-7", "rental-5", "rental-2"], 3)
    assert await found(None, active=False, skip=1, limit=2) == (["rental-5", "rental-4"], 4)
    assert await found("nobody", active=False) == ([], 0)


async def test_a_record_is_written_with_the_others_and_over_the_one_before(
    kept: LockerStore, store: Store
) -> None:
    one, two = rental(2), rental(5)
    kept.record(SaveRental(one, "1953", "active"))
    kept.record(SaveRental(two, "1953", "active"))
    assert await store.find(RENTALS, {}) == []
    await kept.save_records()
    assert await store.find(RENTALS, {}, sort=[("_id", 1)]) == [record(one), record(two)]
    ended = now()
    kept.record(SaveRental(one, "1953", "revoked", ended))
    await kept.save_records()
    assert await store.find(RENTALS, {"_id": one.id}) == [
        record(one, status="revoked", ended_at=ended)
    ]


async def test_a_record_that_nobody_decided_on_in_the_end_is_not_written(
    kept: LockerStore, store: Store
) -> None:
    await keep(store, known_board(rental(2)))
    kept.record(SaveRental(rental(5), "1953", "active"))  # its board could not be saved
    kept.record(SaveRental(rental(2), "1953", "revoked", now()))  # nor was this kept
    await kept.prepare(now())
    found = await store.find(RENTALS, {})
    assert [(one["_id"], one["status"]) for one in found] == [("rental-2", "active")]


async def test_the_start_makes_records_tell_what_boards_say_and_a_second_one_nothing_new(
    kept: LockerStore, store: Store
) -> None:
    gone, over = rental(7), rental(8, left_s=-60.0)
    await keep(store, known_board(rental(2)))
    await store.save(RENTALS, [record(gone), record(over)])
    moment = now()
    await kept.prepare(moment)
    found = {one["_id"]: one for one in await store.find(RENTALS, {})}
    assert (found["rental-7"]["status"], found["rental-7"]["ended_at"]) == ("revoked", moment)
    assert found["rental-8"] == record(over, status="expired", ended_at=over.expires_at)
    assert found["rental-2"]["status"] == "active"
    await LockerStore(store, TTL_S).prepare(moment + timedelta(minutes=1))
    assert {one["_id"]: one for one in await store.find(RENTALS, {})} == found
    await kept.prepare(moment)
    assert [one.id for one in kept.boards] == ["1953"]


# Boards


async def test_a_board_comes_back_as_it_was_kept(kept: LockerStore, store: Store) -> None:
    board = known_board(
        rental(2),
        id="Stadt Ost/7",
        online=True,
        interval_s=61.5,
        state=[0, 7],
        box_eng=[2],
        box_to=[33],
        reset_id=3,
        reset_done=2,
        alarms=["unknown_state"],
        differs=2,
    )
    await keep(store, board)
    await kept.boards.load()
    [found] = kept.boards
    assert found.state == board
    assert (await store.find(BOARDS, {}))[0]["id"] == "Stadt Ost/7"


# Dead letters


async def test_a_dead_letter_is_kept_once_with_a_time_that_it_can_expire_by(
    kept: LockerStore, store: Store
) -> None:
    await kept.prepare(now())
    letter = DeadLetter(
        id="l1", reason="no ID", time=rfc3339(now()), source="s", peer="p", size=3, hex="41"
    )
    await kept.bury(letter)
    await kept.bury(letter)
    assert await store.find(DEAD, {}) == [
        {
            "_id": "l1",
            "reason": "no ID",
            "time": letter.time,
            "source": "s",
            "peer": "p",
            "size": 3,
            "hex": "41",
            "at": parse_time(letter.time),
            "service": store.service,
        }
    ]
    indexes = await store.collection(DEAD).index_information()
    ages = [one["expireAfterSeconds"] for one in indexes.values() if "expireAfterSeconds" in one]
    assert ages == [TTL_S]


def test_what_an_answer_shows_has_no_database_id_and_times_as_text() -> None:
    moment = parse_time("2026-05-01T12:00:00Z")
    documents: list[Document] = [{"_id": "1", "code": "1492", "at": moment, "cell": 2}]
    assert public(documents, "code") == [{"at": "2026-05-01T12:00:00.000Z", "cell": 2}]
    assert public(documents) == [{"code": "1492", "at": "2026-05-01T12:00:00.000Z", "cell": 2}]


async def test_a_record_that_the_store_never_takes_is_set_aside_and_holds_up_no_other(
    linked_store: Store, store_link: StoreLink
) -> None:
    store_link.refuse_writes(
        Refusal(code=121, how="documents", only=containing("odd"), collections={RENTALS})
    )
    kept = LockerStore(linked_store, 3600)
    await kept.prepare(now())
    odd, even = (
        Rental(id=f"r-{one}", cell=1, code="1234", holder=one, created_at=now(), expires_at=now())
        for one in ("odd", "even")
    )
    kept.record(SaveRental(odd, "1953", "active"))
    kept.record(SaveRental(even, "1953", "active"))
    await kept.save_records()
    await kept.save_records()
    assert [one["holder"] for one in await linked_store.find(RENTALS, {})] == ["even"]
    [letter] = await linked_store.find("dead", {})
    assert letter["_id"] == f"{RENTALS}:r-odd"
    assert b"odd" in letter["original"]


# How long things are kept


async def test_accesses_are_removed_when_their_time_is_over_and_newer_ones_stay(
    store: Store,
) -> None:
    kept = LockerStore(store, TTL_S, accesses_ttl_s=3600)
    moment = now()
    old = [accessed(f"b{n % 7}", n, 2) for n in range(2500)]
    for n, one in enumerate(old):
        one["at"] = moment - timedelta(hours=3) + timedelta(seconds=n)
    odd = {**accessed("odd", 1, 2), "at": "yesterday"}
    await kept.save_facts([odd, *old, accessed("b1", 9000, 2)])
    assert await kept.remove_expired(moment, 0.0) == 2500
    assert await kept.remove_expired(moment, 0.0) == 0
    assert await shown(kept, "b1") == [("b1", 9000, 2)]
    assert len(await store.find(ACCESSES, {})) == 2
    endless = LockerStore(store, TTL_S, accesses_ttl_s=0)
    assert await endless.remove_expired(moment + timedelta(days=9999), 0.0) == 0


async def test_only_rentals_that_have_ended_have_an_end_by_which_they_go(store: Store) -> None:
    """The store itself removes them; active ones have no such time."""
    kept = LockerStore(store, TTL_S, rentals_ttl_s=86_400)
    await keep(store, known_board(rental(2)))
    ended = now() - timedelta(days=2)
    await store.insert_new(
        RENTALS, [record(rental(4, id="over"), status="expired", ended_at=ended)]
    )
    await kept.prepare(now())
    indexes = await (await store.collection(RENTALS).list_indexes()).to_list()
    [ttl] = [one for one in indexes if "expireAfterSeconds" in one]
    assert (dict(ttl["key"]), ttl["expireAfterSeconds"]) == ({"ended_at": 1}, 86_400)
    [active] = await store.find(RENTALS, {"status": "active"})
    assert active["ended_at"] is None
    await LockerStore(store, TTL_S, rentals_ttl_s=0).prepare(now())
    indexes = await (await store.collection(RENTALS).list_indexes()).to_list()
    assert 2**31 - 1 in [one.get("expireAfterSeconds") for one in indexes]
