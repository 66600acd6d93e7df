"""A job, and what a combinator has in hand: the two documents that a claim joins.

    jobs           {_id: ObjectId, ClientName, data: {CustomerName, ColorCode},
                    status: "waiting" | "inprogress<n>" | "done" | "error", assignedAt: 0 | n,
                    createdAt, updatedAt, attempts, lastError, eventId, v, history: [...]}
    combinators    {_id: "combinator-<n>", device: n, rev, job, command, ColorCode, since, by}

``v`` rises with each change of a job, and every change names the ``v`` that it was made from. A
claim is ``<job>-<v>-<n>``: the job at version v, at combinator n. It holds when both documents say
so; see `rules.holds`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

WAITING = "waiting"
DONE = "done"
ERROR = "error"
IN_PROGRESS = "inprogress"


class Data(Struct, frozen=True):
    """The seed's ``data``."""

    CustomerName: str
    ColorCode: str


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a job's history. ``id`` names its cause: an event, a command, a claim."""

    id: str
    at: datetime
    status: str
    reason: str = ""


class Job(Struct, frozen=True, kw_only=True):
    """A job as it is stored; ``id`` is ``_id`` as text. Times are aware and UTC."""

    id: str
    ClientName: str
    data: Data
    status: str
    assignedAt: int
    """0, or the combinator that has it or had it last."""
    createdAt: datetime
    updatedAt: datetime
    attempts: int = 0
    """Failed ones."""
    lastError: str | None = None
    eventId: str
    v: int = 1
    """0: found in the seed's form; see `documents`."""
    history: list[Change] = []
    found: dict[str, Any] = {}
    """The document as it was read, if it was not quite ours; not stored."""

    @property
    def in_progress(self) -> bool:
        return self.status.startswith(IN_PROGRESS)

    def caused_by(self, id: str) -> Change | None:
        """The change that this event or command made, if it made one."""
        return next((one for one in reversed(self.history) if one.id == id), None)


class Combinator(Struct, frozen=True, kw_only=True):
    """What a combinator is to do. ``job`` and ``command`` are empty when it is free.

    ``rev`` rises with each change and begins at the time in milliseconds, so that a store that was
    emptied goes on above what the edges have seen. ``by`` names the writer of this revision.
    """

    device: int
    rev: int
    job: str = ""
    command: str = ""
    ColorCode: str = ""
    since: datetime
    """Since when it has the job, or is free."""
    by: str = ""


EXPIRED = "expired"
"""What became of a job that ended long ago: its trace, `Removed` without the job itself."""


class Removed(Struct, frozen=True, kw_only=True):
    """The audit event of a job that is gone, kept so that it does not come again."""

    job: str
    what: Literal["cancelled", "deleted"]
    by: str
    """The id of the command."""
    at: datetime
    was: Job
