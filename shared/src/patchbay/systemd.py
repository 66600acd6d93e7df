"""What systemd is told of a service of ``Type=notify``, and its watchdog: sd_notify(3).

    unit -> datagram "READY=1" -> the socket that NOTIFY_SOCKET names -> systemd

Nothing is told, and nothing goes wrong, where systemd does not ask.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"

READY: Final = "READY=1"
"""The set-up is done: devices are served, and the broker is being connected to."""

STOPPING: Final = "STOPPING=1"

WATCHDOG: Final = "WATCHDOG=1"
"""We are alive. Without it for ``WatchdogSec`` systemd kills us and starts us again."""


class Notifier:
    """Tells systemd. A socket that does not listen, or is full, is no reason to stop."""

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if not address:
            return
        name = f"\0{address[1:]}" if address.startswith("@") else address  # Linux's abstract ones
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self._socket.connect(name)
        except OSError:
            self.close()

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The one that this environment asks for."""
        return cls(environ.get(VARIABLE))

    def tell(self, *lines: str) -> None:
        """Send one datagram: `READY`, ``STATUS=online`` and so on."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send("\n".join(lines).encode())

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
