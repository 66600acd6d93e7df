"""``python -m patchbay.up.demo SERVICE``: a service's simulated devices as a process of their own.

A demo is ``async def run(config: Config, stop: asyncio.Event) -> None``: devices as they come, on
the wire; it knows no bus. It returns soon after ``stop`` is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from patchbay import log
from patchbay.errors import PatchbayError, SettingsError
from patchbay.parent import die_with_parent
from patchbay.services import discover, resolve
from patchbay.settings import Config


async def run(name: str) -> None:
    """Run the demo of this service until SIGTERM or SIGINT. Raises SettingsError."""
    services = discover()
    config = Config.read(None, os.environ, services)
    log.configure(config.runtime.log_level, config.runtime.log_format)
    service = services.get(name)
    if service is None or service.demo is None:
        raise SettingsError(f"{name}: no such service, or one without a demo")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await resolve(service.demo)(config, stop)


def main() -> int:
    die_with_parent()
    try:
        asyncio.run(run(sys.argv[1]))
    except PatchbayError as error:
        print(f"patchbay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
