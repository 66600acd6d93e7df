"""The store: MongoDB, wrapped once.

    Store            one client, one database: documents in and out
    Administrator    creates the users and roles of a MongoDB
    faults           whose fault an error is: one document's, or everybody's

Every write is acknowledged and journaled (``w: 1, j: true``): measured, without ``j`` a kill -9
lost tens of documents. An error comes out as one of three:

    Unavailable         the store is away, or refuses for now: the same call may go through later
    DocumentRejected    the store never takes these documents, because of what they contain
    QueryRejected       the store cannot answer this query

Batch what can be batched: an unordered `insert_new` is ten times faster than upserts.
"""

from patchbay.store.administrator import Administrator
from patchbay.store.client import DEAD_LETTERS, INSERT_BATCH, ObjectId, Store
from patchbay.store.faults import reaching
from patchbay.store.writer import Collection, Document

__all__ = [
    "DEAD_LETTERS",
    "INSERT_BATCH",
    "Administrator",
    "Collection",
    "Document",
    "ObjectId",
    "Store",
    "reaching",
]
