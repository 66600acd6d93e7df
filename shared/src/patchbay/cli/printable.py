"""Text of others on a terminal: see `patchbay.printable`."""

from __future__ import annotations

import typer

from patchbay.printable import printable, printable_json

__all__ = ["echo", "printable", "printable_json"]


def echo(text: object, *, err: bool = False) -> None:
    """Print one or more lines, each `printable`."""
    typer.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
