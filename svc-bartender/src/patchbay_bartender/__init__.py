"""A cocktail machine (WebSocket GUIs, pumps on GPIO pins) on the Patchbay bus."""

from patchbay.services import Rights, Service

SERVICE = Service(
    name="bartender",
    settings="patchbay_bartender.settings:BartenderSettings",
    roles={
        "gui": "patchbay_bartender.edge.gui:run",
        "pumps": "patchbay_bartender.edge.pumps:run",
        "domain": "patchbay_bartender.domain:run",
    },
    rights={
        "gui": Rights(
            publish=(
                "bartender/+/cmd/blend",
                "bartender/+/cmd/configure",
                "bartender/+/cmd/refill",
                "bartender/+/cmd/stop",
            ),
            subscribe=(
                "bartender/+/event/configured",
                "bartender/+/event/failed",
                "bartender/+/event/progress",
                "bartender/+/state",
            ),
        ),
        "pumps": Rights(
            publish=(
                "bartender/+/event/asked",
                "bartender/+/event/finished",
                "bartender/+/event/refused",
                "bartender/+/event/started",
                "bartender/+/state",
                "bartender/+/status",
                "bartender/<instance>/event/batch",
            ),
            subscribe=(
                "bartender/+/cmd/confirm",
                "bartender/+/cmd/report",
                "bartender/+/cmd/run",
                "bartender/+/cmd/stop",
                "bartender/+/status",
            ),
        ),
        "domain": Rights(
            publish=(
                "bartender/+/cmd/confirm",
                "bartender/+/cmd/report",
                "bartender/+/cmd/run",
                "bartender/+/cmd/stop",
                "bartender/+/event/configured",
                "bartender/+/event/failed",
                "bartender/+/event/finished",
                "bartender/+/event/progress",
                "bartender/+/event/rejected",
                "bartender/+/event/started",
                "bartender/+/state",
                "bartender/+/status",
            ),
            subscribe=(
                "bartender/+/cmd/+",
                "bartender/+/event/asked",
                "bartender/+/event/batch",
                "bartender/+/event/finished",
                "bartender/+/event/refused",
                "bartender/+/event/started",
                "bartender/+/state",
            ),
        ),
    },
    commands=("blend", "cancel", "configure", "forget", "history", "refill", "state", "stop"),
    collections=("blends", "pumps", "settings"),
    demo="patchbay_bartender.simulator:run",
    chaos="patchbay_bartender.chaos:Guests",
    cli="patchbay_bartender.cli:app",
    ports={"bartender": "port"},
    prompt=True,
)
