"""Parcel-locker boards (ACon_V1.0 over TCP) on the Patchbay bus."""

from patchbay.services import Rights, Service

SERVICE = Service(
    name="locker",
    settings="patchbay_locker.settings:LockerSettings",
    roles={"edge": "patchbay_locker.edge:run", "domain": "patchbay_locker.domain:run"},
    rights={
        "edge": Rights(
            publish=("locker/+/event/report", "locker/<instance>/event/batch"),
            subscribe=("locker/+/desired",),
        ),
        "domain": Rights(
            publish=(
                "locker/+/event/rebooted",
                "locker/+/event/opened",
                "locker/+/event/expired",
                "locker/+/event/alarm",
                "locker/+/event/online",
                "locker/+/event/offline",
                "locker/+/event/rejected",
                "locker/+/desired",
                "locker/+/state",
                "locker/+/status",
            ),
            subscribe=("locker/+/event/report", "locker/+/event/batch", "locker/+/cmd/+"),
        ),
    },
    collections=("accesses", "boards", "forgotten", "parked", "rentals"),
    demo="patchbay_locker.simulator:run",
    chaos="patchbay_locker.chaos:Boards",
    cli="patchbay_locker.cli:app",
    ports={"locker": "port"},
)
