"""``up``, ``run``, ``status`` and ``health``: what runs on this machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from patchbay.cli.options import ConfigOption, InstanceOption, PortOffsetOption, StateOption


def up(
    demo: Annotated[bool, typer.Option("--demo", help="Simulated devices too.")] = False,
    only: Annotated[
        str, typer.Option("--only", help="These services, not all.", metavar="NAME,NAME")
    ] = "",
    port_offset: PortOffsetOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Run the whole system on this machine, until Ctrl-C.

    Prints "patchbay ready" and the addresses when everything is online. Restarts what dies.
    """
    from patchbay.cli.environment import environment, settings, state_dir
    from patchbay.health import instance_id
    from patchbay.up.plan import make_plan
    from patchbay.up.start import run as run_plan

    environ = environment(state, config, port_offset=port_offset, demo=demo)
    read = settings(environ)
    place = state_dir(read)
    plan = make_plan(read, place, only.split(","))
    environ = environment(place, config, port_offset=port_offset, demo=demo)
    raise typer.Exit(run_plan(plan, read, place, environ, instance_id))


def run(
    unit: Annotated[list[str], typer.Argument(help="locker.edge, or locker for all its units.")],
    instance: InstanceOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Run units in one process, in the foreground, without a broker or a store of their own."""
    from patchbay.cli.environment import environment

    argv = [sys.executable, "-m", "patchbay.runtime", *unit]
    if instance is not None:
        argv += ["--instance", instance]
    sys.stdout.flush()
    os.execve(argv[0], argv, environment(state, config))  # noqa: S606  no shell is what we want


def status(
    port_offset: PortOffsetOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what `up` runs: units and devices. The exit code is 0 when all units are online, get on,
    and store and broker work."""
    import asyncio

    from patchbay import log
    from patchbay.cli.environment import environment, settings, state_dir
    from patchbay.up.record import running
    from patchbay.up.status import Status, ask

    read = settings(environment(state, config, port_offset=port_offset))
    place = state_dir(read)
    record = running(place)
    log.configure("error")
    found, devices = asyncio.run(ask(record, read)) if record is not None else (Status(), [])
    if as_json:
        from patchbay.cli.tables import as_json_text

        print(as_json_text(found))
    elif record is None:
        hint = "start it with `patchbay up`, or name another state directory with --state DIR"
        print(f"patchbay: nothing runs on {place}: {hint}", file=sys.stderr)
    else:
        from patchbay.cli.tables import show

        show(found, devices)
    raise typer.Exit(0 if found.ready else 1)


def health(context: typer.Context) -> None:
    """Check that a unit of this machine is alive and not stuck. The exit code is 0 or 1.

    With --ready: that it is online, too, and waits for nothing.
    """
    from patchbay.cli.health import main

    raise typer.Exit(main(context.args))
