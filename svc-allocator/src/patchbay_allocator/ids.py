"""Ids of jobs: 24 hexadecimal digits, as MongoDB's ObjectId, that rise with time.

    8 digits seconds | 6 digits microseconds | 10 digits of the maker

The first half is the ObjectId's own; the second is ours, so that jobs of one second are in the
order in which they came, and sorting by ``_id`` is first in, first out.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import datetime

_ID = re.compile(r"[0-9a-f]{24}")


class JobIds:
    """Makes ids, each higher than the one before. ``clock``: Unix time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._maker = secrets.token_hex(5)
        self._last = 0

    def next(self) -> str:
        """A new id."""
        self._last = max(self._last + 1, int(self._clock() * 1_000_000))
        seconds, micros = divmod(self._last, 1_000_000)
        return f"{seconds:08x}{micros:06x}{self._maker}"


def is_id(text: str) -> bool:
    """Is this the id of a job?"""
    return _ID.fullmatch(text) is not None


def id_of(event_id: str, at: datetime) -> str:
    """The id of the job that an event asks for: its own id, if that is one of ours; otherwise
    one made from it, the same each time the event comes."""
    if is_id(event_id):
        return event_id
    seconds, micros = int(at.timestamp()), at.microsecond
    return f"{seconds:08x}{micros:06x}{hashlib.sha256(event_id.encode()).hexdigest()[:10]}"
