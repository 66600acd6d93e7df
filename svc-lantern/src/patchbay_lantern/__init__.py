"""Network lanterns (TLV over TCP, an HTTP API, a browser page) on the Patchbay bus."""

from patchbay.services import Rights, Service

SERVICE = Service(
    name="lantern",
    settings="patchbay_lantern.settings:LanternSettings",
    roles={
        "tlv": "patchbay_lantern.edge.tlv:run",
        "api": "patchbay_lantern.edge.api:run",
        "page": "patchbay_lantern.edge.page:run",
        "domain": "patchbay_lantern.domain:run",
    },
    rights={
        "tlv": Rights(
            publish=("lantern/<instance>/state",),
            subscribe=("lantern/all/event/commanded", "lantern/all/state"),
        ),
        "api": Rights(
            publish=("lantern/all/cmd/set",),
            subscribe=("lantern/+/state",),
        ),
        "page": Rights(
            subscribe=("lantern/+/state", "lantern/all/event/commanded"),
        ),
        "domain": Rights(
            publish=(
                "lantern/all/event/commanded",
                "lantern/all/event/rejected",
                "lantern/all/state",
            ),
            subscribe=("lantern/+/state", "lantern/all/cmd/+"),
        ),
    },
    collections=("lanterns",),
    demo="patchbay_lantern.simulator:run",
    chaos="patchbay_lantern.chaos:Switcher",
    cli="patchbay_lantern.cli:app",
    ports={"lantern": "port", "lantern-api": "api_port", "lantern-page": "page_port"},
)
