"""The edge unit around its sessions: outbox, server, back-pressure, commands, numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import structlog
from msgspec import Meta, Struct

from patchbay.bus import Bus, Commands, Request
from patchbay.bus.commands import Command
from patchbay.edge.repeats import Repeats
from patchbay.edge.session import DeviceSession
from patchbay.errors import Rejected
from patchbay.forms import JSON_FORM
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Outbox
from patchbay.unit import Unit

FULL_POLL_S: Final = 0.2
"""How often a full outbox is looked at: the domain empties it by hundreds in that time."""

Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1)]


class EdgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the settings table of a service with a TCP port has. Give ``port`` a default."""

    port: Port
    """TCP port that devices connect to."""

    listen_host: str | None = None
    """Address to listen on. None: 127.0.0.1 with --demo, all addresses without."""

    max_connections: Count = 1000
    """Connections at a time; see `patchbay.net.Slots` for who is served when there are more."""

    max_per_address: Annotated[int, Meta(ge=0)] = 0
    """Connections of one address beyond which it gives way when all are taken. 0: any number."""

    max_devices: Count = 10_000
    """Devices whose last frames are remembered to tell repeats, some 200 bytes each."""

    idle_timeout_s: Annotated[float, Meta(gt=0)] = 600.0
    """A device that sends nothing for so long is disconnected: it reconnects if it is there."""

    outbox_max_rows: Count = 200_000
    """Events that may wait for the domain. Beyond them nothing is read from devices."""

    outbox_max_bytes: Count = 268_435_456
    """The same in bytes of their data."""

    outbox_synchronous: str = "FULL"
    """SQLite's ``synchronous``. FULL survives a power cut, NORMAL only a kill."""


class WireCommand(NamedTuple):
    """A command to a connected device: the type of its body, and its bytes on the wire."""

    body: type[Struct]
    encode: Callable[[Any], bytes]


class DeviceEdge:
    """The sessions of one edge. `serve_tcp` makes one."""

    def __init__(
        self,
        bus: Bus,
        outbox: Outbox,
        service: str,
        make_session: Callable[[DeviceEdge, Peer], DeviceSession[Any]],
        *,
        max_devices: int = 10_000,
        commands: Mapping[str, WireCommand] | None = None,
    ) -> None:
        self.bus = bus
        self.outbox = outbox
        self.service = service
        self.repeats = Repeats(outbox, max_devices)
        self.server: Server | None = None
        self.sessions: dict[str, DeviceSession[Any]] = {}
        """Where each device was identified last, by its id in topics."""
        self.counts = {"repeats": 0, "bad_input": 0}
        self.encode = JSON_FORM.encode
        self._make_session = make_session
        self._commands = commands or {}
        self._log = structlog.get_logger("edge").bind(instance=bus.client_id)
        if self._commands:
            table = {
                name: Command(command.body, self._send, moves=True)
                for name, command in self._commands.items()
            }
            Commands(bus, service, table, elsewhere=("all",))

    def connected(self, peer: Peer) -> DeviceSession[Any]:
        """A device has connected."""
        return self._make_session(self, peer)

    def session(self, device: str) -> DeviceSession[Any]:
        """The connection of a device, by its id in topics. Raises Rejected (not_connected)."""
        found = self.sessions.get(device)
        if found is None or found.peer.closing:
            raise Rejected("not_connected", f"{device} is not connected")
        return found

    async def _send(self, request: Request, body: Struct) -> dict[str, Any]:
        session = self.session(request.device)
        session.peer.write(self._commands[request.name].encode(body))
        return {"device": session.devices[request.device]}

    # Back-pressure

    def hold_reading(self) -> None:
        """The outbox is full: read from nobody until there is room."""
        if self.server is not None and not self.server.paused:
            self._log.error("outbox full: not reading", waiting=self.outbox.waiting)
            self.server.pause()
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._resume_reading)

    def _resume_reading(self) -> None:
        if self.server is None:
            return
        if self.outbox.full:
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._resume_reading)
        else:
            self._log.info("outbox has room: reading again")
            self.server.resume()


async def serve_tcp(
    unit: Unit,
    settings: EdgeSettings,
    make_session: Callable[[DeviceEdge, Peer], DeviceSession[Any]],
    *,
    commands: Mapping[str, WireCommand] | None = None,
) -> None:
    """Run a whole edge until the unit stops. ``make_session`` is a subclass of `DeviceSession`."""
    async with Outbox(
        unit.bus,
        unit.service.name,
        unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
        synchronous=settings.outbox_synchronous,
        max_rows=settings.outbox_max_rows,
        max_bytes=settings.outbox_max_bytes,
        waited_for=True,
    ) as outbox:
        edge = DeviceEdge(
            unit.bus,
            outbox,
            unit.service.name,
            make_session,
            max_devices=settings.max_devices,
            commands=commands,
        )
        limits = Limits(
            settings.max_connections,
            settings.idle_timeout_s,
            max_per_address=settings.max_per_address,
            trusted_proxies=tuple(unit.config.runtime.trusted_proxies),
            max_invalid=unit.config.runtime.max_invalid,
        )
        host, port = unit.listen_host, unit.config.port(settings.port)
        async with Server(edge.connected, host, port, limits, unit.log, unit.tasks) as server:
            edge.server = server
            unit.info_sources |= {
                "backlog": lambda: outbox.waiting,
                "connections": lambda: server.connections,
                "devices": lambda: len(edge.sessions),
                "repeats": lambda: edge.counts["repeats"],
                "bad_input": lambda: edge.counts["bad_input"],
                "outbox_full": lambda: int(outbox.full),
            }
            await unit.serving()
