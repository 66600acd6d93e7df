"""The TCP server behind every edge whose devices connect over TCP.

    socket -> Peer.data_received -> Session.received(bytes)    no stream, no task, no copy
    Session -> Peer.write(bytes) -> kernel                     buffered only when that is full

A `Server` makes one `Session` for each connection and owns its limits: how many connections, how
long one may be silent, how much may wait for a device that does not read. What the bytes mean is
the session's affair.

Session, HearsTheEnd    what an edge does with one connection
Limits                  what one server puts up with
Peer                    the other end of one connection, as its session sees it
Server                  a listening port, and all its peers
"""

from patchbay.net.limits import Limits
from patchbay.net.peer import Peer
from patchbay.net.server import BACKLOG, Server
from patchbay.net.session import HearsTheEnd, Session

__all__ = ["BACKLOG", "HearsTheEnd", "Limits", "Peer", "Server", "Session"]
