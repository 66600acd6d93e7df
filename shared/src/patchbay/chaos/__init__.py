"""Faults made on purpose: links that stall and stores that refuse.

    link          a TCP proxy that stalls, delays, cuts and refuses
    store_link    the same before a MongoDB, and it refuses writes
    wire          MongoDB's messages, as far as that needs them
    proxy         either of them as a process of its own

Listen on loopback only: whoever reaches a link reaches its target.
"""

from patchbay.chaos.link import Link, Way
from patchbay.chaos.store_link import Refusal, StoreLink, containing

__all__ = ["Link", "Refusal", "StoreLink", "Way", "containing"]
