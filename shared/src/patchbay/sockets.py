"""What we ask of the kernel for our sockets, and how we speak of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import termios
from array import array
from typing import Final

from patchbay.log import Logger

RESERVED_FILES: Final = 64
"""Open files that a unit needs besides its connections: libraries, logs, the broker."""

_PROBES: Final = 5


def find_dead(sock: socket.socket, within_s: int) -> None:
    """Have the kernel find out within so many seconds that the peer is gone.

    Keep-alive probes find it while nothing is under way. Bytes under way would stop them, so for
    those there is TCP_USER_TIMEOUT, where the system has it. A peer that is there and does not
    read for so long counts as gone too.
    """
    idle_s = max(1, within_s // 2)
    _probe(sock, idle_s, max(1, (within_s - idle_s) // _PROBES), _PROBES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, within_s * 1000)


def notice_power_cuts(sock: socket.socket) -> None:
    """Have the kernel ask a silent peer after half a minute, and end the connection after one.

    A device without power ends none. Unlike with `find_dead`, a peer that is there and does not
    read is left alone.
    """
    _probe(sock, idle_s=30, every_s=10, times=3)


def _probe(sock: socket.socket, idle_s: int, every_s: int, times: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, times)


def unacknowledged_bytes(fd: int) -> int:
    """Bytes in the kernel's send buffer that the peer's kernel has not acknowledged."""
    count = array("i", [0])
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, count)  # the same number as SIOCOUTQ, tcp(7)
    except OSError:  # the socket has gone
        return 0
    return count[0]


def allow_connections(wanted: int, log: Logger) -> int:
    """Raise our limit of open files for so many connections. Returns how many there may be.

    When that is less, as far as the hard limit goes, it is logged.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):  # as many as there are, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            soft = possible
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, soft - RESERVED_FILES)
    log.warning("fewer connections than wanted: open files", wanted=wanted, allowed=allowed)
    return allowed


def peer_address(name: object) -> str:
    """A socket's name as people write it: ``10.0.0.7:40112`` or ``[fe80::1]:40112``."""
    match name:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unknown"  # it was gone before we could ask


def why_not_listening(host: str, port: int, error: OSError) -> str:
    """One line for the person who wanted to listen there."""
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use"
    elif error.errno and error.errno > 0:
        reason = os.strerror(error.errno)
    else:
        reason = str(error)
    return f"cannot listen on {host}:{port}: {reason}"
