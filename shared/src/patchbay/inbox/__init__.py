"""What a domain service takes from its edges: each event once, in order, and persisted.

The last two of the four rules by which nothing is lost (ARCHITECTURE.md, "No loss").

    Inbox        takes ``last + 1`` of each source, has it persisted, then acknowledges
    RangeInbox   takes events in any order, for a service with replicas
    Watermarks   how far each source has come
    Aggregates   documents that are changed by compare-and-set and remember what they applied
    Aggregate    one of them, with the events that are still to be published
    Publisher    publishes those, and forgets each when the broker has it
    Keeper       parks events for documents that cannot be read, until they can
    SetAside     reports documents that cannot be read, each once
"""

from patchbay.inbox.aggregates import Aggregate, Aggregates, Outgoing
from patchbay.inbox.inbox import Inbox
from patchbay.inbox.parked import Keeper, Parked
from patchbay.inbox.publisher import Publisher
from patchbay.inbox.ranges import RangeInbox
from patchbay.inbox.set_aside import SetAside
from patchbay.inbox.watermarks import Verdict, Watermarks

__all__ = [
    "Aggregate",
    "Aggregates",
    "Inbox",
    "Keeper",
    "Outgoing",
    "Parked",
    "Publisher",
    "RangeInbox",
    "SetAside",
    "Verdict",
    "Watermarks",
]
