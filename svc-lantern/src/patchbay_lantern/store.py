"""What the lantern service keeps in MongoDB.

lanterns    one document, `all`: `rules.Lanterns`, changed by compare-and-set
dead        dead letters, for as long as ``[store] events_ttl_s`` says
"""

from __future__ import annotations

from patchbay.inbox import Aggregate, Aggregates
from patchbay.messages import DeadLetter
from patchbay.store import Store
from patchbay_lantern.messages import ALL
from patchbay_lantern.rules import Lanterns

LANTERNS = "lanterns"
DEAD = "dead"


class LanternStore:
    """The collections of the lantern service."""

    def __init__(self, store: Store, dead_letters_ttl_s: int) -> None:
        self._store = store
        self._ttl_s = dead_letters_ttl_s
        self._prepared = False
        self.documents: Aggregates[Lanterns] = Aggregates(store, LANTERNS, Lanterns)

    @property
    def store(self) -> Store:
        """Where all of it is."""
        return self._store

    async def load(self) -> Aggregate[Lanterns]:
        """The document as it is kept; a new one before the first command. Raises Unavailable."""
        if not self._prepared:
            await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=self._ttl_s)
            self._prepared = True
        await self.documents.load()
        self.documents.wait_for(ALL)
        document = self.documents.get(ALL)
        if document is None:
            document = Aggregate(ALL, Lanterns())
            self.documents.add(document)
        return document

    async def reach(self) -> None:
        """Return if the store answers. Raises Unavailable."""
        await self._store.count(LANTERNS, {"_id": ALL})

    async def save(self, document: Aggregate[Lanterns]) -> None:
        """Write it if it has changed. Raises Unavailable; it is then read again."""
        await self.documents.save([document])

    async def bury(self, letter: DeadLetter, original: bytes = b"", content_type: str = "") -> None:
        """Store a dead letter, with the whole original if we have it. Raises Unavailable."""
        await self._store.bury(DEAD, letter, original, content_type)
