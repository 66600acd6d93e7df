"""How the mesh service registers itself."""

from patchbay.services import Rights, Service

_EVENTS = (
    "mesh/+/event/data",
    "mesh/+/event/message",
    "mesh/+/event/batch",
    "mesh/root/event/network",
)

SERVICE = Service(
    name="mesh",
    settings="patchbay_mesh.settings:MeshSettings",
    roles={
        "uart": "patchbay_mesh.edge.uart:run",
        "api": "patchbay_mesh.edge.api:run",
        "monitor": "patchbay_mesh.edge.monitor:run",
        "domain": "patchbay_mesh.domain:run",
    },
    rights={
        "uart": Rights(
            publish=(
                "mesh/+/event/data",
                "mesh/+/event/message",
                "mesh/root/event/network",
                "mesh/root/event/rejected",
                "mesh/<instance>/event/batch",
                "mesh/root/status",
            ),
            subscribe=("mesh/root/cmd/+", "mesh/root/status"),
        ),
        "api": Rights(
            publish=(
                "mesh/root/cmd/send",
                "mesh/root/cmd/raw",
                "mesh/monitor/event/log",
                "mesh/robots/state",
            ),
            subscribe=("mesh/+/state", *_EVENTS),
        ),
        "monitor": Rights(
            subscribe=(
                "mesh/root/status",
                "mesh/+/state",
                *_EVENTS,
                "mesh/+/event/joined",
                "mesh/+/event/left",
                "mesh/monitor/event/log",
            ),
        ),
        "domain": Rights(
            publish=(
                "mesh/+/state",
                "mesh/+/status",
                "mesh/root/status",
                "mesh/+/event/joined",
                "mesh/+/event/left",
                "mesh/+/event/rejected",
            ),
            subscribe=(*_EVENTS, "mesh/+/cmd/+"),
        ),
    },
    collections=("messages", "nodes", "parked", "readings"),
    demo="patchbay_mesh.simulator:run",
    demo_addresses="patchbay_mesh.settings:demo_addresses",
    chaos="patchbay_mesh.chaos:Programs",
    cli="patchbay_mesh.cli:app",
    ports={"mesh": "port", "mesh-monitor": "monitor_port"},
)
