"""Are our ports free before we start, and do they accept afterwards?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from patchbay.errors import Unavailable
from patchbay.up.plan import Port

_PROBE_TIMEOUT_S = 1.0


def need_free(ports: Iterable[Port]) -> None:
    """Raise Unavailable for the first port that cannot be listened on; the text names it."""
    for port in ports:
        why = _obstacle(port)
        if why is not None:
            raise Unavailable(
                f"port {port.number} ({port.name}) {why}:"
                f" stop what uses it, change {port.key}, or give --port-offset"
            )


def accepts(port: Port) -> bool:
    """Does somebody take TCP connections on this port?"""
    try:
        socket.create_connection((port.reach, port.number), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _obstacle(port: Port) -> str | None:
    """Why nobody could listen there; None if somebody could."""
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # As the servers do: connections of the last run that linger are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((port.host, port.number))
            listener.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is in use"
            return f"cannot be listened on at {port.host} ({error.strerror})"
    return None
