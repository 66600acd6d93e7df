"""``chaos``: break a system on purpose, and count what it loses."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from patchbay.chaos.load import Tally

SHOWN = 5


def chaos(
    minutes: Annotated[
        float, typer.Option("--minutes", help="How long faults happen.", min=0.05, max=1440)
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Repeat the faults of another run.", metavar="N")
    ] = None,
    only: Annotated[
        str, typer.Option("--only", help="These services, not all.", metavar="NAME,NAME")
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Directory for the run: empty, or of an earlier run. Default: a new one.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Run a system of its own under load, break it at random, and report what it lost.

    Kills and freezes processes, stalls and cuts their links, lets the store refuse writes. It never
    touches another system. The exit code is 0 if nothing is lost, doubled, miscounted or late.
    """
    from patchbay import log
    from patchbay.chaos.run import Run, prepare_state
    from patchbay.errors import SettingsError
    from patchbay.services import discover

    log.configure("error")
    services = discover()
    names = [name.strip() for name in only.split(",") if name.strip()] or list(services)
    for name in names:
        if name not in services:
            raise SettingsError(f"--only {name}: no such service; there are {', '.join(services)}")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    place = state or Path(tempfile.mkdtemp(prefix="patchbay-chaos-"))
    place = place.resolve()
    prepare_state(place, seed)
    run = Run(
        [services[name] for name in names],
        place,
        seconds=minutes * 60,
        seed=seed,
        say=lambda line: print(line, flush=True),
    )
    clean = asyncio.run(run.run())
    for line in _report(run.tallies):
        run.log(line)
    print(f"seed {seed}; logs are in {place}")
    raise typer.Exit(0 if clean else 1)


def _report(tallies: dict[str, Tally]) -> list[str]:
    """The figures of each service, and what is wrong by name."""
    head = ("service", "accepted", "refused", "unknown", "lost", "doubled", "miscounted", "late")
    lines = ["  ".join(f"{word:>10}" for word in head)]
    for name, tally in tallies.items():
        numbers = [tally.accepted, tally.refused, tally.unknown]
        numbers += [len(found) for found in tally.faults.values()]
        lines.append("  ".join(f"{word:>10}" for word in (name, *numbers)))
    for name, tally in tallies.items():
        if not tally.accepted:
            lines.append(f"{name}: nothing was accepted, so nothing is shown")
        for fault, found in tally.faults.items():
            lines += [f"{name}: {fault}: {what}" for what in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"{name}: {fault}: and {len(found) - SHOWN} more")
    return lines
