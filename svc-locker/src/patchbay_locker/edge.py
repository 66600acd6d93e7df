"""The locker edge: boards on TCP, reports on the bus, answers from the last desired state.

A report is answered after it is committed to the outbox, and without asking anyone: so boards are
served while domain, broker and store are down. **A wrong empty list wipes a board**: a board for
which no desired state is held is answered only once the domain service has been seen online since
we started, because it says so only after it has published every desired state. Seen means said
while we listened: a retained ``online`` may be what a killed broker or domain left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import structlog

from patchbay.bus import Bus, Message
from patchbay.messages import rfc3339
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Outbox
from patchbay.runtime import Unit
from patchbay.topics import device_id, twin_id
from patchbay_locker.memory import BoardMemory, Memory
from patchbay_locker.messages import REPORT, SERVICE, Report
from patchbay_locker.numbering import Verdict, continues, judge, key
from patchbay_locker.room import Newcomers
from patchbay_locker.session import BoardSession
from patchbay_locker.settings import LockerSettings
from patchbay_locker.wire import Request, WireError, encode

DOMAIN_PREFIX = f"{SERVICE}-domain"
TIME_WAIT_S = 5.0
"""So long after its first connect an edge that does not know the domain's time holds answers back:
a domain that is there tells it within milliseconds, on a busy machine within seconds."""

MAX_TIMELESS = 1_000
"""Answers that are held back meanwhile; the connections of more are closed, and boards reconnect.
"""

WRITE_BUFFER_BYTES = 65_536
"""What may wait for a board that does not read: some fifty answers with a code for each of 64
cells, here and as many again in the kernel. It is dropped with more."""

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
        waited_for=True,
    ) as outbox:
        proxies = tuple(unit.config.runtime.trusted_proxies)
        edge = LockerEdge(unit.bus, outbox, settings, proxies)
        limits = Limits(
            settings.max_connections,
            settings.idle_timeout_s,
            WRITE_BUFFER_BYTES,
            send_buffer_bytes=WRITE_BUFFER_BYTES,
            max_per_address=settings.max_per_address,
            trusted_proxies=proxies,
        )
        port = unit.config.port(settings.port)
        async with Server(
            edge.connected, unit.listen_host, port, limits, unit.log, unit.tasks
        ) as server:
            edge.server = server
            unit.info_sources["backlog"] = lambda: outbox.waiting
            unit.info_sources["connections"] = lambda: server.connections
            unit.info_sources["boards"] = lambda: len(edge.memory)
            unit.info_sources["boards_evicted"] = lambda: edge.memory.evicted
            unit.info_sources["boards_refused"] = lambda: edge.boards_refused
            unit.info_sources["bad_input"] = lambda: edge.bad_input
            unit.info_sources["outbox_full"] = lambda: int(outbox.full)
            await unit.serving()


class LockerEdge:
    """Turns requests into reports on the bus and desired states into answers."""

    def __init__(
        self,
        bus: Bus,
        outbox: Outbox,
        settings: LockerSettings | None = None,
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        settings = settings or LockerSettings()
        self.bus = bus
        self.outbox = outbox
        self.memory = Memory(outbox, settings.max_boards)
        self.boards_refused = 0
        """Connections closed because they brought a new board that there was no room for."""
        self._newcomers = Newcomers(
            settings.new_boards_per_minute, ("127.0.0.1", "::1", *trusted_proxies)
        )
        self._max_unanswered = settings.max_boards
        self.server: Server | None = None
        self.bad_input = 0
        self.domain_seen = False
        self._unanswered: dict[str, tuple[BoardSession, Request]] = {}
        self._loop = asyncio.get_running_loop()
        self._timeless: list[list[tuple[BoardSession, Request]]] = []
        self._time_by: float | None = None
        bus.on_connect(self._connected)
        outbox.on_time = self._answer_timeless
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
            now = self.outbox.domain_time.time()
            if self.memory.desire(address.device, message.payload, now):
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
        """Take a request in; it is answered after this turn's commit. Raises OutboxFull, and
        WireError for a new board that there is no room for."""
        now = self.outbox.domain_time.time()
        board = self._board(request.id) or self._admit(session, request, now)
        board.reports += 1
        board.seen_at = now
        connection, before = session.number, board.peers.last
        came_back = False
        if connection != before:
            self._move(board, session, request)
            told = board.told > board.reset_done and board.told_on != connection
            came_back = told and board.device not in session.devices and not self._two(board)
        verdict = judge(board.last, request, int(now), came_back=came_back)
        if verdict.kind != "repeat":
            self._report(board, request, verdict, now, came_back)
            if verdict.rebooted:
                self.memory.leave(board, before)
            self.memory.numbered(board, verdict.last)
            if request.reset or (verdict.rebooted and came_back):
                self.memory.rebooted(board)
        if (reset_id := board.pending_reset()) is not None and not request.reset:
            self.memory.tell_reset(board, reset_id, connection)
        session.await_commit(board, request)

    def _board(self, id: str) -> BoardMemory | None:
        """A board's memory; None if it is not known. Of two whose ids differ only in case the
        domain has said which one has their usual device id; the other has one of its own, and so
        codes of its own."""
        board = self.memory.find(device_id(id))
        if board is None or (held := board.desired) is None or held.board == id:
            return board
        return self.memory.find(twin_id(id)) if device_id(held.board) == board.device else board

    def _admit(self, session: BoardSession, request: Request, now: float) -> BoardMemory:
        """A new board's memory. Raises WireError: anybody can invent ids."""
        if not self._newcomers.admit(session.peer.host, self._loop.time()):
            why = "too many new boards from this address in a minute (new_boards_per_minute)"
        else:
            board = self.memory.admit(self._new_device(request.id), now)
            if board is not None:
                return board
            why = "no room for a new board (max_boards)"
        self.boards_refused += 1
        raise WireError(why, f"ID={request.id}".encode())

    def _new_device(self, id: str) -> str:
        """The device id of a board that is not known."""
        device = device_id(id)
        return device if self.memory.find(device) is None else twin_id(id)

    def _move(self, board: BoardMemory, session: BoardSession, request: Request) -> None:
        """A board's report comes on another connection than its last one."""
        number, prior, last = session.number, board.prior, board.last
        came_back = goes_on = False
        if prior is not None and last is not None and not request.reset:
            came_back = number == board.prior_on
            goes_on = continues(prior, last, request)
        # Numbers alone may fit by chance, since a board that has rebooted counts from 1 again: they
        # count only when other reports have shown that there are two boards.
        if came_back or (goes_on and self._two(board)):
            self.memory.swap(board, board.peers.last)
        address = session.peer.address
        board.peers.moved(number, address, self._loop.time(), returned=came_back or goes_on)

    def _two(self, board: BoardMemory) -> list[str]:
        return board.peers.two(self._loop.time())

    def _report(
        self, board: BoardMemory, request: Request, verdict: Verdict, now: float, came_back: bool
    ) -> None:
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
                told_reset=came_back if verdict.rebooted and not request.reset else None,
                peers=self._two(board),
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
        if self._awaits_time():
            if len(self._timeless) < MAX_TIMELESS:
                self._timeless.append(requests)
            else:
                requests[0][0].peer.close()
            return
        now = self.outbox.domain_time.time()
        answers: list[bytes] = []
        answered: list[tuple[BoardMemory, int]] = []
        session = requests[0][0]
        for _, request in requests:
            board = self._board(request.id) or BoardMemory(self._new_device(request.id))
            if board.desired is None and (not self.domain_seen or self.memory.incomplete):
                self._hold(board.device, session, request)
            else:
                answers.append(encode(board.answer(request, now)))
                answered.append((board, request.send))
        if answers and session.peer.write(b"".join(answers)):
            for board, send in answered:
                self.memory.answered(board, send)

    def _hold(self, device: str, session: BoardSession, request: Request) -> None:
        """Answer this report once we know what. Of too many, the oldest never are."""
        self._unanswered.pop(device, None)
        self._unanswered[device] = (session, request)
        if len(self._unanswered) > self._max_unanswered:
            del self._unanswered[next(iter(self._unanswered))]

    def _awaits_time(self) -> bool:
        """We do not know what time it is for the domain service, and it may still tell us: codes
        whose time we misjudge would be left out, or last too long."""
        return (
            not self.outbox.domain_time.known
            and self.bus.connected
            and (self._time_by is None or self._loop.time() < self._time_by)
        )

    async def _connected(self) -> None:
        if self._time_by is None:
            self._time_by = self._loop.time() + TIME_WAIT_S
            self._loop.call_later(TIME_WAIT_S, self._answer_timeless)

    def _answer_timeless(self) -> None:
        self._time_by = 0.0
        timeless, self._timeless = self._timeless, []
        for requests in timeless:
            self.answer(requests)

    def close(self, session: BoardSession) -> None:
        """Close a connection, once what is owed there is answered."""
        self._answer_timeless()
        session.peer.close()

    def refuse(self, session: BoardSession, error: WireError) -> None:
        """Bad input: this connection closes, and what came becomes a dead letter."""
        self.bad_input += 1
        self.bus.dead_letter(SERVICE, error.reason, error.original, peer=session.peer.address)

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
