"""What can go wrong, as a caller can tell it apart.

PatchbayError
├── Unavailable       broker, store or device is away for now: trying again later is right
├── DocumentRejected  the store never takes these documents: trying again is wrong
├── QueryRejected     the store does not understand this query: trying again is wrong
├── TooLarge          a message over the broker's maximum packet size: trying again is wrong
├── Rejected          a request was refused and never acts; carries the stable code that goes out
├── OutcomeUnknown    a request was confirmed, and no answer says what became of it
├── Unreadable        a document in the store has a wrong form: somebody must repair it
└── SettingsError     a wrong or unknown setting, named
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class PatchbayError(Exception):
    """The root of every error that this distribution raises on purpose."""


class Unavailable(PatchbayError):
    """Something is away for now; the same call may go through later."""


class DocumentRefused(Unavailable):
    """The store refuses some documents for now, and takes others of the same collection.

    ``ids``: the ``_id`` of each. Whoever can goes on with the others.
    """

    def __init__(self, why: str, ids: Collection[Any]) -> None:
        super().__init__(f"the store refuses {len(ids)} documents: {why}")
        self.ids = ids


class DocumentRejected(PatchbayError):
    """Documents that the store never takes, because of what they contain.

    ``documents``: each with the reason, by its ``_id``. ``encoding``: none of them can even be
    encoded, so that no server has seen them.
    """

    def __init__(
        self, documents: Mapping[Any, tuple[dict[str, Any], str]], *, encoding: bool = False
    ) -> None:
        why = next((why for _, why in documents.values()), "")
        super().__init__(f"the store rejects {len(documents)} documents: {why}")
        self.documents = documents
        self.encoding = encoding


class QueryRejected(PatchbayError):
    """A query that the store does not understand, such as an invalid regular expression."""


class TooLarge(PatchbayError):
    """A message is larger than the broker takes (MQTT 5 Maximum Packet Size)."""


class Rejected(PatchbayError):
    """A request that is refused for good.

    ``code`` is stable and machine-readable (``cell_busy``), ``message`` is for people. Both go
    out in the answer on the bus and in the CLI.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unreadable(PatchbayError):
    """A document in the store cannot be read; the text says where, and what is accepted."""


class OutcomeUnknown(PatchbayError):
    """A request that actuates was confirmed by us, and may have acted or may act yet.

    Never raised for one that was not confirmed: that is an error, and it never acts. What became of
    it is settled by the service's events, which name ``request_id``, or by sending the same id
    again: a request that has acted is not carried out twice, and gets its first answer.
    """

    def __init__(self, request_id: str, why: str = "no answer in time") -> None:
        super().__init__(f"outcome unknown of request {request_id}: {why}")
        self.request_id = request_id
        self.why = why


class SettingsError(PatchbayError):
    """A setting is wrong or unknown; the text names the key and where it came from."""
