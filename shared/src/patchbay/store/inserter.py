"""Inserts of many callers, as one."""

from __future__ import annotations

import asyncio

from patchbay.errors import DocumentRejected
from patchbay.store.client import Store
from patchbay.store.writer import Document


class Inserter:
    """Micro-batching: inserts of many callers travel as one `insert_new`.

    While one batch is on its way the next one gathers, so the batches grow with the load.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self._gathered: list[tuple[Document, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def insert(self, document: Document) -> None:
        """Insert a document by ``_id``; returns when it is safe. Raises Unavailable, and
        DocumentRejected if it is this one that the store never takes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((document, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name=f"insert into {self._collection}")
        await future

    async def _work(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered, []
            error: Exception | None = None
            try:
                await self._store.insert_new(self._collection, [one for one, _ in batch])
            except Exception as caught:  # given to each caller that it is about
                error = caught
            for document, future in batch:
                if future.done():
                    continue
                others = isinstance(error, DocumentRejected) and error.documents
                if error is None or (others and document["_id"] not in others):
                    future.set_result(None)
                else:
                    future.set_exception(error)
