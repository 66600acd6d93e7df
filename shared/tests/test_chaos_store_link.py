"""A store behind a link refuses exactly the writes that it is told to, in front of a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from patchbay.chaos import Refusal, StoreLink, containing
from patchbay.testing import Part, store_part, until

FULL = 14031

Things = AsyncCollection[dict[str, Any]]


@pytest.fixture
async def link(store_server: Part) -> AsyncIterator[StoreLink]:
    async with StoreLink("127.0.0.1", store_server.port) as link:
        yield link


@pytest.fixture
async def things(link: StoreLink, request: pytest.FixtureRequest) -> AsyncIterator[Things]:
    """An empty collection of the test's own, reached through the link."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(link.uri, timeoutMS=5000)
    collection = client[f"chaos_{abs(hash(request.node.name))}"]["things"]
    await collection.delete_many({})
    yield collection
    await client.close()


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{"_id": number, "name": f"thing {number};"} for number in numbers]


async def kept(things: Things) -> list[int]:
    return [one["_id"] async for one in things.find({}).sort("_id")]


async def test_everything_passes_through(link: StoreLink, things: Things) -> None:
    await things.insert_many(numbered(*range(3000)))
    await things.bulk_write(
        [
            ReplaceOne({"_id": 1}, {"name": "new"}),
            UpdateOne({"_id": 5000}, {"$set": {"a": 1}}, upsert=True),
        ]
    )
    assert await things.count_documents({}) == 3001
    assert (await things.find_one_and_update({"_id": 2}, {"$set": {"a": 2}}))["name"] == "thing 2;"
    assert link.refused == 0


async def test_connections_that_ask_for_compression_get_none(link: StoreLink) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(link.uri, compressors="zlib")
    link.refuse_writes(Refusal(code=FULL))
    with pytest.raises(OperationFailure):
        await client["chaos"]["things"].insert_one({"text": "x" * 1000})
    await client.close()


async def test_a_command_is_refused_with_code_name_and_labels(
    link: StoreLink, things: Things
) -> None:
    link.refuse_writes(Refusal(code=FULL, name="OutOfDiskSpace", labels=("Mine",)))
    for write in (
        things.insert_many(numbered(1, 2)),
        things.insert_one({"_id": 1}),
        things.replace_one({"_id": 1}, {}),
        things.delete_many({}),
        things.find_one_and_update({"_id": 1}, {"$set": {"a": 1}}),
    ):
        with pytest.raises(OperationFailure) as caught:
            await write
        assert caught.value.code == FULL
        assert caught.value.has_error_label("Mine")
    assert link.refused == 5
    assert await kept(things) == []
    link.resume()
    await things.insert_many(numbered(1, 2))
    assert await kept(things) == [1, 2]


@pytest.mark.parametrize("ordered", [True, False])
async def test_each_document_is_refused_by_its_index(
    link: StoreLink, things: Things, *, ordered: bool
) -> None:
    link.refuse_writes(Refusal(code=FULL, name="OutOfDiskSpace", how="documents"))
    with pytest.raises(BulkWriteError) as caught:
        await things.insert_many(numbered(*range(5)), ordered=ordered)
    errors = caught.value.details["writeErrors"]
    assert [(one["index"], one["code"]) for one in errors] == [
        (index, FULL) for index in range(1 if ordered else 5)
    ]
    assert await kept(things) == []
    with pytest.raises(WriteError) as single:
        await things.replace_one({"_id": 1}, {"a": 1}, upsert=True)
    assert single.value.code == FULL


async def test_one_document_is_refused_and_the_others_are_written(
    link: StoreLink, things: Things
) -> None:
    await things.insert_one({"_id": 3})
    link.refuse_writes(Refusal(code=121, how="documents", only=containing("thing 1;")))
    with pytest.raises(BulkWriteError) as caught:
        await things.insert_many(numbered(*range(5)), ordered=False)
    errors = caught.value.details["writeErrors"]
    assert [(one["index"], one["code"]) for one in errors] == [(1, 121), (3, 11000)]
    assert caught.value.details["nInserted"] == 3
    assert await kept(things) == [0, 2, 3, 4]
    await things.insert_many(numbered(7, 8))
    assert link.refused == 1


async def test_an_ordered_write_ends_at_the_refused_document(
    link: StoreLink, things: Things
) -> None:
    link.refuse_writes(Refusal(code=121, how="documents", only=containing("thing 2;")))
    with pytest.raises(BulkWriteError) as caught:
        await things.insert_many(numbered(*range(5)))
    assert [one["index"] for one in caught.value.details["writeErrors"]] == [2]
    assert await kept(things) == [0, 1]


async def test_upserts_keep_their_index_beside_a_refused_one(
    link: StoreLink, things: Things
) -> None:
    link.refuse_writes(Refusal(code=FULL, how="documents", only=containing("thing 0;")))
    writes = [ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in numbered(0, 1, 2)]
    with pytest.raises(BulkWriteError) as caught:
        await things.bulk_write(writes, ordered=False)
    assert [one["index"] for one in caught.value.details["writeErrors"]] == [0]
    assert [(one["index"], one["_id"]) for one in caught.value.details["upserted"]] == [
        (1, 1),
        (2, 2),
    ]


async def test_only_the_named_collection_is_refused(link: StoreLink, things: Things) -> None:
    link.refuse_writes(Refusal(collections={"things"}))
    await things.database["others"].insert_one({})
    with pytest.raises(OperationFailure):
        await things.insert_one({})


async def test_a_write_concern_error_comes_after_the_write(link: StoreLink, things: Things) -> None:
    link.refuse_writes(Refusal(code=100, name="UnsatisfiableWriteConcern", how="write concern"))
    with pytest.raises(WriteConcernError) as caught:
        await things.insert_one({"_id": 1})
    assert caught.value.code == 100
    with pytest.raises(BulkWriteError) as bulk:
        await things.insert_many(numbered(2, 3))
    assert bulk.value.details["writeConcernErrors"][0]["code"] == 100
    link.accept_writes()
    assert await kept(things) == [1, 2, 3]


async def test_a_write_that_looked_failed_has_landed(link: StoreLink, things: Things) -> None:
    link.refuse_writes(Refusal(how="lands", times=1))
    with pytest.raises(AutoReconnect):
        await things.insert_one({"_id": 1})
    assert await kept(things) == [1]
    await things.insert_one({"_id": 2})
    assert link.refused == 1


async def test_a_write_that_hangs_is_neither_done_nor_answered(
    link: StoreLink, things: Things
) -> None:
    await things.find_one()  # the connection is there
    link.refuse_writes(Refusal(how="hangs"))
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(link.uri, timeoutMS=1000)
    with pytest.raises(NetworkTimeout):
        await client[things.database.name]["things"].insert_one({"_id": 1})
    await client.close()
    link.resume()
    assert await kept(things) == []


async def test_statements_in_the_command_itself_are_found_too(
    link: StoreLink, things: Things
) -> None:
    """A shell sends them so."""
    link.refuse_writes(Refusal(code=FULL, how="documents", only=containing("thing 1;")))
    answer = await things.database.command(
        "insert", "things", documents=numbered(0, 1, 2), ordered=False
    )
    assert [one["index"] for one in answer["writeErrors"]] == [1]
    assert await kept(things) == [0, 2]


async def test_writes_refused_under_load_are_the_ones_that_are_missing(
    link: StoreLink, things: Things
) -> None:
    link.refuse_writes(Refusal(code=FULL, how="documents", only=containing("7;")))

    async def insert(start: int) -> None:
        documents = [InsertOne(one) for one in numbered(*range(start, start + 100))]
        with pytest.raises(BulkWriteError):
            await things.bulk_write(documents, ordered=False)

    await asyncio.gather(*(insert(start) for start in range(0, 1000, 100)))
    assert await kept(things) == [number for number in range(1000) if number % 10 != 7]


async def test_a_client_that_monitors_sees_a_stall_and_works_after_it(
    link: StoreLink, things: Things
) -> None:
    await things.insert_one({"_id": 1})
    link.stall()
    task = asyncio.create_task(things.insert_one({"_id": 2}))
    done, _ = await asyncio.wait([task], timeout=0.3)
    assert not done
    link.resume()
    await task
    link.cut()  # and connects again
    assert await kept(things) == [1, 2]


async def test_a_refusal_after_the_store_has_gone_ends_the_connection(tmp_path: Path) -> None:
    part = store_part(tmp_path / "store")
    await asyncio.to_thread(part.start)
    async with StoreLink("127.0.0.1", part.port) as link:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(link.uri, timeoutMS=3000)
        await client["chaos"]["things"].insert_one({"_id": 1})
        link.stall("down")  # so that the end of the store comes with the refusal
        link.refuse_writes(Refusal(code=FULL))
        write = asyncio.create_task(client["chaos"]["things"].insert_one({"_id": 2}))
        await until(lambda: link.refused)
        await asyncio.to_thread(part.kill)
        link.resume()
        with pytest.raises(PyMongoError):
            await write
        await client.close()
    await until(lambda: not link.connections)
