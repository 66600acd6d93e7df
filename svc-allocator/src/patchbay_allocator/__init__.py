"""Colour jobs, from Chromebooks to colour combinators, on the Patchbay bus."""

from patchbay.services import Rights, Service

SERVICE = Service(
    name="allocator",
    settings="patchbay_allocator.settings:AllocatorSettings",
    roles={
        "intake": "patchbay_allocator.edge.intake:run",
        "combinators": "patchbay_allocator.edge.combinators:run",
        "domain": "patchbay_allocator.domain:run",
    },
    rights={
        "intake": Rights(
            publish=("allocator/+/event/requested", "allocator/<instance>/event/batch"),
        ),
        "combinators": Rights(
            publish=(
                "allocator/+/event/finished",
                "allocator/<instance>/event/batch",
                "allocator/+/state",
                "allocator/+/status",
            ),
            subscribe=("allocator/+/cmd/mix", "allocator/+/cmd/drop", "allocator/+/status"),
        ),
        "domain": Rights(
            publish=(
                "allocator/queue/event/changed",
                "allocator/queue/event/rejected",
                "allocator/queue/state",
                "allocator/+/cmd/mix",
                "allocator/+/cmd/drop",
                "allocator/+/state",
                "allocator/+/status",
            ),
            subscribe=(
                "allocator/+/event/requested",
                "allocator/+/event/finished",
                "allocator/+/event/batch",
                "allocator/queue/cmd/+",
                "allocator/+/state",
            ),
        ),
    },
    commands=(
        "assign",
        "cancel",
        "delete",
        "forget",
        "list",
        "mode",
        "recolor",
        "retry",
        "show",
        "submit",
    ),
    collections=("combinators", "events", "jobs", "settings"),
    demo="patchbay_allocator.simulator:run",
    demo_addresses="patchbay_allocator.settings:demo_addresses",
    chaos="patchbay_allocator.chaos:Classroom",
    cli="patchbay_allocator.cli:app",
    check="patchbay_allocator.settings:check",
    ports={"allocator": "port"},
)
