"""``patchbay mesh ...``: what an operator asks of the nodes and tells them.

patchbay mesh nodes
patchbay mesh get GPS 5
patchbay mesh history 5 GPS --limit 20
patchbay mesh forget 5 --documents remove
patchbay mesh send 5 "turn left"
patchbay mesh simulate /tmp/mesh-root --nodes 10
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from patchbay.cli.client import JsonOption, System, ask, print_json, print_table
from patchbay.cli.options import ConfigOption, StateOption
from patchbay.cli.printable import echo
from patchbay_mesh.messages import (
    NODES,
    ROOT,
    SERVICE,
    Forget,
    History,
    List,
    Send,
    Show,
    node_device,
)

app = typer.Typer(
    name=SERVICE, help="A mesh behind a serial port: nodes, values, messages.", no_args_is_help=True
)

NodeArgument = Annotated[int, typer.Argument(metavar="NODE", min=1, max=65_535, help="Address.")]
TypeArgument = Annotated[str, typer.Argument(metavar="TYPE", help="Three letters, such as GPS.")]
Message = Annotated[str, typer.Argument(metavar="MESSAGE", help="Text, or hex with --hex.")]
HexOption = Annotated[bool, typer.Option("--hex", help="The message is hex.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many at most.")]


class Documents(StrEnum):
    """What becomes of a forgotten node's values and messages."""

    KEEP = "keep"
    REMOVE = "remove"


PAGE = 200
COLUMNS = ("node", "status", "last contact", "readings", "messages", "types", "position")


@app.command()
def nodes(
    active: Annotated[bool, typer.Option("--active", help="Only those that are active.")] = False,
    limit: Limit = 100,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List the nodes."""
    answer = _ask(NODES, "list", List(active=active, limit=limit), state, config)
    if as_json:
        return print_json(answer)
    print_table(f"{answer['total']} nodes", COLUMNS, map(_row, answer["nodes"]))
    return None


@app.command()
def node(
    address: NodeArgument,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Show one node with its latest values."""
    found = _find(address, state, config)
    if as_json:
        return print_json(found)
    print_table(f"uuid {found['uuid'] or 'unknown'}", COLUMNS, [_row(found)])
    values = ((type, one["hex"], one["time"]) for type, one in found["values"].items())
    print_table("", ("type", "value", "time"), values)
    return None


@app.command()
def history(
    address: NodeArgument,
    type: TypeArgument,
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339, UTC.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="RFC 3339, UTC.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """The values of a node of one type, newest first."""
    body = History(address, type, since, to, limit)
    answer = _ask(NODES, "history", body, state, config)
    if as_json:
        return print_json(answer)
    rows = ((one["time"], one["hex"]) for one in answer["values"])
    print_table(f"{type} of node {address}", ("time", "value"), rows)
    return None


@app.command()
def get(
    type: TypeArgument,
    address: Annotated[
        int, typer.Argument(metavar="[NODE]", min=0, max=65_535, help="0: of all active nodes.")
    ] = 0,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """The latest value of a type, of one node or of all that are active."""
    found = [_find(address, state, config)] if address else _all(state, config)
    values = [
        {"node": one["node"], **one["values"][type]} for one in found if type in one["values"]
    ]
    if not values:
        echo(f"no_such_type: no {type} there", err=True)
        raise typer.Exit(1)
    if as_json:
        return print_json({"type": type, "values": values})
    rows = ((one["node"], one["hex"], one["time"]) for one in values)
    print_table("", ("node", type, "time"), rows)
    return None


@app.command()
def forget(
    address: NodeArgument,
    documents: Annotated[
        Documents, typer.Option("--documents", help="What it has reported: keep, or remove.")
    ] = Documents.KEEP,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Forget a node: its document and retained topics. If it reports again it is new."""
    total = {"node": address, "known": False, "readings": 0, "messages": 0}
    to = None
    while True:  # a long history goes a piece at a time
        body = Forget(documents.value, to)
        answer = ask(System(state, config), SERVICE, node_device(address), "forget", body)
        total["known"] |= answer["known"]
        total["readings"] += answer["readings"]
        total["messages"] += answer["messages"]
        to = answer.get("to")
        if to is None:
            break
    if as_json:
        return print_json(total)
    removed = f"{total['readings']} values and {total['messages']} messages removed"
    echo(
        f"node {address} {'forgotten' if total['known'] else 'was not known'}; "
        + (removed if documents is Documents.REMOVE else "what it has reported is kept")
    )
    return None


@app.command()
def send(
    address: NodeArgument,
    message: Message,
    is_hex: HexOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Send a message to a node."""
    _tell_root("SEND-", address, message, is_hex, state, config)


@app.command()
def broadcast(
    message: Message,
    is_hex: HexOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Send a message to all nodes."""
    _tell_root("BCAST", None, message, is_hex, state, config)


@app.command()
def root(
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="NINFO, RST-R, CLEAN, ...")],
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Send a command without arguments to the root itself."""
    _send(Send(command), state, config)


@app.command()
def simulate(
    link: Annotated[Path, typer.Argument(metavar="PATH", help="Name of the port that is made.")],
    nodes: Annotated[int, typer.Option("--nodes", min=0, max=1000, help="How many.")] = 5,
    interval_s: Annotated[float, typer.Option("--interval", min=0.001, help="Seconds.")] = 2.0,
    listen: Annotated[
        int | None,
        typer.Option(
            "--listen", metavar="PORT", min=0, max=65_535, help="For socket://HOST:PORT, too."
        ),
    ] = None,
) -> None:
    """Be a mesh: a root on a pseudo-terminal, with nodes that report. Ctrl-C unplugs it."""
    import asyncio
    import contextlib
    import signal

    from patchbay_mesh.far_port import FarPort
    from patchbay_mesh.simulator import simulate as run

    async def until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            if listen is not None:
                await stack.enter_async_context(FarPort(link, "0.0.0.0", listen))  # noqa: S104
            await run(link, nodes, interval_s, stop)

    echo(f"set PATCHBAY_MESH__SERIAL={link}")
    asyncio.run(until_stopped())


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    gps = one["gps"]
    position = f"{gps['latitude']:.3f} {gps['longitude']:.3f}" if gps else None
    return (
        one["node"],
        one["status"],
        one["last_contact"],
        one["readings"],
        one["messages"],
        list(one["values"]),
        position,
    )


def _find(address: int, state: Path | None, config: Path | None) -> dict[str, Any]:
    answer = ask(System(state, config), SERVICE, node_device(address), "show", Show())
    found: dict[str, Any] = answer["node"]
    return found


def _all(state: Path | None, config: Path | None) -> list[dict[str, Any]]:
    """Every active node, a page at a time: an answer has to fit into one message."""
    found: list[dict[str, Any]] = []
    while True:
        page = _ask(NODES, "list", List(active=True, limit=PAGE, skip=len(found)), state, config)
        found += page["nodes"]
        if not page["nodes"] or len(found) >= page["total"]:
            return found


def _ask(
    device: str, name: str, body: msgspec.Struct, state: Path | None, config: Path | None
) -> dict[str, Any]:
    return ask(System(state, config), SERVICE, device, name, body)


def _tell_root(
    command: str,
    node: int | None,
    message: str,
    is_hex: bool,
    state: Path | None,
    config: Path | None,
) -> None:
    body = Send(command, node, message if is_hex else None, None if is_hex else message)
    _send(body, state, config)


def _send(body: Send, state: Path | None, config: Path | None) -> None:
    answer = ask(System(state, config), SERVICE, ROOT, "send", body, actuates=True)
    echo(f"{answer['bytes']} bytes sent")
