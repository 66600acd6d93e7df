"""The typed messages that the colour-job service puts on the bus.

Intake to domain: `Requested`. Combinators' edge to domain: `Finished`, `CombinatorState`. Domain to
combinators' edge: `Mix`, `Drop`. Domain to everybody: `QueueState`, `Changed`. To the domain: the
commands, on the device ``queue``. All are JSON objects; a job's id is 24 hexadecimal digits, and
ids rise with the time at which jobs came.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from patchbay.errors import Rejected as Rejected
from patchbay.messages import Count

SERVICE: Final = "allocator"
QUEUE: Final = "queue"
"""The device that stands for all jobs."""

REQUESTED: Final = "requested"
FINISHED: Final = "finished"
CHANGED: Final = "changed"
MIX: Final = "mix"
DROP: Final = "drop"

Mode = Literal["auto", "manual"]


MAX_NAME: Final = 256
"""Characters of a name. It is shown in tables and becomes part of topics."""

SHOWN: Final = 32
"""Characters of an invalid colour that an error repeats."""

_COLOR = re.compile(r"[0-9A-Fa-f]{6}")


def color(text: str) -> str:
    """A colour code as it is kept: six hexadecimal digits, upper case, without the ``#`` and the
    white space that may stand around them. Raises Rejected: bad_color."""
    code = text.strip().removeprefix("#").strip()
    if not _COLOR.fullmatch(code):
        raise Rejected(
            "bad_color", f"ColorCode must be six hexadecimal digits, got {text[:SHOWN]!r}"
        )
    return code.upper()


def name(key: str, text: str) -> str:
    """A name as it is kept: in Unicode's composed form, so that it is found however it was typed.

    Raises Rejected: bad_request, if it is empty or too long.
    """
    composed = unicodedata.normalize("NFC", text)
    if not composed.strip() or len(composed) > MAX_NAME:
        got = "only white space" if composed.isspace() else len(composed)
        raise Rejected("bad_request", f"{key} must be 1 to {MAX_NAME} characters, got {got}")
    return composed


def combinator_device(number: int) -> str:
    """The device id of combinator ``number``."""
    return f"combinator-{number}"


def combinator_number(device: str) -> int | None:
    """The number of the combinator with this device id, or None if it is none."""
    prefix, _, digits = device.partition("-")
    return int(digits) if prefix == "combinator" and digits.isdecimal() else None


class Requested(Struct, frozen=True, kw_only=True):
    """``<client>/event/requested`` (durable): a Chromebook wants a colour.

    The event's id is the job's id, and its time is when the job came.
    """

    ClientName: str
    CustomerName: str
    ColorCode: str


def requested(client: str, customer: str, code: str) -> Requested:
    """A job with its names and colour as they are kept. Raises Rejected."""
    return Requested(
        ClientName=name("ClientName", client),
        CustomerName=name("CustomerName", customer),
        ColorCode=color(code),
    )


class Mix(Struct, frozen=True, kw_only=True):
    """``combinator-<n>/cmd/mix``: mix this now. Sent again until the state says ``command``.

    ``command`` names this claim of the job. ``rev`` rises with each command to a combinator: a
    lower one than the last is late and ignored, a higher one takes the place of what is there.
    """

    command: str
    rev: int
    job: str
    ColorCode: str


class Drop(Struct, frozen=True, kw_only=True):
    """``combinator-<n>/cmd/drop``: nobody waits for this command's answer any more."""

    command: str
    rev: int


class Finished(Struct, frozen=True, kw_only=True):
    """``combinator-<n>/event/finished`` (durable): what a combinator answered.

    ``command`` is the claim that it had in hand, or empty if it had none of this job. ``device`` is
    what it said of itself.
    """

    combinator: int
    job: str
    command: str
    status: Literal["done", "error"]
    device: int | None = None


class CombinatorState(Struct, frozen=True, kw_only=True):
    """``combinator-<n>/state`` (retained): what a combinator does, as its edge sees it."""

    combinator: int
    edge: str
    """The instance id of the edge: when that is offline, so is this."""
    address: str
    online: bool
    """It is connected, and has answered at this address: before that it may be anything."""
    connected: bool = False
    """A connection is there: it may get a job. An older edge says only ``online``."""
    command: str = ""
    """What it has in hand, or empty."""
    job: str = ""
    lost_at: str | None = None
    """Since when the connection on which ``command`` went out is gone (RFC 3339)."""
    rev: int = 0
    """The highest of a command that was seen."""
    finished: list[str] = []
    """The last commands that were answered or dropped."""


class Changed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``queue/event/changed``: a job has a new status. The event's id is the same when repeated."""

    job: str
    status: str
    """A status of `job.Job`, or ``cancelled`` or ``deleted``: it is gone then."""
    ClientName: str
    CustomerName: str
    ColorCode: str
    assignedAt: int = 0
    attempts: int = 0
    reason: str = ""


class CombinatorView(Struct, frozen=True, kw_only=True):
    """A combinator in `QueueState`."""

    combinator: int
    online: bool
    """It is connected, and has answered there."""
    job: str | None = None
    connected: bool = False


class QueueState(Struct, frozen=True, kw_only=True):
    """``queue/state`` (retained): counts by status, and what each combinator does."""

    mode: Mode
    waiting: int
    inprogress: int
    done: int
    error: int
    combinators: list[CombinatorView]


# Commands: ``allocator/queue/cmd/<name>``.

JobId = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(max_length=4_096)]
"""A name as it is typed: in Unicode's decomposed form it is some four times as long."""
Code = Annotated[str, Meta(max_length=256)]
Device = Annotated[int, Meta(ge=0, le=65_535)]


class Submit(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/submit`` -> ``{"job"}``: a job that no Chromebook has sent."""

    ClientName: Name
    CustomerName: Name
    ColorCode: Code


class Assign(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/assign`` -> ``{"job", "device"}``: give a job to combinator ``device`` now.

    ``force``: also one that is done already.
    """

    job: JobId
    device: Device
    force: bool = False


class Cancel(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/cancel`` -> ``{"job"}``: take a waiting job out of the queue and the store."""

    job: JobId


class Delete(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/delete`` -> ``{"job"}``: remove a job that is not in progress."""

    job: JobId


class Recolor(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/recolor`` -> ``{"job", "ColorCode"}``: another colour for a waiting job."""

    job: JobId
    ColorCode: Code


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/retry`` -> ``{"job"}``: a job parked as ``error`` waits again, with all attempts."""

    job: JobId


class Show(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/show`` -> ``{"job": the document, _id as text}``."""

    job: JobId


class List(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/list`` -> ``{"jobs": [the documents, _id as text], "total"}``.

    ``status``: one of a job, or ``inprogress`` for all that are. ``CustomerName``: a part of it, in
    any script, whatever the case.
    """

    status: Annotated[str, Meta(pattern=r"^(waiting|inprogress[0-9]*|done|error)\Z")] | None = None
    CustomerName: Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*\Z")] | None = None
    order: Literal["newest", "oldest"] = "oldest"
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    """At most 200: so many documents fit into one MQTT packet of 256 KiB, unless names are long."""
    skip: Count = 0


class Forget(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/forget`` -> ``{"device", "documents", "removed"}``: a combinator that is no longer in
    the settings (``combinator-3``), or a Chromebook, by its ClientName, is gone.

    ``documents``: the jobs that ended there, or came from it, are kept, or removed as well.
    ``removed`` counts the documents of each collection.
    """

    device: Annotated[str, Meta(min_length=1, max_length=256)]
    documents: Literal["keep", "remove"] = "keep"


class SetMode(Struct, frozen=True, forbid_unknown_fields=True):
    """``cmd/mode`` -> ``{"mode"}``: set it, or ask for it."""

    mode: Mode | None = None


Answer = dict[str, Any]
"""The fields of a positive answer."""
