"""A locker edge in the test's own process, the boards that talk to it, and its domain service.

Broker, outbox and sockets are real. The domain service is the test: it says what boards are to
know, and acknowledges reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from patchbay.bus import Bus, Message
from patchbay.log import get_logger
from patchbay.messages import Ack, Event, decode_events, encode
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Outbox
from patchbay.testing import PATIENCE_S, until
from patchbay.topics import Topics, device_id
from patchbay_locker.edge import LockerEdge
from patchbay_locker.messages import Report
from patchbay_locker.session import BoardSession
from patchbay_locker.settings import LockerSettings
from patchbay_locker.wire import Request, encode_request

EDGE = "locker-edge-x"
DOMAIN = "locker-domain-x"
TOPICS = Topics()
LATER = "2099-01-01T00:00:00.000Z"

GROUPS = "01011011,11111111,10110111,11111111,10011111,11111111,10110111,11111111"
WORKED = (
    "ACon_V1.0 ID=1953 SEND=141349 CONNECTION=1 WIFI_STATE=0 GSM_STATE=0 RESET=1 STATE=0 COLS=8 "
    f"ROWS=8 ACT_CON={GROUPS} BOX_ENG=2,5,8,23,24,25 BOX_TO=33,34 BOX_ACC=1,54,43 CLOSE"
)
"""The worked case of the protocol: fifteen lines, joined with CR LF, nothing after CLOSE."""


def worked(send: int = 141349, *, id: str = "1953") -> bytes:
    lines = WORKED.replace("SEND=141349", f"SEND={send}").replace("ID=1953", f"ID={id}")
    return lines.replace(" ", "\r\n").encode()


def worked_answer(send: int = 141349, *, id: str = "1953") -> bytes:
    return f"ACon_V1.0\nID={id}\nSEND={send}\nRESET=0\nSTATE=0\nCLOSE\n".encode()


def report(
    send: int, *, id: str = "1953", reset: bool = False, accessed: tuple[int, ...] = ()
) -> bytes:
    return encode_request(Request("ACon_V1.0", id, send, str(send), reset=reset, box_acc=accessed))


class Line:
    """A board's connection, byte for byte. ``async with``."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.hang_up()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self) -> bytes:
        """The next answer, whole."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"CLOSE\n")

    async def ask(self, data: bytes) -> bytes:
        self.say(data)
        return await self.hear()

    async def rest(self) -> bytes:
        """All that comes until the edge closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    def hang_up(self) -> None:
        self._writer.close()


class Running:
    """An edge that runs."""

    def __init__(self, edge: LockerEdge, server: Server, sessions: list[BoardSession]) -> None:
        self.edge = edge
        self.sessions = sessions
        self.outbox = edge.outbox
        self.bus = edge.bus
        self.server = server

    def line(self) -> Line:
        return Line(self.server.port)

    async def ask(self, data: bytes) -> bytes:
        """One report on a connection of its own, and its answer; b"" if it is closed unanswered."""
        async with self.line() as line:
            try:
                return await line.ask(data)
            except asyncio.IncompleteReadError as end:
                return end.partial
            except ConnectionError:
                return b""

    async def holds(self, id: str, rev: int) -> None:
        """Wait until the edge holds this revision for a board."""
        board = self.edge.memory.board(device_id(id))
        await until(lambda: board.desired is not None and board.desired.rev >= rev)

    def empty(self) -> bool:
        """Is every report acknowledged, and forgotten?"""
        return self.outbox.waiting == 0


@contextlib.asynccontextmanager
async def running(
    bus: Bus,
    file: Path,
    *,
    settings: LockerSettings | None = None,
    connections: int = 10_000,
    **limits: Any,
) -> AsyncIterator[Running]:
    """Run an edge, as its unit does. ``connections``: how many it serves at a time. ``limits``: of
    its outbox."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bus.stop)
        outbox = await stack.enter_async_context(Outbox(bus, "locker", file, **limits))
        edge = LockerEdge(bus, outbox, settings)
        sessions: list[BoardSession] = []

        def connected(peer: Peer) -> BoardSession:
            sessions.append(edge.connected(peer))
            return sessions[-1]

        limits_of_server = Limits(connections)
        server = Server(connected, "127.0.0.1", 0, limits_of_server, get_logger("test"))
        edge.server = await stack.enter_async_context(server)
        bus.start()
        await bus.set_ready()
        yield Running(edge, server, sessions)


class Domain:
    """What the edge hears of its domain service, and what it says to that."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.acknowledges = True
        self.events: list[Event] = []
        self.letters: list[dict[str, Any]] = []
        self._upto: dict[tuple[str, str], int] = {}
        bus.listen(TOPICS.event("locker", "+", "report"), self._taken)
        bus.listen(TOPICS.batch("locker", EDGE), self._taken)
        bus.listen(TOPICS.dead("locker"), self._buried)

    def _taken(self, message: Message) -> None:
        message.ack()
        for event in decode_events(message.payload):
            source = (event.source, event.epoch)
            if event.sequence == self._upto.get(source, 0) + 1:
                self._upto[source] = event.sequence
                self.events.append(event)
        if self.acknowledges:
            self.acknowledge()

    def _buried(self, message: Message) -> None:
        message.ack()
        self.letters.append(json.loads(message.payload))

    def acknowledge(self) -> None:
        for (source, epoch), upto in self._upto.items():
            self.bus.post(TOPICS.ack(source), encode(Ack(epoch, upto)))

    @property
    def reports(self) -> list[Report]:
        return [msgspec.json.decode(event.data, type=Report) for event in self.events]

    async def want(
        self, rev: int, *, id: str = "1953", codes: dict[int, str] | None = None, **more: Any
    ) -> None:
        """Say what a board is to know."""
        rentals = [
            {"cell": cell, "code": code, "expires_at": LATER}
            for cell, code in (codes or {}).items()
        ]
        desired = {"rev": rev, "board": id, "rentals": rentals, **more}
        await self.bus.publish(
            TOPICS.desired("locker", device_id(id)), encode(desired), retain=True
        )

    async def say(self, status: str = "online", *, instance: str = DOMAIN) -> None:
        """What a unit says of itself: retained, as a unit does."""
        await self.bus.publish(TOPICS.unit_status(instance), status.encode(), retain=True)


async def unanswered(here: Running, stranger: bytes, send: int) -> None:
    """The stranger's report is taken in and board 1953's, behind it, is the first answered."""
    async with here.line() as line:
        line.say(stranger)
        assert await line.ask(worked(send)) == worked_answer(send)


def said_reset(answers: Iterable[bytes]) -> list[bool]:
    return [b"\nRESET=1\n" in answer for answer in answers]
