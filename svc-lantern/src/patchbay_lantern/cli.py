"""``patchbay lantern ...``: the lantern itself, and what people tell all lanterns.

    patchbay lantern                        a lantern in this terminal; asks for host:port
    patchbay lantern 10.0.0.7:9999 --plain  the same, one line a change
    patchbay lantern on | off | color ff0000 | state | history | outcome ID
    patchbay lantern simulate 1000          many lanterns

A first word that is no command is the HOST:PORT of ``connect``. Being a lantern needs no broker;
the rest, but for `simulate`, is one request on the bus to the lantern domain, ``all/cmd/<name>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from typer.core import TyperGroup

from patchbay.cli.client import JsonOption, System, ask, print_json, print_table
from patchbay.cli.options import ConfigOption, StateOption
from patchbay.cli.printable import echo
from patchbay_lantern.messages import ALL, SERVICE, Ask, History, Outcome, Set

CONNECT: Final = "connect"
DEFAULT_ADDRESS: Final = "127.0.0.1:9999"


class LanternGroup(TyperGroup):
    """Without a command's name the lantern itself is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [CONNECT, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    name=SERVICE,
    cls=LanternGroup,
    help="Network lanterns: be one, or tell all of them what to do. Without a command's name:"
    " connect [HOST:PORT].",
)

AddressArgument = Annotated[
    str | None,
    typer.Argument(metavar="[HOST:PORT]", help=f"The server. {DEFAULT_ADDRESS} if not asked."),
]


@app.command(CONNECT)
def connect(
    address: AddressArgument = None,
    plain: Annotated[bool, typer.Option("--plain", help="One line a change.")] = False,
) -> None:
    """Be a lantern: connect, obey, and show it in this terminal. Ends with Ctrl-C."""
    from patchbay_lantern.drawing import Drawn, Plain
    from patchbay_lantern.lantern import Lantern

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if address is None:
        address = DEFAULT_ADDRESS
        if terminal:
            address = typer.prompt("host:port", default=address)
    host, port = _address(address)
    if plain or not sys.stdout.isatty():
        _until_stopped(Lantern(host, port, Plain(sys.stdout)).run())
        return
    with Drawn(sys.stdout) as view:
        _until_stopped(Lantern(host, port, view).run(), resized=view.draw)


@app.command()
def on(as_json: JsonOption = False, state: StateOption = None, config: ConfigOption = None) -> None:
    """Light all lanterns."""
    _command("ON", None, as_json, state, config)


@app.command()
def off(
    as_json: JsonOption = False, state: StateOption = None, config: ConfigOption = None
) -> None:
    """Put all lanterns out."""
    _command("OFF", None, as_json, state, config)


@app.command()
def color(
    rgb: Annotated[str, typer.Argument(metavar="RRGGBB", help="Six hexadecimal digits.")],
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Give all lanterns a colour."""
    _command("COLOR", rgb, as_json, state, config)


@app.command("set")
def set_any(
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="ON, OFF, COLOR, ...")],
    value: Annotated[str | None, typer.Argument(metavar="VALUE", help="If it takes one.")] = None,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell all lanterns any command that there is."""
    _command(command.upper(), value, as_json, state, config)


@app.command("state")
def show_state(
    as_json: JsonOption = False, state: StateOption = None, config: ConfigOption = None
) -> None:
    """Show how the lanterns shine, and how many are connected."""
    answer = _ask("state", Ask(), state, config)
    if as_json:
        return print_json(answer)
    shown = {key: answer[key] for key in ("on", "color", "since", "by", "lanterns")}
    return print_table("all lanterns", ("what", "is"), shown.items())


@app.command()
def outcome(
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the request.")],
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Show whether a command was accepted whose outcome was unknown."""
    answer = _ask("outcome", Outcome(id=id), state, config)
    if as_json:
        return print_json(answer)
    told = f"{answer.get('command', '')} {answer.get('value') or ''}".strip()
    return echo(f"{answer['outcome']}{f': {told}' if told else ''}")


@app.command()
def history(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List the last commands, newest first."""
    answer = _ask("history", History(limit=limit), state, config)
    if as_json:
        return print_json(answer)
    fields = ("rev", "at", "command", "value", "by")
    return print_table(
        "commands", fields, ([one[key] for key in fields] for one in answer["history"])
    )


@app.command()
def simulate(
    count: Annotated[int, typer.Argument(min=1, max=60_000, metavar="COUNT", help="How many.")],
    address: AddressArgument = None,
) -> None:
    """Be many lanterns at once, for tests and load. Ends with Ctrl-C."""
    from patchbay import log
    from patchbay_lantern.simulator import simulate as lanterns

    log.configure("info")
    host, port = _address(address or DEFAULT_ADDRESS)

    async def serve() -> None:
        await lanterns(host, port, count, log.get_logger("simulator"), asyncio.Event())

    _until_stopped(serve())


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        echo(f"{text!r} is neither a command nor HOST:PORT", err=True)
        raise typer.Exit(2)
    return host, int(port)


def _until_stopped(work: Coroutine[Any, Any, None], resized: Any = None) -> None:
    """Run until SIGTERM or Ctrl-C, then let it close what it has open."""

    async def run() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        if resized is not None:
            loop.add_signal_handler(signal.SIGWINCH, resized)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


def _command(
    command: str, value: str | None, as_json: bool, state: Path | None, config: Path | None
) -> None:
    answer = ask(
        System(state, config),
        SERVICE,
        ALL,
        "set",
        Set(command=command, value=value, by="command line"),
        actuates=True,
        look="patchbay lantern outcome {id}",
    )
    if as_json:
        print_json(answer)
    else:
        told = f"{answer['command']} {answer['value'] or ''}".strip()
        count = answer["lanterns"]
        echo(f"{told}: {count} {'lantern' if count == 1 else 'lanterns'} connected")


def _ask(
    name: str, body: msgspec.Struct, state: Path | None, config: Path | None
) -> dict[str, Any]:
    return ask(System(state, config), SERVICE, ALL, name, body)
