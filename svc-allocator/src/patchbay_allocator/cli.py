"""``patchbay allocator ...``: the queue of colour jobs, and the seed's two programs.

    patchbay allocator list --status waiting
    patchbay allocator assign 65a1f0c2... 1
    patchbay allocator send --conf conf.conf --data data.dat
    patchbay allocator combinator --port 8373 --device 1

What asks or changes the queue is one request on the bus to the domain, ``queue/cmd/<name>``.
`send`, `combinator` and `import-conf` need no bus: they stand for a Chromebook, a combinator and
the server's old settings.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from patchbay.cli.client import JsonOption, System, ask, print_json, print_table
from patchbay.cli.options import ConfigOption, StateOption
from patchbay.cli.printable import echo
from patchbay_allocator.messages import (
    QUEUE,
    SERVICE,
    Assign,
    Cancel,
    Delete,
    Forget,
    List,
    Recolor,
    Rejected,
    Retry,
    SetMode,
    Show,
    Submit,
    requested,
)

app = typer.Typer(
    name=SERVICE,
    help="Colour jobs: from Chromebooks to colour combinators.",
    no_args_is_help=True,
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, 24 digits.")]
Color = Annotated[str, typer.Argument(metavar="COLOR", help="RRGGBB, hexadecimal.")]
Customer = Annotated[str, typer.Argument(metavar="NAME", help="The customer's name.")]


class Order(StrEnum):
    """Which jobs come first."""

    newest = "newest"
    oldest = "oldest"


class ModeName(StrEnum):
    """Who gives jobs to combinators: the service, or people with `assign`."""

    auto = "auto"
    manual = "manual"


@app.command("list")
def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="waiting, inprogress, inprogress1, ..., done or error.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="A part of the customer's name.")] = None,
    order: Annotated[Order, typer.Option(help="Which come first.")] = Order.oldest,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    skip: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List jobs."""
    wanted = List(status=status, CustomerName=customer, order=order.value, limit=limit, skip=skip)
    answer = _ask("list", wanted, state, config)
    if as_json:
        return print_json(answer)
    rows = (
        (
            one["_id"],
            one["ClientName"],
            one["data"]["CustomerName"],
            one["data"]["ColorCode"],
            one["status"],
            one["attempts"] or None,
        )
        for one in answer["jobs"]
    )
    shown, total = len(answer["jobs"]), answer["total"]
    title = "jobs" if shown == total else f"jobs ({shown} of {total})"
    columns = ("job", "client", "customer", "color", "status", "failed")
    return print_table(title, columns, rows)


@app.command()
def show(
    job: JobId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Show all that is known of one job."""
    answer = _ask("show", Show(job), state, config)
    if as_json:
        return print_json(answer)
    known = dict(answer["job"])
    history, data = known.pop("history"), known.pop("data")
    print_table(f"job {known.pop('_id')}", ("what", "is"), {**data, **known}.items())
    rows = ((one["at"], one["status"], one.get("reason")) for one in history)
    return print_table("history", ("at", "status", "reason"), rows)


@app.command()
def submit(
    customer: Customer,
    color: Color,
    client: Annotated[str, typer.Option(help="For whom it is.")] = "patchbay",
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Put a job into the queue without a Chromebook."""
    body = Submit(ClientName=client, CustomerName=customer, ColorCode=color)
    _say("job {job} waits", _ask("submit", body, state, config), as_json)


@app.command()
def assign(
    job: JobId,
    device: Annotated[int, typer.Argument(metavar="DEVICE", help="The combinator's number.")],
    force: Annotated[bool, typer.Option("--force", help="Also a job that is done.")] = False,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a job to a combinator now."""
    answer = _ask("assign", Assign(job=job, device=device, force=force), state, config)
    _say("combinator {device} gets job {job}", answer, as_json)


@app.command()
def cancel(
    job: JobId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Take a waiting job out of the queue."""
    _say("job {job} is cancelled", _ask("cancel", Cancel(job), state, config), as_json)


@app.command()
def delete(
    job: JobId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a job that is not in progress."""
    _say("job {job} is deleted", _ask("delete", Delete(job), state, config), as_json)


@app.command()
def recolor(
    job: JobId,
    color: Color,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a waiting job another colour."""
    answer = _ask("recolor", Recolor(job=job, ColorCode=color), state, config)
    _say("job {job} is to be {ColorCode}", answer, as_json)


@app.command()
def retry(
    job: JobId,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Let a job that was parked after three failures wait again."""
    _say("job {job} waits", _ask("retry", Retry(job), state, config), as_json)


@app.command()
def forget(
    device: Annotated[
        str, typer.Argument(metavar="DEVICE", help="combinator-3, or the name of a Chromebook.")
    ],
    documents: Annotated[
        Literal["keep", "remove"],
        typer.Option(help="What becomes of the jobs that ended there, or came from it."),
    ] = "keep",
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a combinator that is no longer in the settings, or the jobs of a Chromebook."""
    answer = _ask("forget", Forget(device, documents), state, config)
    if as_json:
        return print_json(answer)
    counts = ", ".join(f"{name} {number}" for name, number in answer["removed"].items())
    return echo(f"{answer['device']} is forgotten; documents removed: {counts}")


@app.command()
def mode(
    name: Annotated[ModeName | None, typer.Argument(help="Without it: which is it?")] = None,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Who gives jobs to combinators: the service (auto), or people with `assign` (manual)."""
    body = SetMode(name.value if name else None)
    _say("the mode is {mode}", _ask("mode", body, state, config), as_json)


@app.command()
def send(
    conf: Annotated[Path | None, typer.Option(help="The seed's conf.conf.")] = None,
    data: Annotated[Path | None, typer.Option(help="The seed's data.dat.")] = None,
    client: Annotated[str | None, typer.Option(help="ClientName.")] = None,
    host: Annotated[str | None, typer.Option(help="ServerAddr.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="ServerPort.")] = None,
    customer: Annotated[str | None, typer.Option(help="CustomerName.")] = None,
    color: Annotated[str | None, typer.Option(help="ColorCode.")] = None,
) -> None:
    """Send one job as a Chromebook does: connect, say it, close. Options go before files."""
    import asyncio

    from patchbay_allocator import conf as files
    from patchbay_allocator.simulator import send as send_jobs
    from patchbay_allocator.wire.intake import Job

    try:
        book = files.read_conf(conf) if conf else None
        name, code = files.read_data(data) if data else (None, None)
        client = client or (book.client if book else None)
        host = host or (book.host if book else None)
        port = port or (book.port if book else None)
        customer, color = customer or name, color or code
        if not (client and host and port and customer and color):
            _fail("--conf and --data, or --client --host --port --customer --color: one is missing")
        else:
            requested(client, customer, color)  # the server would not tell us
            asyncio.run(send_jobs(host, port, Job(client, customer, color)))
    except files.ConfError as error:
        _fail(str(error))
    except Rejected as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{host}:{port}: {error.strerror or error}")
    echo(f"sent to {host}:{port}")


@app.command()
def combinator(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where to listen.")],
    device: Annotated[int, typer.Option(min=1, help="Our number.")],
    serial: Annotated[
        str | None, typer.Option(metavar="URL", help="The machine's port: /dev/ttyUSB0.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Without one: how long to mix.")] = 5.0,
    fail_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Without one: how often to fail.")
    ] = 0.0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104
) -> None:
    """Be a colour combinator: take jobs, mix them, answer. Ends with Ctrl-C."""
    import asyncio
    import contextlib
    import random

    from patchbay import log
    from patchbay_allocator.mixer import Mixer, serial_port, waits

    async def serve() -> None:
        mixing = serial_port(serial) if serial else waits(seconds, fail_rate, random.Random())
        async with Mixer(device, mixing) as mixer:
            await mixer.start(host, port)
            echo(f"combinator {device} listens on {host}:{port}")
            await asyncio.Event().wait()

    log.configure("info")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror or error}")


@app.command("import-conf")
def import_conf(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The seed's allocatemgr.conf.")],
    table: Annotated[
        Path | None, typer.Option(help="The combinators' color_table.json: their palette.")
    ] = None,
) -> None:
    """Print the settings of an allocatemgr.conf as the table for patchbay.toml.

    A combinator at an address of our own is reported on stderr: the service would not start.
    """
    import os

    from patchbay.errors import SettingsError
    from patchbay.services import discover
    from patchbay.settings import Config
    from patchbay_allocator import conf
    from patchbay_allocator.settings import on_our_ports

    try:
        addresses = conf.read_combinators(path)
        codes = conf.read_table(table) if table else None
        warnings = on_our_ports(Config.read(None, os.environ, discover()), addresses)
    except (conf.ConfError, SettingsError) as error:
        _fail(str(error))
    else:
        typer.echo(conf.toml(addresses, codes), nl=False)
        for line in warnings:
            echo(f"warning: {line}", err=True)


def _ask(
    name: str, body: msgspec.Struct, state: Path | None, config: Path | None
) -> dict[str, Any]:
    return ask(
        System(state, config),
        SERVICE,
        QUEUE,
        name,
        body,
        actuates=not isinstance(body, List | Show),
        look="patchbay allocator list",
    )


def _say(sentence: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        echo(sentence.format_map(answer))


def _fail(why: str) -> None:
    """One line on stderr, and exit code 1."""
    echo(why, err=True)
    raise typer.Exit(1)
