"""The locker edge: boards on TCP, reports on the bus, answers from the last desired state.

A report is answered after it is committed to the outbox, and without asking anyone: so boards are
served while domain, broker and store are down. **A wrong empty list wipes a board**: a board for
which no desired state is held is answered only once the domain service has been seen online since
we started, because it says so only after it has published every desired state. Seen means said
while we listened: a retained ``online`` may be what a killed broker or domain left behind.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.messages import rfc3339
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Outbox, OutboxFull
from patchbay.runtime import Unit
from patchbay.topics import device_id
from patchbay_locker.memory import BoardMemory, Memory
from patchbay_locker.messages import REPORT, SERVICE, Report
from patchbay_locker.numbering import Verdict, judge, key
from patchbay_locker.settings import LockerSettings
from patchbay_locker.wire import Decoder, Request, WireError, encode

DOMAIN_PREFIX = f"{SERVICE}-domain"
FULL_POLL_S = 0.2
"""How often a full outbox is looked at: the domain empties it by hundreds in that time."""


async def run(unit: Unit) -> None:
    """The unit ``locker.edge``."""
    settings = unit.settings(LockerSettings)
    async with Outbox(
        unit.bus,
        SERVICE,
        unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
        synchronous=settings.outbox_synchronous,
        max_rows=settings.outbox_max_rows,
        max_bytes=settings.outbox_max_bytes,
    ) as outbox:
        edge = LockerEdge(unit.bus, outbox)
        limits = Limits(
            settings.max_connections,
            settings.idle_timeout_s,
            max_per_address=settings.max_per_address,
            trusted_proxies=tuple(unit.config.runtime.trusted_proxies),
        )
        port = unit.config.port(settings.port)
        async with Server(
            edge.connected, unit.listen_host, port, limits, unit.log, unit.tasks
        ) as server:
            edge.server = server
            unit.info_sources["backlog"] = lambda: outbox.waiting
            unit.info_sources["connections"] = lambda: server.connections
            unit.info_sources["boards"] = lambda: len(edge.memory)
            unit.info_sources["bad_input"] = lambda: edge.bad_input
            unit.info_sources["outbox_full"] = lambda: int(outbox.full)
            await unit.serving()


class LockerEdge:
    """Turns requests into reports on the bus and desired states into answers."""

    def __init__(self, bus: Bus, outbox: Outbox) -> None:
        self.bus = bus
        self.outbox = outbox
        self.memory = Memory(outbox)
        self.server: Server | None = None
        self.bad_input = 0
        self.domain_seen = False
        self._unanswered: dict[str, tuple[BoardSession, Request]] = {}
        self._log = structlog.get_logger("edge").bind(instance=bus.client_id)
        bus.listen(bus.topics.desired(SERVICE, "+"), self._desired)
        bus.listen(bus.topics.unit_status("+"), self._status)

    def connected(self, peer: Peer) -> BoardSession:
        """A board has connected."""
        return BoardSession(self, peer)

    # From the bus

    def _desired(self, message: Message) -> None:
        message.ack()
        address = self.bus.topics.address(message.topic)
        if address is None:
            return
        try:
            if self.memory.desire(address.device, message.payload):
                self._answer_late(address.device)
        except (msgspec.DecodeError, ValueError) as error:
            self._log.error("no desired state", topic=message.topic, error=str(error))
            self.bus.dead_letter(SERVICE, str(error), message.payload, topic=message.topic)

    def _status(self, message: Message) -> None:
        message.ack()
        instance = message.topic.rpartition("/")[2]
        live = not message.retain and message.payload == b"online"
        if live and instance.startswith(DOMAIN_PREFIX) and not self.domain_seen:
            self.domain_seen = True
            self._log.info("domain seen", instance=instance)
            for device in list(self._unanswered):
                self._answer_late(device)

    def _answer_late(self, device: str) -> None:
        """Answer the report that waits, now that we know what; by SEND the board knows which."""
        session, request = self._unanswered.pop(device, (None, None))
        if session is not None and request is not None:
            self.answer([(session, request)])

    # From the boards

    def take(self, session: BoardSession, request: Request) -> None:
        """Take a request in; it is answered after this turn's commit. Raises OutboxFull."""
        board = self.memory.board(device_id(request.id))
        now = time.time()
        verdict = judge(board.last, request, int(now))
        if verdict.kind != "repeat":
            self._report(board, request, verdict, now)
            self.memory.numbered(board, verdict.last)
            if verdict.rebooted or request.reset:
                self.memory.rebooted(board)
        session.await_commit(board, request)

    def _report(self, board: BoardMemory, request: Request, verdict: Verdict, now: float) -> None:
        late = verdict.kind == "late"
        digest = request.digest if late else None
        self.outbox.add(
            board.device,
            REPORT,
            key=key(board.device, verdict.boot, request.send, digest),
            subject=request.id,
            time=rfc3339(datetime.fromtimestamp(now, UTC)),
            data=Report(
                board=request.id,
                boot=verdict.boot,
                send=request.send,
                rebooted=verdict.rebooted,
                late=late,
                maybe_repeat=verdict.maybe_repeat,
                connection=request.connection,
                wifi_state=request.wifi_state,
                gsm_state=request.gsm_state,
                reset=request.reset,
                state=list(request.state),
                cols=request.cols,
                rows=request.rows,
                act_con=list(request.act_con),
                box_eng=list(request.box_eng),
                box_to=list(request.box_to),
                box_acc=list(request.box_acc),
                rev=board.desired.rev if board.desired else 0,
                extra=request.extra,
            ),
        )

    def answer(self, requests: list[tuple[BoardSession, Request]]) -> None:
        """Answer requests of one session, in one write; hold back what must not be answered."""
        now = time.time()
        answers: list[bytes] = []
        answered: list[tuple[BoardMemory, int]] = []
        session = requests[0][0]
        for _, request in requests:
            board = self.memory.board(device_id(request.id))
            if board.desired is None and not self.domain_seen:
                self._unanswered[board.device] = (session, request)
            else:
                answers.append(encode(board.answer(request, now)))
                answered.append((board, request.send))
        if answers and session.peer.write(b"".join(answers)):
            for board, send in answered:
                self.memory.answered(board, send)

    def refuse(self, session: BoardSession, error: WireError) -> None:
        """Bad input: this connection closes, and what came becomes a dead letter."""
        self.bad_input += 1
        self.bus.dead_letter(SERVICE, error.reason, error.original, peer=session.peer.address)
        self._log.warning("bad input", peer=session.peer.address, reason=error.reason)

    def hold_reading(self) -> None:
        """The outbox is full: read from nobody until there is room."""
        if self.server is not None and not self.server.paused:
            self._log.error("outbox full: not reading", waiting=self.outbox.waiting)
            self.server.pause()
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._go_on)

    def _go_on(self) -> None:
        if self.server is None:
            return
        if self.outbox.full:
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._go_on)
        else:
            self._log.info("outbox has room: reading again")
            self.server.resume()

    def forget(self, session: BoardSession) -> None:
        """A connection has ended: nothing can be answered there."""
        for device in session.devices:
            if self._unanswered.get(device, (None,))[0] is session:
                del self._unanswered[device]


class BoardSession:
    """One connection of a board. It may carry one report or thousands, pipelined."""

    __slots__ = ("_decoder", "_edge", "_refused", "_waiting", "devices", "peer")

    def __init__(self, edge: LockerEdge, peer: Peer) -> None:
        self.peer = peer
        self.devices: set[str] = set()
        self._edge = edge
        self._decoder = Decoder()
        self._refused = False
        self._waiting: list[Request] = []

    def received(self, data: bytes) -> None:
        if self._refused:  # it closes after this turn's commit, and has been said to be bad
            return
        try:
            requests = self._decoder.feed(data)
        except WireError as error:
            self._refused = True
            self._take(error.before)
            self._edge.refuse(self, error)
            self._edge.outbox.after_commit(lambda _ok: self.peer.close())
        else:
            self._take(requests)

    def lost(self) -> None:
        self._edge.forget(self)

    def _take(self, requests: list[Request]) -> None:
        try:
            for request in requests:
                self._edge.take(self, request)
        except OutboxFull:
            self._edge.hold_reading()
            self._edge.outbox.after_commit(lambda _ok: self.peer.close())

    def await_commit(self, board: BoardMemory, request: Request) -> None:
        """Answer this request once this turn's commit is on disk."""
        if not self._waiting:
            self._edge.outbox.after_commit(self._committed)
        self._waiting.append(request)
        self.devices.add(board.device)
        self.peer.identify()

    def _committed(self, ok: bool) -> None:
        waiting, self._waiting = self._waiting, []
        if ok:
            self._edge.answer([(self, request) for request in waiting])
        else:
            self.peer.close()
