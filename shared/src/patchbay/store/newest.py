"""Only the newest dead letters of a service stay in the store, however many a peer causes.

Time deletes them as well (``[store] events_ttl_s``). But what 30 days of garbage are, a peer
decides: at the rate at which the store takes letters, some 300 GB in a day.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from patchbay.errors import Unavailable
from patchbay.store.client import DEAD_LETTERS, Store
from patchbay.store.faults import reaching

PERIOD_S: Final = 60.0
"""How often old letters are looked for. At ten refusals a second of each unit some thousand are too
many then; to look takes the embedded store a few tenths of a second."""

LOOK_AFTER: Final = 0.01
"""They are looked for when as many were stored since, as a part of those that stay."""

BATCH: Final = 100
"""Letters that are deleted at once; the embedded store takes a millisecond for each."""

PAUSE_S: Final = 0.2
"""Between two batches, so that events are stored in between."""


async def keep_newest(store: Store, newest: int, period_s: float = PERIOD_S) -> None:
    """Delete all but the ``newest`` dead letters of the store's service, from now on.

    And of those that earlier versions wrote, which do not name their service.
    """
    log = structlog.get_logger("store").bind(service=store.service)
    looked_at: int | None = None
    while True:
        stored = store.dead_letters
        try:
            if looked_at is None or stored - looked_at > newest * LOOK_AFTER:
                await store.ensure_index(DEAD_LETTERS, [("service", 1), ("at", -1)])
                deleted = await delete_old(store, store.service, newest)
                deleted += await delete_old(store, None, newest)
                if deleted:
                    log.warning("old dead letters deleted", number=deleted, kept=newest)
                looked_at = stored
        except Unavailable as error:
            log.warning("old dead letters not deleted", why=str(error))
        await asyncio.sleep(period_s)


async def delete_old(store: Store, service: str | None, newest: int) -> int:
    """Delete all but the ``newest`` dead letters of a service; None: of those that name none.

    Returns how many were deleted. Raises Unavailable.
    """
    letters = store.collection(DEAD_LETTERS)
    of_service = {"service": service}
    deleted = 0
    async with reaching():
        newest_first = letters.find(of_service, {"at": 1}).sort([("at", -1)])
        boundary = await newest_first.skip(newest).limit(1).to_list()
    if not boundary:
        return 0
    old = {**of_service, "at": {"$lte": boundary[0].get("at")}}
    while True:
        async with reaching():
            found = await letters.find(old, {"_id": 1}).limit(BATCH).to_list()
            if not found:
                return deleted
            result = await letters.delete_many({"_id": {"$in": [one["_id"] for one in found]}})
            deleted += result.deleted_count
        await asyncio.sleep(PAUSE_S)
