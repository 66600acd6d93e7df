"""Documents that cannot be read: each is reported once, and left where it is.

A document of which a field is missing or of the wrong type was written by somebody else, or by
hand. It stays as it is, so that it can be repaired; what it is about waits, and all others go on.
It is looked at again by whoever reads its collection, so a repair needs no restart.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import structlog

from patchbay.bus import Bus
from patchbay.store import Store

DEAD: Final = "dead"

MAX_REPORTS: Final = 1_000
"""Documents that one process reports: beyond that somebody must look at the collection anyway."""

MAX_SHOWN: Final = 200
"""Characters of an id, and of a fault, in a report."""


class SetAside:
    """Reports unreadable documents of one service.

    A report is a log line and a dead letter, whose id follows from the document and its fault: it
    is not made again after a restart, while the store has it (``[store] events_ttl_s``). It does
    not show the document, which may hold what nobody else may read.
    """

    def __init__(self, bus: Bus, store: Store, service: str) -> None:
        self._bus = bus
        self._store = store
        self._service = service
        self._reported: set[str] = set()
        self._log = structlog.get_logger("store").bind(service=service)

    async def report(self, collection: str, id: Any, fault: str) -> None:
        """Report a document, unless that was done. Raises Unavailable."""
        shown = str(id)[:MAX_SHOWN]
        reason = f"unreadable document {shown} in {collection}: {fault[:MAX_SHOWN]}"
        digest = hashlib.sha256(f"{collection}\n{id!r}\n{fault}".encode(errors="replace"))
        key = f"unreadable:{digest.hexdigest()[:32]}"
        if key in self._reported or len(self._reported) >= MAX_REPORTS:
            return
        if not await self._store.count(DEAD, {"_id": key}):
            await self._bus.set_aside(self._service, reason, b"", id=key)
            self._log.error("unreadable document", collection=collection, id=shown, error=fault)
        self._reported.add(key)
        if len(self._reported) == MAX_REPORTS:
            self._log.error("too many unreadable documents, no more are reported")
