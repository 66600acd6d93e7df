"""The names that a server of ours answers to, as clients say them in ``Host``.

    192.0.2.7:9000, [fe80::1]      addresses: no site has one for a name
    localhost, lantern-api, pi1    names without a dot: nobody on the internet can have one
    pi1.local, pi1.lan.example     what this machine calls itself
    lights.example                 what somebody has named in the settings

A browser lets a page read and command all that is of the page's own origin, and asks DNS where that
is. A site that leads its own name to our address (DNS rebinding) is thereby of our origin, on port
and all; only ``Host`` still says whose name it is, and no page can change that.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

ANY: Final = "*"
"""In place of a name: all of them."""

NAME_PATTERN: Final = r"^(\*|[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?)$"
"""A name as settings have it: without a port, and in the form that browsers send (``xn--...``)."""

_HOST: Final = re.compile(r"(\[(?P<address>[^][]*)\]|(?P<name>[^][:]*))(:[0-9]*)?")


class Hosts:
    """Knows the names that we answer to.

    ``names`` are those besides what everybody may say, or `ANY`; ``machine`` is what this machine
    calls itself. Case means nothing.
    """

    def __init__(self, names: Iterable[str] = (), *, machine: str) -> None:
        own = machine.lower().rstrip(".")
        self._names = {own, f"{own.partition('.')[0]}.local", *(name.lower() for name in names)}

    def know(self, said: Iterable[str]) -> bool:
        """May we answer a request that says so in ``Host``, once, several times or not at all?

        Without one it comes from no browser. A port is not looked at: it may have been mapped.
        """
        return ANY in self._names or all(self._knows(one.strip().lower()) for one in said)

    def _knows(self, said: str) -> bool:
        match = _HOST.fullmatch(said)
        if match is None:
            return False
        if match["address"] is not None:
            return _is_ipv6(match["address"])
        name = match["name"].removesuffix(".")
        last = name.rpartition(".")[2]
        # No name of the internet ends in a number; browsers take such for an address.
        return last == name or last.isdecimal() or name in self._names


def hosts_of(names: Iterable[str], urls: Iterable[str] = ()) -> Hosts:
    """The names that settings give, those in URLs that they give, and this machine's own."""
    named = [url.partition("://")[2].partition("/")[0].partition(":")[0] for url in urls]
    return Hosts([*names, *(name for name in named if name)], machine=socket.gethostname())


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
