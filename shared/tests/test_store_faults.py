"""Whose fault an error of the store is: against a real store behind a link that refuses writes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from patchbay.chaos.store_link import How, Refusal, StoreLink, containing
from patchbay.errors import DocumentRejected, QueryRejected, Unavailable
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.store.writer import PROBE_ID
from patchbay.testing import SUSPECT_S, Part, eventually

SETTINGS = StoreSettings(timeout_s=2.0)

GENERAL = {
    14031: "OutOfDiskSpace",
    8000: "AtlasError",
    112: "WriteConflict",
    91: "ShutdownInProgress",
    13388: "StaleConfig",
    13: "Unauthorized",
    8: "UnknownError",
    2: "BadValue",
}
OWN = [10334, 17419, 17420, 121, 22, 15, 52, 53, 54, 55, 56, 57, 17280, 171, 16755]


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"_id": number, "say": f"n{number}."} for number in range(count)]


async def ids(store: Store) -> list[Any]:
    return sorted(one["_id"] for one in await store.find("things", {}))


QUICK = {(14031, "command"), (112, "documents"), (8000, "write concern"), (2, "documents")}
CASES = [
    pytest.param(code, how, marks=[] if (code, how) in QUICK else pytest.mark.long)
    for code in GENERAL
    for how in ("command", "documents", "write concern")
]


@pytest.mark.parametrize(("code", "how"), CASES)
async def test_a_store_that_refuses_all_is_unavailable_and_takes_all_later(
    store: Store, linked_store: Store, store_link: StoreLink, code: int, how: How
) -> None:
    await store.save("things", [{"_id": 0, "v": 1}])
    store_link.refuse_writes(Refusal(code=code, name=GENERAL[code], how=how))
    for _ in range(4):
        for write in (
            linked_store.insert_new("things", numbered(5)[1:]),
            linked_store.insert_new("things", [{"_id": 9}]),
            linked_store.save("things", [{"_id": 8}]),
            linked_store.replace("things", [({"_id": 0, "v": 1}, {"_id": 0, "v": 1})]),
            linked_store.remove("things", {"_id": 77}),
            linked_store.save("others", [{"_id": 1}]),
        ):
            with pytest.raises(Unavailable):
                await write
        await asyncio.sleep(0.1)
    store_link.accept_writes()

    async def taken() -> bool:
        with contextlib.suppress(Unavailable):
            await linked_store.insert_new("things", [*numbered(5)[1:], {"_id": 9}])
            await linked_store.save("things", [{"_id": 8}])
            return True
        return False

    await eventually(taken)
    assert await ids(store) == [0, 1, 2, 3, 4, 8, 9]


@pytest.mark.parametrize("code", OWN)
async def test_a_document_that_the_server_never_takes_is_rejected_at_once_and_the_others_are_there(
    store: Store, linked_store: Store, store_link: StoreLink, code: int
) -> None:
    store_link.refuse_writes(
        Refusal(code=code, name="own", how="documents", only=containing("n3."))
    )
    with pytest.raises(DocumentRejected) as rejected:
        await linked_store.insert_new("things", numbered(6))
    assert list(rejected.value.documents) == [3]
    document, why = rejected.value.documents[3]
    assert document == {"_id": 3, "say": "n3."}
    assert str(code) in why
    assert await ids(store) == [0, 1, 2, 4, 5]
    with pytest.raises(DocumentRejected):
        await linked_store.save("things", numbered(6))


async def test_an_error_that_names_no_document_is_looked_for_one_by_one(
    store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    store_link.refuse_writes(
        Refusal(code=22, name="InvalidBSON", how="command", only=containing("n3."))
    )
    with pytest.raises(DocumentRejected) as rejected:
        await linked_store.insert_new("things", numbered(50))
    assert list(rejected.value.documents) == [3]
    assert await ids(store) == [n for n in range(50) if n != 3]


@pytest.mark.parametrize("how", ["command", "documents"])
@pytest.mark.parametrize("code", [14031, 96])
async def test_a_document_that_alone_is_refused_for_long_is_rejected(
    store: Store, linked_store: Store, store_link: StoreLink, code: int, how: How
) -> None:
    store_link.refuse_writes(Refusal(code=code, name="odd", how=how, only=containing("n3.")))
    started = asyncio.get_running_loop().time()
    failures = 0
    rejected: list[Any] = []
    while not rejected:
        try:
            await linked_store.insert_new("things", numbered(6))
        except Unavailable:
            failures += 1
            await asyncio.sleep(0.05)
        except DocumentRejected as error:
            rejected += error.documents
    assert rejected == [3]
    assert failures + 1 >= 3
    assert asyncio.get_running_loop().time() - started >= SUSPECT_S
    assert await ids(store) == [0, 1, 2, 4, 5]


async def test_a_document_that_is_refused_while_all_are_is_not_counted(
    store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    await linked_store.insert_new("things", numbered(3))
    store_link.refuse_writes(Refusal(code=14031, name="OutOfDiskSpace", how="documents"))
    for _ in range(10):
        with pytest.raises(Unavailable):
            await linked_store.insert_new("things", numbered(6))
        await asyncio.sleep(0.06)
    store_link.refuse_writes(Refusal(code=96, how="documents", only=containing("n3.")))
    with pytest.raises(Unavailable):  # the first time that it is this one alone
        await linked_store.insert_new("things", numbered(6))
    store_link.accept_writes()
    assert await linked_store.insert_new("things", numbered(6)) == 1


async def test_what_is_changed_by_compare_and_set_is_never_rejected_for_a_code(
    store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    await store.save("things", [{"_id": 1, "v": 1}])
    for how in ("command", "documents"):
        store_link.refuse_writes(Refusal(code=121, name="DocumentValidationFailure", how=how))  # type: ignore[arg-type]
        with pytest.raises(Unavailable):
            await linked_store.replace("things", [({"_id": 1, "v": 1}, {"_id": 1, "v": 2})])


class Unencodable:
    pass


@pytest.mark.parametrize(
    "value",
    [Unencodable(), 2**63, "\ud800", {1: 2}, {"a\0b": 1}],
    ids=["object", "integer", "text", "key", "key with NUL"],
)
async def test_a_document_that_cannot_be_encoded_is_rejected_and_the_others_are_there(
    store: Store, value: object
) -> None:
    documents = numbered(4)
    documents[2]["value"] = value
    with pytest.raises(DocumentRejected) as rejected:
        await store.insert_new("things", documents)
    assert list(rejected.value.documents) == [2]
    assert rejected.value.encoding
    assert await ids(store) == [0, 1, 3]
    with pytest.raises(DocumentRejected) as rejected:
        await store.replace("things", [({"_id": 0}, {"_id": 0, "value": value})])
    assert rejected.value.encoding


async def test_a_document_nested_too_deeply_is_rejected(store: Store) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(DocumentRejected):
        await store.insert_new("things", [{"_id": 1}, {"_id": 2, "deep": deep}])
    assert await ids(store) == [1]


async def test_a_document_that_is_too_large_is_rejected_and_the_others_are_there(
    store: Store,
) -> None:
    large = {"_id": 2, "big": "x" * 17_000_000}
    with pytest.raises(DocumentRejected) as rejected:
        await store.insert_new("things", [{"_id": 1}, large, {"_id": 3}])
    assert list(rejected.value.documents) == [2]
    assert await ids(store) == [1, 3]
    with pytest.raises(Unavailable):
        await store.replace("things", [({"_id": 1}, {**large, "_id": 1})])


async def test_a_duplicate_of_another_index_is_the_documents_own_fault(store: Store) -> None:
    await store.ensure_index("things", [("say", 1)], unique=True)
    await store.insert_new("things", numbered(2))
    with pytest.raises(DocumentRejected) as rejected:
        await store.insert_new("things", [*numbered(3), {"_id": 7, "say": "n0."}])
    assert list(rejected.value.documents) == [7]
    assert await ids(store) == [0, 1, 2]


async def test_a_duplicate_whose_index_the_server_does_not_name_is_looked_up(
    store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    await store.insert_new("things", numbered(1))
    store_link.refuse_writes(Refusal(code=11000, name="E11000", how="documents"))
    with pytest.raises(DocumentRejected) as rejected:
        await linked_store.insert_new("things", numbered(2))
    assert list(rejected.value.documents) == [1]


async def test_an_error_that_is_labelled_as_worth_another_try_rejects_nothing(
    linked_store: Store, store_link: StoreLink
) -> None:
    for label in ("RetryableWriteError", "TransientTransactionError"):
        store_link.refuse_writes(Refusal(code=121, labels=(label,)))
        with pytest.raises(Unavailable):
            await linked_store.insert_new("things", numbered(1))


async def test_an_index_that_cannot_be_made_is_unavailable(
    linked_store: Store, store_link: StoreLink
) -> None:
    for code in (14031, 67):
        store_link.refuse_writes(Refusal(code=code, commands=frozenset({"createIndexes"})))
        with pytest.raises(Unavailable):
            await linked_store.ensure_index("things", [("a", 1)])


@pytest.mark.parametrize(
    "code", [pytest.param(one, marks=pytest.mark.long if one == 91 else []) for one in GENERAL]
)
async def test_reads_that_are_refused_are_unavailable(
    linked_store: Store, store_link: StoreLink, code: int
) -> None:
    store_link.refuse_writes(Refusal(code=code, commands=frozenset({"find", "aggregate"})))
    expected = QueryRejected if code == 2 else Unavailable
    for read in (linked_store.find("things", {}), linked_store.count("things", {})):
        with pytest.raises(expected):
            await read


async def test_a_resolver_that_is_away_is_unavailable() -> None:
    """No name server knows a host below ``.invalid`` (RFC 6761), if there is one to ask."""
    uris = ["mongodb://nowhere.invalid", "mongodb+srv://store.nowhere.invalid"]
    for uri in uris:
        async with Store(SETTINGS, uri) as store:
            operations = (
                store.ping(),
                store.insert_new("things", numbered(2)),
                store.replace("things", [({"_id": 1}, {"_id": 1})]),
                store.find("things", {}),
                store.ensure_index("things", [("a", 1)]),
            )
            ends = await asyncio.gather(*operations, return_exceptions=True)
            assert [type(end) for end in ends] == [Unavailable] * len(operations)
            with pytest.raises(Unavailable):  # and again
                await store.save("things", numbered(1))


async def test_a_store_that_is_closed_is_unavailable(store_server: Part) -> None:
    async with Store(SETTINGS, f"mongodb://127.0.0.1:{store_server.port}") as store:
        await store.ping()
    for operation in (
        store.insert_new("things", numbered(2)),
        store.save("things", numbered(1)),
        store.replace("things", [({"_id": 1}, {"_id": 1})]),
        store.find("things", {}),
    ):
        with pytest.raises(Unavailable):
            await operation


async def test_an_error_is_short_whatever_the_server_repeats(
    linked_store: Store, store_link: StoreLink
) -> None:
    store_link.refuse_writes(Refusal(code=8000, name="x" * 100_000, how="documents"))
    with pytest.raises(Unavailable) as error:
        await linked_store.insert_new("things", numbered(100))
    assert len(str(error.value)) < 500


async def test_what_is_written_to_try_the_store_is_never_read(
    store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    await store.collection("things").insert_one({"_id": PROBE_ID})  # as one that was cut short
    await store.insert_new("things", numbered(3))
    assert await ids(store) == [0, 1, 2]
    store_link.refuse_writes(Refusal(code=96, how="documents", only=containing("n3.")))
    with pytest.raises(Unavailable):
        await linked_store.insert_new("things", numbered(4))
    assert await store.count("things", {}) == 3  # the next probe has removed it
