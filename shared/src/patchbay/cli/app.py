"""The commands, put together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from patchbay import __version__
from patchbay.cli import broker, chaos, development, forgetting, install, store, system, watching
from patchbay.cli.printable import echo
from patchbay.errors import PatchbayError
from patchbay.services import discover, resolve

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What `test` gets goes to pytest, which knows better than we do; `health` does without typer."""


def run() -> None:
    """Run the command line of ``sys.argv``. What we understand as an error is one line; exits."""
    try:
        build(sys.argv[1:])()
    except PatchbayError as error:
        echo(f"patchbay: {error}", err=True)
        sys.exit(1)


def build(argv: Sequence[str]) -> typer.Typer:
    """The commands that ``argv`` may mean. A service's group, and so its code, is only loaded if
    it is the one named, or if no command is (for ``--help``)."""
    app = typer.Typer(
        name="patchbay",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in (system.up, system.run, system.status):
        app.command()(command)
    app.command()(watching.watch)
    app.command()(forgetting.forget)
    app.command(context_settings=_PASS_ON, add_help_option=False)(system.health)
    app.command()(install.install_service)
    app.command()(install.supervisor_conf)
    app.command()(chaos.chaos)
    app.command()(development.check)
    app.command(context_settings=_PASS_ON, add_help_option=False)(development.test)
    app.add_typer(broker.app, name="broker")
    app.add_typer(store.app, name="store")
    named = next((word for word in argv if not word.startswith("-")), None)
    ours = {one.name or _name(one.callback) for one in app.registered_commands}
    if named in ours | {group.name for group in app.registered_groups}:
        return app
    services = discover()
    for service in services.values():
        if service.cli is not None and (named is None or named == service.name):
            app.add_typer(resolve(service.cli), name=service.name)
    return app


def _name(function: object) -> str:
    """What typer calls the command of a function."""
    return getattr(function, "__name__", "").replace("_", "-")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Which is this?")
    ] = False,
) -> None:
    """Odd devices on one MQTT bus."""
