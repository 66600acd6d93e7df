"""``patchbay bartender ...``: pour, refill, stop and set up the cocktail machine.

    patchbay bartender blend 0.04 1=0.2 2=0.1 5=0.7
    patchbay bartender refill 4
    patchbay bartender stop
    patchbay bartender history --limit 10 --json

Each command is one request on the bus to the bar's scheduler, ``cmd/<name>``.
"""

from __future__ import annotations

import getpass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from patchbay.cli.client import UNKNOWN, JsonOption, System, ask, print_json, print_table
from patchbay.cli.options import ConfigOption, StateOption
from patchbay.cli.printable import echo
from patchbay_bartender.messages import (
    SERVICE,
    Ask,
    Blend,
    Configure,
    Forget,
    Number,
    Refill,
    Stop,
    pumps_device,
)

app = typer.Typer(
    name=SERVICE, help="The cocktail machine: blends, refills, pumps.", no_args_is_help=True
)


class Documents(StrEnum):
    """What becomes of the records of a forgotten bar."""

    KEEP = "keep"
    REMOVE = "remove"


NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for its end.")]
PumpNumber = Annotated[int, typer.Argument(metavar="PUMP", help="0 to 7.")]


@app.command()
def blend(
    cup_size: Annotated[float, typer.Argument(metavar="LITRES", help="The size of the cup.")],
    ratios: Annotated[list[str], typer.Argument(metavar="PUMP=RATIO", help="1=0.2 5=0.7")],
    no_wait: NoWait = False,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Pour a drink, and show how far it is. Ctrl-C leaves it alone; `stop` stops it."""
    body = Blend(cup_size=cup_size, ratios=dict(map(_ratio, ratios)), by=_by())
    _pour("blend", body, no_wait, as_json, System(state, config))


@app.command()
def refill(
    pump: PumpNumber,
    no_wait: NoWait = False,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Fill the tube of a pump whose container was empty."""
    _pour("refill", Refill(pump=pump, by=_by()), no_wait, as_json, System(state, config))


@app.command()
def stop(
    as_json: JsonOption = False, state: StateOption = None, config: ConfigOption = None
) -> None:
    """Everything off, now: said to the pumps themselves, and to the scheduler."""
    from patchbay_bartender.following import stop_pumps

    system, bar = System(state, config), _bar(state, config)
    _or_exit(stop_pumps(system, pumps_device(bar), Stop(by=_by())))
    answer = ask(system, SERVICE, bar, "stop", Stop(by=_by()))
    if as_json:
        return print_json(answer)
    return typer.echo("all pumps are off")


@app.command()
def status(
    as_json: JsonOption = False, state: StateOption = None, config: ConfigOption = None
) -> None:
    """Show what the machine does, and its pumps."""
    answer = ask(System(state, config), SERVICE, _bar(state, config), "state", Ask())
    if as_json:
        return print_json(answer)
    known: dict[str, Any] = dict(answer["bar"])
    pumps = known.pop("pumps")
    print_table(f"bar {known.pop('bar')}", ("what", "is"), known.items())
    return _print_pumps(pumps)


@app.command("config")
def configure(
    pump: Annotated[int | None, typer.Option("--pump", help="Set this pump.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable")] = None,
    refill_time: Annotated[float | None, typer.Option(help="Seconds to fill its tube.")] = None,
    speed_ratio: Annotated[float | None, typer.Option(help="1.0: as sec-per-liter says.")] = None,
    sec_per_liter: Annotated[float | None, typer.Option(help="Seconds a litre, of all.")] = None,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the configuration, or change it."""
    body = Configure(
        pump=pump,
        enabled=enabled,
        refill_time=_short(refill_time),
        speed_ratio=_short(speed_ratio),
        sec_per_liter=_short(sec_per_liter),
        by=_by(),
    )
    answer = ask(
        System(state, config), SERVICE, _bar(state, config), "configure", body, actuates=True
    )
    if as_json:
        return print_json(answer)
    _print_pumps(answer["pumps"])
    return echo(f"{answer['sec_per_liter']} seconds a litre")


@app.command()
def history(
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many.")] = 20,
    skip: Annotated[int, typer.Option("--skip", min=0, help="Without the newest so many.")] = 0,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """List blends and refills, newest first."""
    body = Ask(limit=limit, skip=skip)
    answer = ask(System(state, config), SERVICE, _bar(state, config), "history", body)
    if as_json:
        return print_json(answer)
    rows = (
        (
            one["ordered_at"],
            one["kind"],
            one["by"],
            one["status"],
            one["reason"],
            " ".join(f"{pump}:{ml:g}ml" for pump, ml in one["millilitres"].items()),
        )
        for one in answer["runs"]
    )
    columns = ("ordered", "kind", "by", "status", "reason", "pumped")
    return print_table("runs", columns, rows)


@app.command()
def forget(
    bar: Annotated[str, typer.Argument(help="A bar that is gone: not the one of the settings.")],
    documents: Annotated[
        Documents, typer.Option("--documents", help="The records of its blends: keep, or remove.")
    ] = Documents.KEEP,
    force: Annotated[
        bool, typer.Option("--force", help="Also if its pumps are online or a run is in progress.")
    ] = False,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Forget a bar that is gone: its document, settings and retained topics."""
    body = msgspec.convert({"bar": bar, "documents": documents.value, "force": force}, Forget)
    answer = ask(System(state, config), SERVICE, _bar(state, config), "forget", body)
    if as_json:
        print_json(answer)
        return
    records = answer["removed"].get("blends")
    kept = "its records are kept" if records is None else f"{records} records removed"
    echo(f"{bar} forgotten; {kept}")


def _pour(name: str, body: Blend | Refill, no_wait: bool, as_json: bool, system: System) -> None:
    bar = _bar(system.state, system.config)
    if no_wait:
        answer = ask(system, SERVICE, bar, name, body, actuates=True)
        if as_json:
            print_json(answer)
        else:
            echo(f"{answer['run_id']} takes {answer['seconds']:g} s")
        return
    from patchbay_bartender.following import Shown, pour

    ended = _or_exit(pour(system, bar, name, body, Shown(quiet=as_json)))
    if as_json:
        print_json(ended)
    elif ended["ended"] == "finished":
        poured = sum(ended["millilitres"].values())
        echo(f"done: {poured:g} ml" if poured else "done")
    if ended["ended"] != "finished":
        is_unknown = ended["code"] == "pumps_lost"
        unknown = "outcome unknown: " if is_unknown else ""
        echo(f"{unknown}{ended['code']}: {ended['reason']}", err=True)
        raise typer.Exit(UNKNOWN if is_unknown else 1)


def _or_exit(work: Any) -> Any:
    """Run it; an error is one line on stderr, and the end with exit code 1, an unknown outcome
    with `UNKNOWN`."""
    import asyncio

    from patchbay import log
    from patchbay.errors import OutcomeUnknown, PatchbayError

    log.configure("error")
    try:
        return asyncio.run(work)
    except OutcomeUnknown as error:
        echo(error, err=True)
        raise typer.Exit(UNKNOWN) from error
    except PatchbayError as error:
        echo(error, err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("it goes on; `patchbay bartender stop` stops it", err=True)
        raise typer.Exit(130) from None


def _print_pumps(pumps: list[dict[str, Any]]) -> None:
    columns = ("pump", "enabled", "refill time", "speed ratio", "millilitres")
    rows = (
        (
            number,
            one["enabled"],
            one["refill_time"],
            one["speed_ratio"],
            f"{one['millilitres']:g}",
        )
        for number, one in enumerate(pumps)
    )
    print_table("pumps", columns, rows)


def _ratio(text: str) -> tuple[str, Number]:
    pump, equals, ratio = text.partition("=")
    try:
        if equals:
            return pump, float(ratio)
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not PUMP=RATIO, such as 5=0.7")


def _short(number: float | None) -> Number | None:
    """213.0 as a person has typed it: 213."""
    return int(number) if number is not None and number.is_integer() else number


def _bar(state: Path | None, config: Path | None) -> str:
    """The bar that the settings name."""
    from patchbay.cli.environment import environment, settings
    from patchbay.errors import SettingsError
    from patchbay_bartender.settings import BartenderSettings

    try:
        return settings(environment(state, config)).table(SERVICE, BartenderSettings).bar
    except SettingsError as error:
        echo(error, err=True)
        raise typer.Exit(1) from error


def _by() -> str:
    try:
        return f"cli {getpass.getuser()}"
    except (KeyError, OSError):  # an account without a name, as containers have
        return "cli"
