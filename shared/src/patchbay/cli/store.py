"""``store``: the users of a MongoDB with passwords."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchbay.cli.options import ConfigOption

app = typer.Typer(help="Make what a store with passwords needs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make what a store with passwords needs."""


@app.command()
def users(
    secrets: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where secrets are: in the state directory."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make a user for each service, with rights to its own collections, as the store's user admin.
    Passwords are those that `patchbay broker users` has made; the store is that of the settings.
    May run again and again."""
    import asyncio

    from patchbay.access.directory import Directory
    from patchbay.access.store_users import make_store_users
    from patchbay.cli.environment import environment, settings, state_dir

    read = settings(environment(None, config))
    directory = Directory(secrets or state_dir(read) / "secrets")
    work = make_store_users(directory, read.services, read.store.database, read.store_uri)
    new = asyncio.run(work)
    print(f"new: {', '.join(new)}" if new else "all users are there already")
