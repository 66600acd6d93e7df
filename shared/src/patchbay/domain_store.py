"""The store of a domain service, which refuses one that a newer version has written.

    formats    {_id: service, format, version}    by whom and how a service's documents are written

A domain looks there at its start; if the store is away then, as soon as it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from patchbay import __version__
from patchbay.errors import DocumentRejected, QueryRejected, SettingsError, Unavailable
from patchbay.store import Store
from patchbay.store.newest import keep_newest

if TYPE_CHECKING:
    from patchbay.unit import Unit

FORMATS: Final = "formats"

FORMAT: Final = 1
"""How we write documents. Raise it with a change that this version's code could not read; what it
can read, such as another field, keeps the number."""

FIRST_LOOK_S: Final = 2.0
"""A domain that starts waits so long for the answer, and then starts without."""

NOT_NOW: Final = (Unavailable, DocumentRejected, QueryRejected)
"""A store that refuses even this document or this query is not well."""

POLL_S: Final = 0.2
"""How soon after the store is back it is looked at."""


@contextlib.asynccontextmanager
async def domain_store(unit: Unit) -> AsyncIterator[Store]:
    """The store of the unit's settings, where only the newest dead letters stay.

    The unit stops if a newer version has written to it. Raises SettingsError if that shows at once.
    """
    settings = unit.config.store
    async with Store(settings, unit.config.store_uri, unit.service.name) as store:
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await check_format(store, unit.service.name)
        except (*NOT_NOW, TimeoutError):
            unit.log.warning("store unavailable: starting without")
            unit.spawn(_check_later(store, unit.service.name), "format of the store")
        unit.spawn(keep_newest(store, settings.dead_letters_max), "old dead letters")
        yield store


async def check_format(store: Store, service: str) -> None:
    """Claim the store's documents of a service for our format.

    Raises SettingsError if a newer version has written them, Unavailable if the store is away or
    does not let us look.
    """
    found = await store.find(FORMATS, {"_id": service})
    ours = {"_id": service, "format": FORMAT, "version": __version__}
    if not found:
        await store.insert_new(FORMATS, [ours])
        return
    format = found[0].get("format")
    if isinstance(format, int) and format > FORMAT:
        raise SettingsError(
            f"the store has documents of {service} in format {format}, written by patchbay"
            f" {found[0].get('version')}; patchbay {__version__} reads format {FORMAT}: run that"
            " version or a later one, or restore a backup"
        )
    if format != FORMAT:
        await store.save(FORMATS, [ours])


async def _check_later(store: Store, service: str) -> None:
    while True:
        with contextlib.suppress(*NOT_NOW):
            await check_format(store, service)
            return
        await asyncio.sleep(POLL_S)
