"""A mosquitto of a Pi that hands on what its unit says, and nothing else: a bridge.

    unit -> mosquitto of the Pi == bridge, as the unit's user ==> the broker

The bridge is the unit to the broker: its user, its rights. What goes out and what comes in are two
sets of topics, so nothing goes round in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from patchbay.access.rights import unit_grant
from patchbay.services import Service

RESTART_S = (1, 30)
"""The first and the longest pause before the bridge connects again."""


def bridge(
    instance: str,
    instances: Iterable[str],
    services: Mapping[str, Service],
    *,
    root: str,
    host: str,
    port: int,
    ca_file: Path,
    password: str,
) -> str:
    """What the configuration of the Pi's mosquitto needs to be a bridge for this unit.

    ``instances``: all that there are; ``ca_file``: where the Pi has it. Raises SettingsError for
    what is no unit.
    """
    grant = unit_grant(instance, instances, services, root)
    comes_in = [one for one in grant.subscribe if one not in grant.publish]
    lines = [
        f"connection {instance}",
        f"address {host}:{port}",
        f"bridge_cafile {ca_file}",
        "bridge_protocol_version mqttv50",
        f"remote_username {instance}",
        f"remote_password {password}",
        f"remote_clientid {instance}",
        f"local_clientid bridge-{instance}",
        "cleansession false",
        "notifications false",
        f"restart_timeout {RESTART_S[0]} {RESTART_S[1]}",
        *(f"topic {one} out 1" for one in grant.publish),
        *(f"topic {one} in 1" for one in comes_in),
    ]
    return "\n".join(lines) + "\n"
