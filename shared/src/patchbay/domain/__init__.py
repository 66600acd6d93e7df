"""The domain service of simple devices: all of it but its decision.

A service says in a `Table` which event changes the state of a device, and how: a pure function
``fold(state, data) -> state``. It need not know that a failed round takes back what it has changed
in memory, that retained topics are published again after each connect, that invalid events and
unreadable documents are set aside, or that dead letters are stored.
"""

from patchbay.domain.ledger import Ledger, Table, run_ledger

__all__ = ["Ledger", "Table", "run_ledger"]
