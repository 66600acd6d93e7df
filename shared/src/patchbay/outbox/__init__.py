"""What an edge has taken in and a domain service has not yet persisted.

The first two of the four rules by which nothing is lost (ARCHITECTURE.md, "No loss") are here; the
other two are in `patchbay.inbox`.

    Outbox       the whole: take an event in, commit, send, forget when acknowledged
    OutboxFull   refuse the device in its own terms
    Commits      when it commits, and what goes with one commit
    Writer       where: in the loop, or in a thread while the disk is slow
    Journal      the SQLite file
    Sender       the window, the batches, the starting again
    Patience     how long it waits before it does
    RangeSender  the same for a domain that acknowledges in any order
"""

from patchbay.outbox.journal import Journal, Row
from patchbay.outbox.outbox import Outbox, OutboxFull
from patchbay.outbox.patience import Patience
from patchbay.outbox.ranges import RangeSender
from patchbay.outbox.sender import Sender

__all__ = ["Journal", "Outbox", "OutboxFull", "Patience", "RangeSender", "Row", "Sender"]
