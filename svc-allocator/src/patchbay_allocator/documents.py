"""The forms in which the document of a job is found. Pure.

    ours         all fields of `job.Job`
    the seed's   {_id, ClientName, data: {CustomerName, ColorCode}, status, assignedAt}

The seed's server and management tool write ``assignedAt`` as text, ``status: "inprogress"`` with
the combinator's number in ``assignedAt``, and whatever else a client has sent; the tool sets
``status`` and ``assignedAt`` of any document, ours too (source: ``dbhandler.py`` and
``allocateManager.py`` of the seed). Such a document is read as the job that it means, and remembers
how it was found (`Job.found`): a change is made only to what was read, and keeps the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from patchbay.errors import Unreadable
from patchbay.messages import MAX_INT, rfc3339
from patchbay.store import Document, ObjectId
from patchbay.validation import convert
from patchbay_allocator.job import DONE, ERROR, IN_PROGRESS, WAITING, Change, Job
from patchbay_allocator.messages import Rejected, color

BSON_TYPES: Final = (datetime,)

MAX_TEXT: Final = 4_096
"""Characters of a name in a document: one that a person can have, many times over."""

MAX_DOCUMENT: Final = 1_000_000
"""Characters of a document as Python shows it: with our fields it must still fit into 16 MB."""

MAX_SHOWN: Final = 256
"""Characters of each text of an unreadable document in an answer."""

_SPACES = re.compile(r"[\s_-]+")
_STATUS = re.compile(rf"({WAITING}|{DONE}|{ERROR}|{IN_PROGRESS})([0-9]{{0,9}})")
_CODE = re.compile(r"[0-9A-F]{6}")
_OURS = frozenset(("createdAt", "updatedAt", "attempts", "lastError", "eventId", "history"))
_FIELDS = len(("_id", "ClientName", "data", "status", "assignedAt", "v", *_OURS))

CANONICAL: Final[Document] = {
    "_id": {"$type": "objectId"},
    "v": {"$gte": 1},
    "status": {"$regex": f"^({WAITING}|{DONE}|{ERROR}|{IN_PROGRESS}[0-9]+)$"},
    "ClientName": {"$type": "string"},
    "data.CustomerName": {"$type": "string"},
    "data.ColorCode": {"$type": "string"},
    "eventId": {"$type": "string"},
    "createdAt": {"$type": "date"},
    "updatedAt": {"$type": "date"},
    "history.0": {"$exists": True},
}
"""What a query can tell of a document that is ours. What does not match is looked at."""


def read(document: Mapping[str, Any]) -> Job:
    """The job that a document means. Raises `Unreadable`."""
    id = document.get("_id")
    if not isinstance(id, ObjectId):
        raise Unreadable("_id must be an ObjectId")
    if len(document) == _FIELDS:
        try:
            job = _convert({**document, "id": str(id)})
        except msgspec.ValidationError:
            return _read_found(id, document)
        if _is_canonical(job, document):
            return job
    return _read_found(id, document)


def matching(job: Job) -> Document:
    """The filter that matches the document as it was read, and no other."""
    id = ObjectId(job.id)
    if not job.found:
        # The seed's tool changes these, and leaves ``v`` as it is.
        return {"_id": id, "v": job.v, "status": job.status, "data.ColorCode": job.data.ColorCode}
    keys = ("v", "status", "assignedAt", "ClientName", "data")
    return {"_id": id, **{key: job.found.get(key, {"$exists": False}) for key in keys}}


def document(job: Job) -> Document:
    """The document of a job: what was found in it beside ours stays, in the same form."""
    fields: Document = msgspec.to_builtins(replace(job, found={}), builtin_types=BSON_TYPES)
    del fields["id"], fields["found"]
    if job.found:
        fields = {**job.found, **fields}
        if isinstance(job.found.get("data"), dict):
            fields["data"] = {**job.found["data"], **fields["data"]}
        if isinstance(job.found.get("assignedAt"), str):
            fields["assignedAt"] = str(job.assignedAt)
    return {"_id": ObjectId(job.id), **fields}


def public(document: Document) -> Document:
    """A job's document for an answer, ``_id`` as text; ``unreadable`` says why it cannot be read.

    What JSON may not be able to express is left out.
    """
    try:
        job = read(document)
    except Unreadable as error:
        data = document.get("data")
        data = data if isinstance(data, dict) else {}
        return {
            "_id": str(document.get("_id"))[:MAX_SHOWN],
            "ClientName": _shown(document.get("ClientName")),
            "data": {key: _shown(data.get(key)) for key in ("CustomerName", "ColorCode")},
            "status": _shown(document.get("status")),
            "assignedAt": 0,
            "attempts": 0,
            "history": [],
            "unreadable": str(error),
        }
    if not job.found:
        return {**document, "_id": job.id}
    fields: Document = msgspec.to_builtins(replace(job, found={}), builtin_types=BSON_TYPES)
    del fields["id"], fields["found"]
    return {"_id": job.id, **fields}


def _is_canonical(job: Job, document: Mapping[str, Any]) -> bool:
    found = _STATUS.fullmatch(job.status)
    return (
        type(document["v"]) is not float
        and 1 <= job.v <= MAX_INT
        and bool(job.history)
        and found is not None
        and bool(found[2]) == job.in_progress
        and (not job.in_progress or job.status == f"{IN_PROGRESS}{job.assignedAt}")
        and len(document["data"]) == len(("CustomerName", "ColorCode"))
        and _CODE.fullmatch(job.data.ColorCode) is not None
        and max(len(job.ClientName), len(job.data.CustomerName)) <= MAX_TEXT
    )


def _read_found(id: ObjectId, document: Mapping[str, Any]) -> Job:
    """A job in the seed's form, or in ours with the seed's changes, or with our fields missing."""
    data = document.get("data")
    if not isinstance(data, dict):
        raise Unreadable("data must be an object with CustomerName and ColorCode")
    if len(repr(document)) > MAX_DOCUMENT:
        raise Unreadable(f"the document is larger than {MAX_DOCUMENT} characters")
    status, device = _status(document.get("status"), _device(document.get("assignedAt")))
    at = id.generation_time
    fields: dict[str, Any] = {
        "createdAt": at,
        "updatedAt": at,
        "eventId": f"{id}/found",
        "history": [],
        **{key: document[key] for key in _OURS if key in document},
        "id": str(id),
        "ClientName": _text("ClientName", document.get("ClientName")),
        "data": {
            "CustomerName": _text("data.CustomerName", data.get("CustomerName")),
            "ColorCode": _color(data.get("ColorCode")),
        },
        "status": status,
        "assignedAt": device,
        "v": _version(document.get("v")),
    }
    try:
        job = _convert(fields)
    except msgspec.ValidationError as error:
        raise Unreadable(str(error)) from error
    if not job.history:
        first = Change(id=f"{id}/found", at=job.createdAt, status=status)
        job = replace(job, history=[first])
    return replace(job, found={key: one for key, one in document.items() if key != "_id"})


def _convert(fields: Mapping[str, Any]) -> Job:
    """Raises `msgspec.ValidationError`."""
    fields = {key: one for key, one in fields.items() if key not in ("_id", "found")}
    return convert(fields, Job, builtin_types=BSON_TYPES, strict=True)


def _text(key: str, found: Any) -> str:
    if not isinstance(found, str) or len(found) > MAX_TEXT:
        raise Unreadable(f"{key} must be a text of at most {MAX_TEXT} characters")
    return found


def _color(found: Any) -> str:
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)  # as the seed's tool sends it
    if isinstance(found, str) and len(found) <= MAX_TEXT:
        try:
            return color(found)
        except Rejected:
            pass
    raise Unreadable("data.ColorCode must be six hexadecimal digits")


def _device(found: Any) -> int:
    """``assignedAt``: a number, also as text or as a double; empty or null is 0."""
    if isinstance(found, str) and found.strip().isascii() and found.strip().isdigit():
        found = found.strip()
        found = int(found) if len(found) < len(str(MAX_INT)) else -1
    number = 0 if found is None or found == "" else _whole(found)
    if number is None:
        raise Unreadable("assignedAt must be 0 or the number of a combinator")
    return number


def _status(found: Any, device: int) -> tuple[str, int]:
    """Our status and ``assignedAt``. In the seed's, ``inprogress`` leaves the number to that."""
    text = _SPACES.sub("", found).lower() if isinstance(found, str) else ""
    match = _STATUS.fullmatch(text)
    if match is None or (match[2] and match[1] != IN_PROGRESS):
        raise Unreadable("status must be waiting, inprogress<n>, done or error")
    if match[1] != IN_PROGRESS:
        return match[1], device
    device = int(match[2] or device)
    return f"{IN_PROGRESS}{device}", device


def _version(found: Any) -> int:
    """0 for a document that is not ours yet."""
    number = 0 if found is None else _whole(found)
    if number is None:
        raise Unreadable("v must be a whole number")
    return number


def _whole(found: Any) -> int | None:
    """A number that counts, also as the double that a JavaScript shell writes."""
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MAX_INT:
        return None
    return found


def _shown(found: Any) -> str:
    """A text of an unreadable document, as far as it is one."""
    if isinstance(found, datetime):
        return rfc3339(found)
    return found[:MAX_SHOWN] if isinstance(found, str) else ""
