"""The options that several commands have, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

StateOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="State directory. Default: .patchbay, or state_dir in the settings.",
        metavar="DIR",
    ),
]
ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="Settings: patchbay.toml, if there is one.", metavar="FILE"),
]
PortOffsetOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--port-offset", help="Added to every port of ours.", metavar="N", min=0),
]
InstanceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--instance", help="Which instance: the host's name if not given.", metavar="NAME"
    ),
]
