"""The topic grammar. No other module spells a topic.

    patchbay/<service>/<device>/event/<name>   a fact. QoS 1, not retained
    patchbay/<service>/<device>/cmd/<name>     a request. QoS 1, not retained
    patchbay/<service>/<device>/state          reported: what is. Retained
    patchbay/<service>/<device>/desired        what the domain wants of the device. Retained
    patchbay/<service>/<device>/status         "online" | "offline". Retained
    patchbay/status/<instance>                 a unit's "online" | "offline". Retained, Last Will
    patchbay/status/<instance>/info            version, since, backlog, connections. Retained
    patchbay/ack/<instance>                    how far a domain has persisted that edge's events
    patchbay/reply/<client>                    answers to the requests of one client, also below it
    patchbay/confirm/<instance>                requesters confirm or cancel what they requested
    patchbay/fence/<instance>                  a unit's nonce to itself after each connect
    patchbay/dead/<service>                    what could not be handled, and why
    patchbay/forget/<service>                  requests to forget units that are gone

The root (``patchbay``) is a setting. A device id in a topic is ``[a-z0-9_-]``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

BATCH = "batch"
"""The event name under which an edge sends many events as one CloudEvents batch."""

MAX_DEVICE = 512
"""Characters of a device id: a topic has at most 65,535 bytes, and a key of a document fewer. The
longest id that an edge takes in, a client's name, comes to 265."""

_DIGEST = 9
_NOT_ALLOWED = re.compile(r"[^a-z0-9_-]")


@lru_cache(maxsize=16_384)
def device_id(original: str) -> str:
    """The device id that stands in topics for ``original``.

    Lower case, everything outside ``[a-z0-9_-]`` becomes ``_``; if more than the case changed,
    ``-`` and 8 hex digits of the original's SHA-256 keep two devices apart. An empty id becomes
    ``_-`` and its digest, so a topic never has an empty level. One that is too long is cut.
    """
    lower = original.lower()
    clean = _NOT_ALLOWED.sub("_", lower)
    if clean == lower and 0 < len(clean) <= MAX_DEVICE:
        return clean
    digest = hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{clean[: MAX_DEVICE - _DIGEST] or '_'}-{digest}"


def twin_id(original: str) -> str:
    """The device id of one whose `device_id` another one has, whose id differs only in case."""
    return f"{device_id(original)}-{hashlib.sha256(original.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Address:
    """A device's topic taken apart: ``kind`` is event, cmd, state, desired or status."""

    service: str
    device: str
    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Topics:
    """Spells every topic below one root. ``+`` may stand for a device or a name in a filter."""

    root: str = "patchbay"

    def event(self, service: str, device: str, name: str) -> str:
        return f"{self.root}/{service}/{device}/event/{name}"

    def command(self, service: str, device: str, name: str) -> str:
        return f"{self.root}/{service}/{device}/cmd/{name}"

    def state(self, service: str, device: str) -> str:
        return f"{self.root}/{service}/{device}/state"

    def desired(self, service: str, device: str) -> str:
        return f"{self.root}/{service}/{device}/desired"

    def status(self, service: str, device: str) -> str:
        return f"{self.root}/{service}/{device}/status"

    def batch(self, service: str, instance: str) -> str:
        return self.event(service, instance, BATCH)

    def unit_status(self, instance: str) -> str:
        return f"{self.root}/status/{instance}"

    def unit_info(self, instance: str) -> str:
        return f"{self.root}/status/{instance}/info"

    def ack(self, instance: str) -> str:
        return f"{self.root}/ack/{instance}"

    def reply(self, client: str) -> str:
        return f"{self.root}/reply/{client}"

    def confirm(self, instance: str) -> str:
        return f"{self.root}/confirm/{instance}"

    def fence(self, instance: str) -> str:
        return f"{self.root}/fence/{instance}"

    def dead(self, service: str) -> str:
        return f"{self.root}/dead/{service}"

    def forget(self, service: str) -> str:
        return f"{self.root}/forget/{service}"

    def of_unit(self, instance: str) -> tuple[str, ...]:
        """Filters, each with what is below it, of the topics that one unit has for itself."""
        kinds = ("status", "ack", "reply", "confirm", "fence", "+")
        return tuple(f"{self.root}/{kind}/{instance}" for kind in kinds)

    def is_reply(self, topic: str) -> bool:
        """Is this a topic for answers: any one below ``reply``?"""
        prefix = self.reply("")
        return topic.startswith(prefix) and len(topic) > len(prefix)

    def everything(self) -> str:
        return f"{self.root}/#"

    def address(self, topic: str) -> Address | None:
        """Take a device's topic apart; None for a topic that is no device's."""
        if not topic.startswith(self.root + "/"):
            return None
        match topic[len(self.root) + 1 :].split("/"):
            case [service, device, ("event" | "cmd") as kind, name]:
                return Address(service, device, kind, name)
            case [service, device, ("state" | "desired" | "status") as kind]:
                return Address(service, device, kind)
        return None


def shared(group: str | None, pattern: str) -> str:
    """The filter by which the members of ``group`` share what ``pattern`` matches; None: alone."""
    return pattern if group is None else f"$share/{group}/{pattern}"


def matches(pattern: str, topic: str) -> bool:
    """Does an MQTT topic filter (``+`` one level, ``#`` the rest) match this topic?

    Of a shared one (``$share/<group>/<filter>``) the filter counts.
    """
    levels = topic.split("/")
    wanted = pattern.split("/")
    if wanted[0] == "$share":
        wanted = wanted[2:]
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(levels) == len(wanted)
