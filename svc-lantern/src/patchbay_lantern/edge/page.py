"""The page's edge: one port for the page and for its WebSocket.

Browsers are told each command and how many lanterns are connected. What they say is ignored: to
command they call the API. The page learns from its own text where that is and which commands there
are, so a new command needs no new page.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib import resources
from types import TracebackType
from typing import Final, Self

import msgspec

from patchbay.bus import Bus
from patchbay.hosts import hosts_of
from patchbay.runtime import Unit
from patchbay.websocket import Client, Limits, Page, WebSocketServer
from patchbay_lantern.census import Census
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.edge.following import Follower
from patchbay_lantern.messages import Order
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire.page import Command, Lanterns, encode

LOOK_S: Final = 0.25
"""How often we look whether the bus is there: so soon browsers hear that it is not."""

REPEAT_S: Final = 5.0
"""The number is told this often though it is no news: by that a browser knows that we are there. A
connection can be gone without a word, and its pings the page never sees."""

SILENCE_S: Final = 3 * REPEAT_S
"""A page that has heard nothing for so long is cut off, also while it connects. Three times: a
message or two may be late."""

MAX_MESSAGE: Final = 4096
"""Bytes of a message of a browser, which has nothing to say."""

_PLACE: Final = b"{}<!-- config -->"
_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src *; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""``connect-src``: the API and the WebSocket may be on any host that the browser reaches us by."""


async def run(unit: Unit) -> None:
    """The unit ``lantern.page``."""
    settings = unit.settings(LanternSettings)
    edge = PageEdge(unit.bus)
    server = WebSocketServer(
        edge.connected,
        host=unit.listen_host,
        port=unit.config.port(settings.page_port),
        limits=Limits(
            max_connections=settings.max_browsers,
            max_message_bytes=MAX_MESSAGE,
        ),
        log=unit.log,
        pages=pages(settings, unit.config.port(settings.api_port)),
        hosts=hosts_of(settings.hosts, [*settings.origins, settings.api_url or ""]),
    )
    edge.server = server
    async with server, edge:
        unit.info_sources["connections"] = lambda: server.connections
        await unit.serving()


def pages(
    settings: LanternSettings, api_port: int, registry: Registry = COMMANDS
) -> dict[str, Page]:
    """The files of the page by their paths, with what the page has to know in its text."""
    config = msgspec.json.encode(
        {
            "api": settings.api_url,
            "apiPort": api_port,
            "silenceMs": SILENCE_S * 1000,
            "commands": [
                {"name": kind.name, "label": kind.label, "form": kind.value.form, "sets": kind.sets}
                for kind in registry
            ],
        }
    ).replace(b"<", b"\\u003c")  # it stands in HTML
    found = {}
    for name, content_type in _TYPES.items():
        body = resources.files("patchbay_lantern").joinpath("pages", name).read_bytes()
        path = "/" if name == "index.html" else f"/{name}"
        found[path] = Page(content_type, body.replace(_PLACE, config), _SAFE)
    return found


class PageEdge:
    """Tells each browser what becomes of the lanterns. Enter it when the server is there."""

    def __init__(self, bus: Bus, registry: Registry = COMMANDS) -> None:
        self.server: WebSocketServer | None = None
        self._bus = bus
        self._told: int | None = None
        self._repeat_at = 0.0
        self._follower = Follower(bus, self._obey, self._catch_up, registry)
        self._census = Census(bus, self._look, self._follower.state)
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = self._bus.tasks.spawn(self._look_for_ever(), "watch of the bus")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    def connected(self, client: Client) -> Browser:
        """A browser has connected: it gets the present state, then the number of lanterns."""
        for order in self._follower.present:
            client.send(_command(order))
        client.send(encode(Lanterns(self._told)))
        return Browser()

    def _obey(self, order: Order) -> None:
        self._tell(_command(order))

    def _catch_up(self) -> None:
        for order in self._follower.present:
            self._tell(_command(order))

    def _tell(self, message: str) -> None:
        if self.server is not None:
            self.server.broadcast(message)

    def _look(self) -> None:
        """Tell how many lanterns there are, if that is news or has not been told for long."""
        count = self._census.lanterns if self._bus.connected else None
        moment = asyncio.get_running_loop().time()
        if count != self._told or moment >= self._repeat_at:
            self._told = count
            self._repeat_at = moment + REPEAT_S
            self._tell(encode(Lanterns(count)))

    async def _look_for_ever(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(LOOK_S)


class Browser:
    """One connection of a browser. What it says is ignored."""

    def received(self, message: str | bytes) -> None:
        """Browsers have nothing to say here."""

    def lost(self) -> None:
        """Nothing is owed to who has gone."""


def _command(order: Order) -> str:
    return encode(Command(order.command, order.value))
