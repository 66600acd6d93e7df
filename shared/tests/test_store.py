"""The store: a real server, also one that is killed and one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import BulkWriteError, OperationFailure

from patchbay.errors import DocumentRejected, QueryRejected, SettingsError, Unavailable
from patchbay.settings import StoreSettings
from patchbay.store import INSERT_BATCH, Store, reaching
from patchbay.testing import PATIENCE_S, Part, store_part

AWAY_S = 8.0
"""By then an operation has found out that the store is away (it looks for it for two seconds)."""


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"_id": number, "say": f"n{number}"} for number in range(count)]


async def test_the_store_answers(store: Store) -> None:
    await store.ping()


async def test_only_what_is_new_is_inserted_and_counted(store: Store) -> None:
    assert await store.insert_new("things", numbered(3)) == 3
    again = [{"_id": 1, "say": "changed"}, {"_id": 3, "say": "n3"}, {"_id": 0, "say": "changed"}]
    assert await store.insert_new("things", again) == 1
    assert await store.insert_new("things", again) == 0
    assert await store.find("things", {}, sort=[("_id", 1)]) == numbered(4)


async def test_inserting_nothing_is_nothing(store: Store) -> None:
    assert await store.insert_new("things", []) == 0


async def test_more_than_one_insert_takes_are_inserted_and_counted(store: Store) -> None:
    assert await store.insert_new("things", numbered(10)) == 10
    count = 2 * INSERT_BATCH + 7
    assert await store.insert_new("things", numbered(count)) == count - 10
    assert await store.count("things", {}) == count


async def test_the_same_id_twice_in_one_insert_is_one_document(store: Store) -> None:
    assert await store.insert_new("things", [{"_id": 1}, {"_id": 1}, {"_id": 2}]) == 2


async def test_an_error_that_is_no_duplicate_is_an_error(store: Store) -> None:
    with pytest.raises(DocumentRejected):
        await store.insert_new("things", [{"_id": 1}, {"_id": 2, "big": "x" * 17_000_000}])
    assert await store.find("things", {}) == [{"_id": 1}]


class Unconfirmed:
    """A server whose journal fails: it has the documents and cannot promise to keep them."""

    async def bulk_write(self, documents: list[Any], *, ordered: bool) -> None:
        raise BulkWriteError(
            {
                "writeErrors": [{"index": 0, "code": 11000, "errmsg": "duplicate key"}],
                "writeConcernErrors": [{"code": 64, "errmsg": "waiting for the journal"}],
                "nInserted": len(documents) - 1,
            }
        )


async def test_an_insert_that_is_not_confirmed_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_database", {"things": Unconfirmed()})
    with pytest.raises(Unavailable, match="did not confirm"):
        await store.insert_new("things", numbered(2))


async def test_save_writes_over_what_is_there(store: Store) -> None:
    await store.save("things", [{"_id": 1, "a": 1, "b": 1}])
    await store.save("things", [{"_id": 1, "a": 2}, {"_id": 2, "a": 3}])
    assert await store.find("things", {}, sort=[("_id", 1)]) == [
        {"_id": 1, "a": 2},
        {"_id": 2, "a": 3},
    ]
    await store.save("things", [])


async def test_replace_counts_the_filters_that_matched(store: Store) -> None:
    await store.insert_new("things", [{"_id": n, "v": 1, "old": n} for n in range(3)])
    changes = [({"_id": n, "v": v}, {"_id": n, "v": 2}) for n, v in ((0, 1), (1, 7), (9, 1))]
    assert await store.replace("things", changes) == 1
    assert await store.replace("things", changes) == 0
    assert await store.replace("things", []) == 0
    assert await store.find("things", {}, sort=[("_id", 1)]) == [
        {"_id": 0, "v": 2},
        {"_id": 1, "v": 1, "old": 1},
        {"_id": 2, "v": 1, "old": 2},
    ]


async def test_an_index_may_be_asked_for_twice(store: Store) -> None:
    for _ in range(2):
        await store.ensure_index("things", [("a", 1), ("b", -1)])
        await store.ensure_index("things", [("at", 1)], expireAfterSeconds=60)
    indexes = await store.collection("things").index_information()
    assert {"a_1_b_-1", "at_1"} <= set(indexes)


class OtherIndex:
    """A server that has an index with these keys and other options, as MongoDB answers."""

    def __init__(self, code: int, changes: bool) -> None:
        self.code = code
        self.changes = changes
        self.commands: list[tuple[str, str, dict[str, Any]]] = []

    def __getitem__(self, collection: str) -> OtherIndex:
        return self

    async def create_index(self, keys: list[tuple[str, int]], **options: Any) -> None:
        raise OperationFailure("An equivalent index exists with other options", self.code)

    async def command(self, name: str, collection: str, *, index: dict[str, Any]) -> None:
        self.commands.append((name, collection, index))
        if not self.changes:
            raise OperationFailure("not a TTL index", 72)


@pytest.mark.parametrize("code", [85, 86])
@pytest.mark.parametrize("changes", [True, False])
async def test_documents_are_kept_for_the_time_that_is_asked_for_last_where_that_can_be_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, changes: bool
) -> None:
    server = OtherIndex(code, changes)
    monkeypatch.setattr(store, "_database", server)
    await store.ensure_index("things", [("at", 1)], expireAfterSeconds=60)
    index = {"keyPattern": {"at": 1}, "expireAfterSeconds": 60}
    assert server.commands == [("collMod", "things", index)]


async def test_another_index_with_the_same_keys_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = OtherIndex(85, changes=True)
    monkeypatch.setattr(store, "_database", server)
    await store.ensure_index("things", [("name", 1)], unique=True)
    assert server.commands == []


async def test_an_index_that_cannot_be_made_for_another_reason_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_database", OtherIndex(67, changes=True))
    with pytest.raises(Unavailable):
        await store.ensure_index("things", [("at", 1)], expireAfterSeconds=60)


async def test_an_index_may_be_asked_for_with_another_time(store: Store) -> None:
    for seconds in (60, 120, 30):
        await store.ensure_index("things", [("at", 1)], expireAfterSeconds=seconds)
        indexes = await store.collection("things").index_information()
        assert indexes["at_1"]["expireAfterSeconds"] == seconds


async def test_a_unique_index_refuses_a_second_one_with_an_error_of_its_own(store: Store) -> None:
    await store.ensure_index("things", [("name", 1)], unique=True)
    await store.save("things", [{"_id": 1, "name": "a"}])
    with pytest.raises(DocumentRejected):
        await store.save("things", [{"_id": 2, "name": "a"}])


async def test_find_sorts_skips_and_limits_and_count_counts(store: Store) -> None:
    await store.insert_new("things", [{"_id": n, "even": n % 2 == 0} for n in range(10)])
    found = await store.find("things", {"even": True}, sort=[("_id", -1)], skip=1, limit=2)
    assert [one["_id"] for one in found] == [6, 4]
    assert await store.count("things", {"even": True}) == 5
    assert await store.find("nothing", {}) == []
    assert await store.count("nothing", {}) == 0


async def test_times_and_large_numbers_come_back_as_they_were(store: Store) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    await store.save("things", [{"_id": 1, "at": moment, "n": 2**40, "text": "등"}])
    [found] = await store.find("things", {})
    assert found == {"_id": 1, "at": moment, "n": 2**40, "text": "등"}
    assert found["at"].tzinfo is not None


@pytest.mark.parametrize("query", [{"$noSuchOperator": 1}, {"$regex": "("}])
async def test_a_query_that_no_server_understands_is_rejected(
    store: Store, query: dict[str, Any]
) -> None:
    with pytest.raises(QueryRejected):
        await store.find("things", {"a": query})


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Part]:
    """A store that a test may kill; not started."""
    part = store_part(tmp_path / "store")
    yield part
    part.kill()


@pytest.fixture
async def own(own_server: Part) -> AsyncIterator[Store]:
    settings = StoreSettings(database="test", timeout_s=2.0)
    async with Store(settings, f"mongodb://127.0.0.1:{own_server.port}") as store:
        yield store


async def test_a_store_that_is_not_there_yet_is_unavailable_and_then_works(
    own: Store, own_server: Part
) -> None:
    async with asyncio.timeout(AWAY_S):
        with pytest.raises(Unavailable, match="away"):
            await own.ping()
    own_server.start()
    await own.ping()


async def test_a_killed_store_is_unavailable_for_each_operation_and_has_all_it_confirmed(
    own: Store, own_server: Part
) -> None:
    own_server.start()
    await own.insert_new("things", numbered(200))
    await own.save("things", [{"_id": 7, "say": "saved"}])
    await own.replace("things", [({"_id": 8}, {"_id": 8, "say": "replaced"})])
    own_server.kill()
    operations = [
        own.ping(),
        own.ensure_index("things", [("say", 1)]),
        own.insert_new("things", numbered(1)),
        own.save("things", numbered(1)),
        own.replace("things", [({"_id": 1}, {"_id": 1})]),
        own.find("things", {}),
        own.count("things", {}),
    ]
    async with asyncio.timeout(AWAY_S):
        ends = await asyncio.gather(*operations, return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * len(operations)
    own_server.start()
    assert await own.count("things", {}) == 200
    assert await own.find("things", {"_id": {"$in": [7, 8]}}, sort=[("_id", 1)]) == [
        {"_id": 7, "say": "saved"},
        {"_id": 8, "say": "replaced"},
    ]


async def test_nothing_that_was_confirmed_is_lost_when_the_store_is_killed_while_it_writes(
    own: Store, own_server: Part
) -> None:
    own_server.start()
    confirmed: list[int] = []

    async def write(first: int) -> None:
        number = first
        while True:
            await own.insert_new("things", [{"_id": number}])
            confirmed.append(number)
            if len(confirmed) == 60:
                own_server.kill()
            number += 4

    ends = await asyncio.gather(*(write(first) for first in range(4)), return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * 4
    own_server.start()
    assert {one["_id"] for one in await own.find("things", {})} >= set(confirmed)


async def test_a_store_that_hangs_is_unavailable_and_works_when_it_goes_on(
    own: Store, own_server: Part
) -> None:
    own_server.start()
    await own.save("things", numbered(2))
    with own_server.frozen():
        async with asyncio.timeout(AWAY_S):
            with pytest.raises(Unavailable):
                await own.find("things", {})
    assert await own.count("things", {}) == 2


# Being cancelled


async def test_a_cancellation_that_the_driver_loses_ends_the_task_all_the_same() -> None:
    reached = asyncio.Event()

    async def lose() -> None:
        async with reaching():
            reached.set()
            with contextlib.suppress(asyncio.CancelledError):  # as the driver's wait_for may
                await asyncio.Event().wait()

    task = asyncio.create_task(lose())
    await reached.wait()
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_S)
    assert task.cancelled()


async def test_a_task_that_uses_the_store_ends_whenever_it_is_cancelled(store: Store) -> None:
    async def work() -> None:
        while True:
            await store.save("things", [{"_id": 1}])

    for moment in range(200):
        task = asyncio.create_task(work())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled(), f"after {moment} turns"


async def test_a_timeout_around_the_store_is_a_timeout(store: Store) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.05):
            while True:
                await store.find("things", {})

    with pytest.raises(TimeoutError):
        await impatient()
    await store.ping()


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://",
        "mongodb://user:p@ss:w/rd@127.0.0.1/",
        "mongodb://127.0.0.1:99999/",
        "mongodb://127.0.0.1/?tls=true&tlsCAFile=/nope.pem",
        "mongodb://[::1/",
    ],
)
async def test_a_uri_that_is_invalid_is_one_line_that_names_the_setting(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[store\] uri: [^\n]+$") as caught:
        Store(StoreSettings(), uri)
    assert "p@ss" not in str(caught.value)
