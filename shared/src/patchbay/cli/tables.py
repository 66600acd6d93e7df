"""How ``patchbay status`` looks: tables for people, JSON for scripts."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from patchbay.cli.printable import printable, printable_json
from patchbay.progress import OK
from patchbay.up.roster import ONLINE
from patchbay.up.status import DeviceStatus, Status


def as_json_text(status: Status) -> str:
    """One JSON object: ready, units, broker, store, addresses."""
    return printable_json(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())


def show(status: Status, found: list[DeviceStatus], console: Console | None = None) -> None:
    """Print units, what they stand on, and devices."""
    console = console or Console()
    units = _table("unit", "instance", "status", "pid")
    for unit in status.units:
        shown = _coloured(unit.status)
        if unit.state != OK:
            shown += f" [red]{escape(printable(f'{unit.state}: {unit.cause}'))}[/red]"
        units.add_row(unit.unit, unit.instance, shown, _pid(unit.pid))
    for name, process in (("broker", status.broker), ("store", status.store)):
        failing = f"failing: {process.failing}" if process.failing else ""
        units.add_row(name, "", f"[red]{escape(printable(failing))}[/red]", _pid(process.pid))
    console.print(units)
    addresses = _table("address", "")
    for name, address in status.addresses.items():
        addresses.add_row(name, address)
    console.print(addresses)
    if found:
        devices = _table("service", "device", "status")
        for device in found:
            names = (escape(printable(name)) for name in (device.service, device.device))
            devices.add_row(*names, _coloured(device.status))
        console.print(devices)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _coloured(status: str) -> str:
    colour = "green" if status == ONLINE else "red"
    return f"[{colour}]{escape(printable(status))}[/{colour}]"


def _pid(pid: int | None) -> str:
    return "-" if pid is None else str(pid)
