"""Whose fault an error of the store is: one document's, or everybody's.

A document is at fault if it cannot be encoded, or if the server refuses it for what it contains.
Everything else is the fault of the store, the network or the configuration: whatever was to be
written must wait where it is safe, and be written later. A server that has no room left, is shut
down or is set up wrongly answers with an error, too, and with one for each document.

    own fault          set the document aside, go on with the next
    Unavailable        keep everything, try again
    neither known      try again; `writer.Writer` finds out whether it is this document alone

The numbers are those of the server's own list, ``src/mongo/base/error_codes.yml`` in
https://github.com/mongodb/mongo, and, where it says so, of an assertion in its source.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

from patchbay.errors import QueryRejected, Unavailable
from patchbay.lean import without

with without("cryptography"):
    import bson
    from bson.errors import BSONError
    from pymongo.errors import (
        BulkWriteError,
        ConnectionFailure,
        DocumentTooLarge,
        OperationFailure,
        PyMongoError,
        WriteConcernError,
    )

DUPLICATE_KEY: Final = 11000

OWN_FAULT: Final = frozenset(
    {
        10334,  # BSONObjectTooLarge
        17419,  # too large after an update (assertion in exec/update_stage.cpp)
        17420,  # too large to upsert (assertion in exec/upsert_stage.cpp)
        121,  # DocumentValidationFailure: only for the validator of a collection
        22,  # InvalidBSON
        15,  # Overflow: nested too deeply
        52,  # DollarPrefixedFieldName
        53,  # InvalidIdField
        54,  # NotSingleValueField
        55,  # InvalidDBRef
        56,  # EmptyFieldName
        57,  # DottedFieldName
        17280,  # KeyTooLong: cannot be indexed (servers before 4.2)
        171,  # CannotIndexParallelArrays
        16755,  # cannot be indexed: not a geometry (assertion in expression_keys_private.cpp)
        DUPLICATE_KEY,  # of an index other than ``_id``: on ``_id`` it is stored already
    }
)
"""What a document contains is the reason. Trying again is wrong."""

REFUSED: Final = frozenset({13, 18})
"""Unauthorized and AuthenticationFailed: somebody has to set the store up."""

NEVER: Final = REFUSED | frozenset(
    {6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}
)
"""Never a document's fault: besides `REFUSED`, what drivers retry (MongoDB's specification
"Retryable Writes", and the category RetriableError)."""

BAD_QUERY: Final = frozenset({2, 9, 14, 51091})
"""BadValue, FailedToParse, TypeMismatch, and an invalid regular expression (an assertion in
matcher/expression_leaf.cpp): the answer to a query that no server understands."""

RETRY_LABELS: Final = (
    "RetryableWriteError",
    "RetryableError",
    "SystemOverloadedError",
    "TransientTransactionError",
)

ENCODING_ERRORS: Final = (BSONError, OverflowError, UnicodeError, RecursionError, TypeError)
"""What encoding a document raises; InvalidDocument is a BSONError, and DocumentTooLarge is one."""

WHY_CHARS: Final = 200
"""How much of an error's text is shown: some repeat all documents of the batch."""


class Fault(NamedTuple):
    """Why a write failed. ``own``: because of what the document contains."""

    why: str
    own: bool


def describe(error: BaseException) -> str:
    """An error in one line, of bounded length, without the documents that it repeats."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        return f"{len(failures)} of a batch, the first: {_text(failures[0])}"
    if isinstance(error, OperationFailure) and error.details:
        return _text(error.details)
    return f"{type(error).__name__}: {error}"[:WHY_CHARS]


def _text(failure: Any) -> str:
    parts = (str(failure.get(key, "")) for key in ("code", "codeName", "errmsg"))
    return " ".join(part for part in parts if part)[:WHY_CHARS]


def unavailable(error: BaseException) -> Unavailable:
    """What to raise for an error that is nobody's own fault."""
    if isinstance(error, WriteConcernError) or (
        isinstance(error, BulkWriteError) and (error.details or {}).get("writeConcernErrors")
    ):
        return Unavailable(f"the store did not confirm: {describe(error)}")
    if isinstance(error, OperationFailure) and not error.timeout:
        by_us = "refuses us" if error.code in REFUSED else "refuses"
        return Unavailable(f"the store {by_us}: {describe(error)}")
    return Unavailable(f"the store is away: {describe(error)}")


def fault_of_one(code: Any, why: str) -> Fault:
    """The fault of a write that failed with this code. Raises Unavailable for a code that never
    means the document."""
    if code in NEVER:
        raise Unavailable(f"the store refuses: {why}")
    return Fault(why, own=code in OWN_FAULT)


def faults_of(error: BulkWriteError) -> dict[int, tuple[Fault, dict[str, Any]]]:
    """The fault of each write that failed, by its position, with what the server says of it.

    Raises Unavailable if the error is about all of them.
    """
    details = error.details or {}
    if details.get("writeConcernErrors") or _is_labelled(error):
        raise unavailable(error) from error
    return {
        failure["index"]: (fault_of_one(failure.get("code"), _text(failure)), failure)
        for failure in details.get("writeErrors", [])
    }


def fault_of_batch(error: BaseException) -> Fault:
    """The fault of an error that names no write. Raises Unavailable if it is nobody's own."""
    if isinstance(error, DocumentTooLarge):
        return Fault(describe(error), own=True)
    if (
        isinstance(error, OperationFailure)
        and not isinstance(error, WriteConcernError)
        and not error.timeout
        and not _is_labelled(error)
    ):
        return fault_of_one(error.code, describe(error))
    raise unavailable(error) from error


def encoding_complaint(document: Mapping[str, Any]) -> str:
    """Why this document cannot be encoded, by itself; empty if it can."""
    try:
        bson.encode(document)
    except ENCODING_ERRORS as error:
        return describe(error)
    return ""


def is_of_id(failure: Mapping[str, Any]) -> bool:
    """Is a duplicate one of ``_id``, as the server says?"""
    if failure.get("keyPattern"):
        return list(failure["keyPattern"]) == ["_id"]
    _, _, index = str(failure.get("errmsg", "")).partition(" index: ")
    return index.startswith(("_id_ ", "_id "))


def _is_labelled(error: PyMongoError) -> bool:
    return any(map(error.has_error_label, RETRY_LABELS))


@contextlib.asynccontextmanager
async def cancellable() -> AsyncIterator[None]:
    """Around an operation of the driver: being cancelled comes out as it is.

    The driver waits with ``asyncio.wait_for``, which before Python 3.12 loses one cancellation in
    some fifty (measured): whoever stops such a task and then waits for its end would wait without
    end.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError


@contextlib.asynccontextmanager
async def reaching(
    through: frozenset[int] = frozenset(), query: bool = False
) -> AsyncIterator[None]:
    """Around an operation that is about no document: every error of the driver comes out as
    Unavailable, but for the codes ``through``, which come out as they are.

    With ``query``, a query that no server understands comes out as QueryRejected.
    """
    async with cancellable():
        try:
            yield
        except (ConnectionFailure, WriteConcernError) as error:
            raise unavailable(error) from error
        except OperationFailure as error:
            if error.code in through:
                raise
            if query and error.code in BAD_QUERY:
                raise QueryRejected(describe(error)) from error
            raise unavailable(error) from error
        except (PyMongoError, BSONError, OSError) as error:  # DNS, a client that is closed, ...
            raise unavailable(error) from error
