"""What can go wrong, as a caller can tell it apart.

PatchbayError
├── Unavailable       broker, store or device is away for now: trying again later is right
├── TooLarge          a message over the broker's maximum packet size: trying again is wrong
├── Rejected          we were asked for nonsense; carries the stable code that goes out
├── Unreadable        a document in the store has a wrong form: somebody must repair it
└── SettingsError     a wrong or unknown setting, named
"""

from __future__ import annotations


class PatchbayError(Exception):
    """The root of every error that this distribution raises on purpose."""


class Unavailable(PatchbayError):
    """Something is away for now; the same call may go through later."""


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


class SettingsError(PatchbayError):
    """A setting is wrong or unknown; the text names the key and where it came from."""
