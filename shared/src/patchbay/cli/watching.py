"""``watch``: follow the bus."""

from __future__ import annotations

from typing import Annotated

import typer

from patchbay.cli.options import ConfigOption, StateOption


def watch(
    pattern: Annotated[
        str, typer.Argument(metavar="FILTER", help="Topics, + and # understood. All if not given.")
    ] = "",
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="End after so many. 0: never.")
    ] = 0,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Follow the bus: time, topic and payload, one message a line. Ctrl-C ends it."""
    import asyncio
    from contextlib import suppress

    from patchbay import log
    from patchbay.cli.bus import make_bus
    from patchbay.cli.follow import follow

    log.configure("warning", "console")
    bus = make_bus("watch", state, config)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(follow(bus, pattern or bus.topics.everything(), count))
