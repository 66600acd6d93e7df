"""``patchbay locker ...``: what an operator asks of the boards and tells them.

    patchbay locker boards
    patchbay locker assign 1953 --minutes 60 --holder Ann
    patchbay locker accesses 1953 --limit 20 --json

Each command is one request on the bus to the locker domain, ``cmd/<name>`` of the board.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from patchbay.cli.client import (
    EVERY,
    JsonOption,
    System,
    ask,
    print_json,
    print_table,
)
from patchbay.cli.options import ConfigOption, StateOption
from patchbay.cli.printable import echo
from patchbay_locker.messages import (
    MAX_MINUTES,
    SERVICE,
    Ask,
    Assign,
    Block,
    Extend,
    Forget,
    Reset,
    Revoke,
    Unblock,
)

app = typer.Typer(
    name=SERVICE, help="Parcel-locker boards: cells, codes, accesses.", no_args_is_help=True
)

BoardId = Annotated[str, typer.Argument(metavar="ID", help="The board, as it names itself.")]
OneOrAll = Annotated[str, typer.Argument(metavar="ID", help="Of this board only.")]
Cell = Annotated[int, typer.Argument(metavar="CELL", help="Counted rightwards, then down, from 1.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many at most.")]


def cell_or_auto(text: str) -> int | Literal["auto"]:
    """A cell's number, or the word auto."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number or auto, got {text!r}") from None


@app.command()
def boards(
    limit: Limit = 100,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List the boards."""
    answer = _ask(EVERY, "boards", Ask(limit=limit), state, config)
    if as_json:
        return print_json(answer)
    rows = (
        (
            one["board"],
            one["online"],
            one["last_seen"],
            len(one["free"]),
            len(one["busy"]),
            one["blocked"],
            one["reports"],
            one["alarms"],
        )
        for one in answer["boards"]
    )
    columns = ("board", "online", "last seen", "free", "busy", "blocked", "reports", "alarms")
    return print_table(_title("boards", answer), columns, rows)


@app.command()
def board(
    board_id: BoardId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Show all that is known of one board."""
    answer = _ask(board_id, "state", Ask(), state, config)
    if as_json:
        return print_json(answer)
    known = dict(answer["board"])
    rentals = known.pop("rentals")
    print_table(f"board {known['board']}", ("what", "is"), known.items())
    rows = ((one["cell"], one["expires_at"], one.get("holder"), one["rental"]) for one in rentals)
    return print_table("rentals", ("cell", "until", "holder", "rental"), rows)


@app.command()
def rentals(
    board_id: OneOrAll = EVERY,
    ended: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    limit: Limit = 100,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List rentals, newest first."""
    answer = _ask(board_id, "rentals", Ask(active=not ended, limit=limit), state, config)
    fields = ("board", "cell", "status", "holder", "created_at", "expires_at", "rental")
    return _list("rentals", answer, fields, as_json)


@app.command()
def accesses(
    board_id: OneOrAll = EVERY,
    limit: Limit = 100,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List accesses to cells, newest first."""
    answer = _ask(board_id, "accesses", Ask(limit=limit), state, config)
    fields = ("at", "board", "cell", "rental", "boot", "send", "maybe_repeat")
    return _list("accesses", answer, fields, as_json)


@app.command()
def assign(
    board_id: BoardId,
    minutes: Annotated[int, typer.Option("--minutes", help=f"For how long: 1 to {MAX_MINUTES}.")],
    cell: Annotated[
        str, typer.Argument(metavar="CELL|auto", help="auto: the lowest free one.")
    ] = "auto",
    code: Annotated[str | None, typer.Option(help="Digits.", show_default="drawn")] = None,
    holder: Annotated[str | None, typer.Option(help="Who rents it.")] = None,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Rent a cell: the code opens it until the time has run out."""
    command = Assign(cell=cell_or_auto(cell), minutes=minutes, code=code, holder=holder)
    answer = _ask(board_id, "assign", command, state, config)
    sentence = "cell {cell} opens with code {code} until {expires_at} (rental {rental})"
    _say(sentence, answer, as_json)


@app.command()
def revoke(
    board_id: BoardId,
    cell: Cell,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """End a cell's rental now."""
    answer = _ask(board_id, "revoke", Revoke(cell), state, config)
    _say("cell {cell} is free: rental {rental} has ended", answer, as_json)


@app.command()
def extend(
    board_id: BoardId,
    cell: Cell,
    minutes: Annotated[int, typer.Argument(metavar="MINUTES", help="Added to what is left.")],
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a cell's rental last longer."""
    answer = _ask(board_id, "extend", Extend(cell, minutes), state, config)
    _say("cell {cell} is rented until {expires_at} (rental {rental})", answer, as_json)


@app.command()
def block(
    board_id: BoardId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Block access to all cells of a board until unblock."""
    answer = _ask(board_id, "block", Block(), state, config)
    _say("the board is blocked", answer, as_json)


@app.command()
def unblock(
    board_id: BoardId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Give access to a board's cells again."""
    answer = _ask(board_id, "unblock", Unblock(), state, config)
    _say("the board is not blocked", answer, as_json)


@app.command()
def reset(
    board_id: BoardId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Reboot a board once, with its next report."""
    answer = _ask(board_id, "reset", Reset(), state, config)
    _say("the board reboots when it reports next (reset {reset_id})", answer, as_json)


@app.command()
def forget(
    board_id: BoardId,
    documents: Annotated[
        Literal["keep", "remove"],
        typer.Option(help="What becomes of its ended rentals and its accesses."),
    ] = "keep",
    force: Annotated[
        bool, typer.Option("--force", help="Also if it has active rentals: they are revoked.")
    ] = False,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a board that is gone. One that reports again is a new board."""
    answer = _ask(board_id, "forget", Forget(documents, force), state, config)
    if as_json:
        return print_json(answer)
    counts = ", ".join(f"{name} {number}" for name, number in answer["removed"].items())
    return echo(f"board {answer['board']} is forgotten; documents removed: {counts}")


def _ask(
    board_id: str, name: str, body: msgspec.Struct, state: Path | None, config: Path | None
) -> dict[str, Any]:
    return ask(
        System(state, config),
        SERVICE,
        board_id,
        name,
        body,
        actuates=not isinstance(body, Ask),
        look=f"patchbay locker board {board_id}",
    )


def _say(sentence: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        echo(sentence.format_map(answer))


def _list(name: str, answer: dict[str, Any], fields: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    rows = ([one.get(field) for field in fields] for one in answer[name])
    columns = [field.removesuffix("_at").replace("_", " ") for field in fields]
    return print_table(_title(name, answer), columns, rows)


def _title(name: str, answer: dict[str, Any]) -> str:
    shown, total = len(answer[name]), answer["total"]
    return name if shown == total else f"{name} ({shown} of {total})"
