"""The user of a MongoDB who creates the others."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Self

from patchbay.lean import without
from patchbay.store.faults import reaching

with without("cryptography"):
    from pymongo import AsyncMongoClient

Document = dict[str, Any]

ADMIN_TIMEOUT_S = 30.0
"""Whoever sets a store up waits until it has started."""


class Administrator:
    """The user of a MongoDB who makes the others. ``async with``."""

    def __init__(self, uri: str, user: str, password: str) -> None:
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            username=user,
            password=password,
            serverSelectionTimeoutMS=int(ADMIN_TIMEOUT_S * 1000),
            appname="patchbay",
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def define(
        self, database: str, kind: Literal["role", "user"], name: str, definition: Document
    ) -> bool:
        """Make a role or a user, or replace what it was. True if it is new. Raises Unavailable."""
        async with reaching():
            found = await self._client[database].command({f"{kind}sInfo": name})
            new = not found[f"{kind}s"]
            verb = "create" if new else "update"
            await self._client[database].command({f"{verb}{kind.title()}": name, **definition})
        return new
