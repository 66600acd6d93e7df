"""Colour jobs, from Chromebooks to colour combinators, on the Patchbay bus."""

from patchbay.services import Service

SERVICE = Service(
    name="allocator",
    settings="patchbay_allocator.settings:AllocatorSettings",
    roles={
        "intake": "patchbay_allocator.edge.intake:run",
        "combinators": "patchbay_allocator.edge.combinators:run",
        "domain": "patchbay_allocator.domain:run",
    },
    demo="patchbay_allocator.simulator:run",
    cli="patchbay_allocator.cli:app",
    ports={"allocator": "port"},
)
