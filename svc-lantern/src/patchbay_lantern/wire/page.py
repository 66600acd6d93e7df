"""What the page's WebSocket says; browsers say nothing. Each message is one JSON object in text.

    {"command": "COLOR", "value": "ff0000"}     a command; the lantern of the page obeys
    {"lanterns": 3}                             how many are connected
    {"lanterns": null}                          that cannot be told now: we are cut off

One that connects gets what brings a lantern to the present state, then the number. That comes again
every few seconds: who hears nothing any more is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from patchbay_lantern.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Command:
    """A command to the lantern of the page."""

    command: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Lanterns:
    """How many lanterns are connected; None: nobody knows now."""

    count: int | None


Frame: TypeAlias = Command | Lanterns


class Decoder:
    """The browser's side: messages in, frames out."""

    def feed(self, message: str) -> list[Frame]:
        """The frame of a message. Raises `WireError` for what is none."""
        try:
            found: Any = msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise WireError("bad_json", f"not JSON: {error}") from error
        match found:
            case {"command": str(command), "value": str() | None as value}:
                return [Command(command, value)]
            case {"lanterns": None}:
                return [Lanterns(None)]
            case {"lanterns": int(count)} if not isinstance(count, bool) and count >= 0:
                return [Lanterns(count)]
        raise WireError("bad_message", "neither a command nor a number of lanterns")


def encode(frame: Frame) -> str:
    """The message of a frame."""
    if isinstance(frame, Lanterns):
        return msgspec.json.encode({"lanterns": frame.count}).decode()
    return msgspec.json.encode({"command": frame.command, "value": frame.value}).decode()
