"""Mosquitto's access file: what it does not say is refused.

    user locker-edge-pi1
    topic write patchbay/locker/+/event/report
    topic read patchbay/locker/+/desired

Mosquitto 2.0 grants every SUBSCRIBE and asks at each delivery; a PUBLISH that is not allowed is
answered with PUBACK 0x87 (MQTT 5).
"""

from __future__ import annotations

from collections.abc import Mapping

from patchbay.access.rights import Grant

_HEADER = "# Made by `patchbay broker users`: what is changed here is lost the next time.\n"


def acl(grants: Mapping[str, Grant]) -> str:
    """The access file for these users, in their order."""
    return _HEADER + "".join(_section(user, grant) for user, grant in grants.items())


def _section(user: str, grant: Grant) -> str:
    both = [one for one in grant.publish if one in grant.subscribe]
    lines = [f"user {user}"]
    lines += [f"topic readwrite {one}" for one in both]
    lines += [f"topic write {one}" for one in grant.publish if one not in both]
    lines += [f"topic read {one}" for one in grant.subscribe if one not in both]
    return "\n" + "\n".join(lines) + "\n"
