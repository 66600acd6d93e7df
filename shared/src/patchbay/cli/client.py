"""How the commands of a service ask it: over the bus, as everybody else may.

A service's CLI is a typer app whose commands take `StateOption`, `ConfigOption` and `JsonOption`,
call `ask` and print what comes with `print_json` or `print_table`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
import typer

from patchbay.cli.printable import echo, printable, printable_json
from patchbay.errors import OutcomeUnknown, PatchbayError, Rejected, Unavailable
from patchbay.messages import Failure, decode, encode
from patchbay.topics import device_id

if TYPE_CHECKING:
    from patchbay.bus import Bus

TIMEOUT_S: Final = 5.0
"""For the connection, and again for the answer: a person waits no longer than this."""

UNKNOWN: Final = 3
"""Exit code of a command whose outcome is unknown; 1 is an error, 2 a mistake in its arguments."""

UNBROKEN: Final = 100_000
"""Columns of a table where no terminal ends its lines: more than any row has."""

EVERY: Final = "all"
"""The device of a question that is about all devices."""

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="The answer, for scripts.")]


@dataclass(frozen=True, slots=True)
class System:
    """Which Patchbay is meant, and how many seconds we wait for it."""

    state: Path | None = None
    config: Path | None = None
    timeout_s: float = TIMEOUT_S


class _Answer(msgspec.Struct):
    ok: bool
    error: Failure | None = None


def ask(
    system: System,
    service: str,
    device: str,
    name: str,
    body: msgspec.Struct,
    *,
    actuates: bool = False,
    look: str = "",
) -> dict[str, Any]:
    """Send ``cmd/<name>`` to a device and return the answer, as `request` does.

    An error is one line on stderr (``cell_busy: ...``) and the end with exit code 1: nothing was
    done, and nothing will be. Where the outcome of a request that actuates is unknown, that line
    has its id, and how to ``look`` what became of it (``{id}`` stands for the id); the exit code is
    `UNKNOWN`.
    """
    import asyncio

    from patchbay import log

    log.configure("error")
    try:
        return asyncio.run(request(system, service, device, name, body, actuates=actuates))
    except OutcomeUnknown as error:
        hint = f"; see {look}" if look else ""
        told = f"outcome_unknown: request {{id}} may have been done{hint}"
        echo(told.replace("{id}", error.request_id), err=True)
        raise typer.Exit(UNKNOWN) from error
    except PatchbayError as error:
        echo(error, err=True)
        raise typer.Exit(1) from error


async def request(
    system: System,
    service: str,
    device: str,
    name: str,
    body: msgspec.Struct,
    *,
    actuates: bool = False,
) -> dict[str, Any]:
    """Send ``cmd/<name>`` to ``device`` (its original id, or `EVERY`) and return the answer.

    Raises Rejected with what the service says, Unavailable without broker or answer, and
    SettingsError. A request that ``actuates`` is never carried out after one of these; when it was
    confirmed and is not answered, OutcomeUnknown is raised.
    """
    from patchbay.cli.bus import make_bus

    async with make_bus(service, system.state, system.config) as bus:
        return await request_on(
            bus, service, device, name, body, system.timeout_s, actuates=actuates
        )


async def connected(bus: Bus, timeout_s: float) -> None:
    """Wait until a bus that was started is connected. Raises Unavailable that names the broker."""
    try:
        await bus.wait_connected(timeout_s)
    except TimeoutError as error:
        broker = f"{bus.settings.host}:{bus.port}"
        raise Unavailable(f"no broker at {broker} (is it running?)") from error


async def request_on(
    bus: Bus,
    service: str,
    device: str,
    name: str,
    body: msgspec.Struct,
    timeout_s: float,
    *,
    actuates: bool = False,
) -> dict[str, Any]:
    """`request` on a bus that was started, for who also listens there."""
    await connected(bus, timeout_s)
    topic = bus.topics.command(service, device_id(device), name)
    try:
        payload = await bus.request(
            topic,
            encode(body),
            timeout_s=timeout_s,
            expiry_s=math.ceil(timeout_s),
            actuates=actuates,
        )
    except (TimeoutError, Unavailable) as error:
        raise Unavailable(f"no answer from the {service} domain (is it running?)") from error
    return answered(service, payload)


def answered(service: str, payload: bytes) -> dict[str, Any]:
    """The fields of an answer. Raises Rejected if it is a refusal, Unavailable if it is invalid."""
    try:
        outcome = decode(msgspec.json.Decoder(_Answer), payload)
        fields = decode(msgspec.json.Decoder(dict[str, Any]), payload)
    except msgspec.DecodeError as error:
        raise Unavailable(f"invalid response from the {service} domain: {error}") from error
    if not outcome.ok:
        failure = outcome.error or Failure("refused", "without a reason")
        raise Rejected(failure.code, failure.message)
    return fields


def print_json(value: Any) -> None:
    """Print for programs: JSON on stdout."""
    typer.echo(printable_json(msgspec.json.format(encode(value), indent=2).decode()))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print for people: a table on stdout in which nothing is cut off.

    What is too long for a terminal goes on in the next line of its cell. Where there is none, as
    in a pipe, each row is a line, however long. None is an empty cell, a list its elements, a bool
    yes or no. Text is text: no markup in it, no control characters.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=printable(title),
        title_justify="left",
        title_style="",
        box=None,
        header_style="bold",
        pad_edge=False,
        padding=(0, 3, 0, 0),
    )
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    in_a_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = None if in_a_terminal else UNBROKEN
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(_shown(one) for one in value)
        case _:
            return printable(str(value))
