"""Parcel-locker boards (ACon_V1.0 over TCP) on the Patchbay bus."""

from patchbay.services import Service

SERVICE = Service(
    name="locker",
    settings="patchbay_locker.settings:LockerSettings",
    roles={"edge": "patchbay_locker.edge:run", "domain": "patchbay_locker.domain:run"},
    demo="patchbay_locker.simulator:run",
    cli="patchbay_locker.cli:app",
    ports={"locker": "port"},
)
