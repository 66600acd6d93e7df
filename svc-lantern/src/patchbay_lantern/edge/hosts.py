"""Which names the API and the page answer to."""

from __future__ import annotations

import socket

from patchbay.hosts import Hosts
from patchbay_lantern.settings import LanternSettings


def our_hosts(settings: LanternSettings) -> Hosts:
    """Those of ``hosts``, and what the settings call the API and its pages anyway."""
    urls = [*settings.origins, settings.api_url or ""]
    named = [url.partition("://")[2].partition(":")[0] for url in urls]
    return Hosts([*settings.hosts, *named], machine=socket.gethostname())
