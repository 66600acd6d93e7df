"""The GUIs' edge: messages on WebSocket become commands, and what happens becomes status.

It decides nothing: whether something may be poured, the scheduler says. An emergency stop goes to
the pumps themselves, and to the scheduler too. GUIs count down by our own clock, so that they reach
0 whoever is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from patchbay.bus import Bus, Message
from patchbay.errors import OutcomeUnknown, Rejected, TooLarge, Unavailable
from patchbay.hosts import hosts_of
from patchbay.messages import Event, Failure, decode, encode, new_id
from patchbay.runtime import Unit
from patchbay.settings import RuntimeSettings
from patchbay.websocket import Client, Limits, WebSocketServer
from patchbay_bartender import messages
from patchbay_bartender.edge.countdown import Countdown
from patchbay_bartender.messages import (
    SERVICE,
    Configure,
    Configured,
    Failed,
    Progress,
    State,
    pumps_device,
)
from patchbay_bartender.settings import BartenderSettings
from patchbay_bartender.wire import gui as wire

NO_ERROR: Final = ("stopped", "pumps_lost")
"""How a run ends without an error: somebody has stopped it, or nobody knows whether it pours."""

MAX_ASKED: Final = 16
"""Commands of one GUI that wait for their answers: a person has two hands."""

MAX_ORDERS: Final = 64
"""Requests whose GUI is remembered, to be told if one fails."""

AWAY = "the scheduler does not answer"
ALL_TAKEN = "all connections are taken: only stop is accepted here"

_state = msgspec.json.Decoder(State)
_progress = msgspec.json.Decoder(Progress)
_event = msgspec.json.Decoder(Event)


class _Answer(Struct):
    ok: bool
    error: Failure | None = None


class _Order:
    """A request of a GUI. ``settled``: the GUI has been told how it failed."""

    def __init__(self, session: GuiSession) -> None:
        self.session = session
        self.settled = False

    def fail(self, code: str, reason: str) -> None:
        """It has failed, as its answer or an event says: one error is enough."""
        if not self.settled and code not in NO_ERROR:
            self.session.send(wire.Error(reason))
        self.settled = True


_answer = msgspec.json.Decoder(_Answer)


async def run(unit: Unit) -> None:
    """The unit ``bartender.gui``."""
    settings = unit.settings(BartenderSettings)
    edge = GuiEdge(unit.bus, settings.bar, settings.answer_s)
    server = WebSocketServer(
        edge.connected,
        host=unit.listen_host,
        port=unit.config.port(settings.port),
        limits=limits_of(settings, unit.config.runtime),
        log=unit.log,
        origins=settings.origins,
        hosts=hosts_of(settings.hosts, settings.origins),
    )
    async with server:
        edge.server = server
        unit.info_sources["connections"] = lambda: server.connections
        unit.info_sources["bad_input"] = lambda: edge.bad_input
        unit.info_sources["refused"] = lambda: server.refused
        unit.info_sources["evicted"] = lambda: server.evicted
        try:
            await unit.serving()
        finally:
            edge.close()


def limits_of(settings: BartenderSettings, runtime: RuntimeSettings) -> Limits:
    """What the port of the GUIs puts up with."""
    return Limits(
        max_connections=settings.max_connections,
        max_per_address=settings.max_per_address,
        trusted_proxies=tuple(runtime.trusted_proxies),
        reserved=settings.reserved_connections,
        reserved_s=settings.reserved_s,
        max_message_bytes=settings.max_message_bytes,
        write_buffer_bytes=settings.write_buffer_bytes,
        max_invalid=runtime.max_invalid,
    )


class GuiEdge:
    """All GUIs of one bar. Make it before the bus connects."""

    def __init__(self, bus: Bus, bar: str, answer_s: float) -> None:
        self.bus = bus
        self.server: WebSocketServer | None = None
        self.bad_input = 0
        self.countdown = Countdown(lambda seconds: self.broadcast(wire.Status(seconds)))
        self.state: State | None = None
        """What the scheduler last said."""
        self._bar = bar
        self._answer_s = answer_s
        self._orders: dict[str, _Order] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.log = structlog.get_logger("gui").bind(instance=bus.client_id)
        topics = bus.topics
        bus.listen(topics.state(SERVICE, bar), self._said)
        bus.listen(topics.event(SERVICE, bar, "progress"), self._progressed)
        bus.listen(topics.event(SERVICE, bar, "configured"), self._configured)
        bus.listen(topics.event(SERVICE, bar, "failed"), self._failed)

    def connected(self, client: Client) -> GuiSession:
        """A GUI has connected."""
        return GuiSession(self, client)

    def broadcast(self, answer: wire.Answer) -> None:
        """Say it to every GUI."""
        if self.server is not None:
            self.server.broadcast(wire.encode(answer))

    def close(self) -> None:
        """We go."""
        self.countdown.close()
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work for a GUI that goes on while others are served."""
        task = self.bus.tasks.spawn(work, "command of a GUI", failed=self._command_failed)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _command_failed(self, error: Exception) -> None:
        self.log.error("command of a GUI failed", exc_info=error)

    # To the bus

    async def ask(self, name: str, body: Struct, request: str) -> None:
        """Ask the scheduler. Raises Rejected, Unavailable, OutcomeUnknown."""
        if not self.bus.connected:
            raise Unavailable(AWAY)
        topic = self.bus.topics.command(SERVICE, self._bar, name)
        try:
            payload = await self.bus.request(
                topic,
                encode(body),
                timeout_s=self._answer_s,
                expiry_s=math.ceil(self._answer_s),
                actuates=True,
                id=request,
            )
            answer = decode(_answer, payload)
        except (TimeoutError, Unavailable, msgspec.DecodeError) as error:
            raise Unavailable(AWAY) from error
        if not answer.ok:
            failure = answer.error or Failure("refused", "refused without a reason")
            raise Rejected(failure.code, failure.message)

    def stop(self, by: str) -> None:
        """Everything off, now: straight to the pumps. Raises Unavailable."""
        topics = self.bus.topics
        payload = encode(messages.Stop(by=by))
        self.bus.post(topics.command(SERVICE, pumps_device(self._bar), "stop"), payload)
        self.bus.post(topics.command(SERVICE, self._bar, "stop"), payload)

    def ordered(self, request: str, session: GuiSession) -> _Order:
        """This GUI requests something: it is told if that fails."""
        order = self._orders[request] = _Order(session)
        while len(self._orders) > MAX_ORDERS:
            del self._orders[next(iter(self._orders))]
        return order

    # From the bus

    def _said(self, message: Message) -> None:
        message.ack()
        try:
            state = decode(_state, message.payload)
        except msgspec.DecodeError as error:
            self.log.warning("no state", topic=message.topic, error=str(error))
            return
        self.state = state
        if state.run_id is None:
            self.countdown.idle()
        elif message.retain:  # as old as it may be
            self.countdown.found(state.run_id, state.remaining)
        else:
            self.countdown.busy(state.run_id, state.remaining)

    def _progressed(self, message: Message) -> None:
        message.ack()
        with contextlib.suppress(msgspec.DecodeError):
            progress = decode(_progress, message.payload)
            self.countdown.about(progress.run_id, progress.remaining)

    def _configured(self, message: Message) -> None:
        message.ack()
        told = _data(message, Configured)
        if told is None:
            return
        pumps = _pumps(told.pumps)
        match told.what:
            case "pumps_states":
                self.broadcast(wire.PumpsStates(pumps))
            case "config":
                self.broadcast(wire.Config(pumps, told.sec_per_liter))
            case "sec_per_liter":
                self.broadcast(wire.SecPerLiter(told.sec_per_liter))

    def _failed(self, message: Message) -> None:
        """Whoever has requested it is told why."""
        message.ack()
        failed = _data(message, Failed)
        order = self._orders.get(failed.request) if failed is not None else None
        if failed is not None and order is not None:
            order.fail(failed.code, failed.reason)


class GuiSession:
    """One GUI."""

    __slots__ = ("_asked", "_client", "_decoder", "_edge")

    def __init__(self, edge: GuiEdge, client: Client) -> None:
        self._edge = edge
        self._client = client
        self._decoder = wire.Decoder()
        self._asked = 0

    def received(self, message: str | bytes) -> None:
        try:
            frames = self._decoder.feed(message)
        except wire.WireError as error:
            self._edge.bad_input += 1
            self.send(wire.Error(str(error)))
            self._client.invalid()
            return
        for frame in frames:
            if self._client.identify() or isinstance(frame, wire.Stop):
                self._handle(frame)
            else:
                self.send(wire.Error(ALL_TAKEN))

    def lost(self) -> None:
        """A GUI that leaves changes nothing: what it has ordered is poured."""

    def send(self, answer: wire.Answer) -> None:
        """Say it to this GUI."""
        self._client.send(wire.encode(answer))

    def _handle(self, frame: wire.Frame) -> None:
        by = f"gui {self._client.address}"
        match frame:
            case wire.Echo():
                self.send(frame)
            case wire.Blend(cup_size, ratios):
                self._ask("blend", messages.Blend(cup_size=cup_size, ratios=ratios, by=by))
            case wire.Refill(pump):
                self._ask("refill", messages.Refill(pump=pump, by=by))
            case wire.Stop():
                self._stop(by)
            case wire.GetBlendStatus():
                self.send(wire.Status(self._edge.countdown.remaining))
            case wire.SetPump(pump, enabled, refill_time, speed_ratio):
                wanted = Configure(
                    pump=pump,
                    enabled=enabled,
                    refill_time=refill_time,
                    speed_ratio=speed_ratio,
                    by=by,
                )
                self._ask("configure", wanted)
            case wire.SetSecPerLiter(sec_per_liter):
                self._ask("configure", Configure(sec_per_liter=sec_per_liter, by=by))
            case wire.ReloadConfig():
                self._ask("configure", Configure(by=by))
            case wire.GetConfig() | wire.GetPumpsStates():
                self._show(frame)

    def _stop(self, by: str) -> None:
        try:
            self._edge.stop(by)
        except Unavailable:
            self.send(wire.Error("the bus is away: what runs ends at its time"))

    def _show(self, frame: wire.GetConfig | wire.GetPumpsStates) -> None:
        state = self._edge.state
        if state is None:
            self.send(wire.Error(AWAY))
        elif isinstance(frame, wire.GetConfig):
            self.send(wire.Config(_pumps(state.pumps), state.sec_per_liter))
        else:
            self.send(wire.PumpsStates(_pumps(state.pumps)))

    def _ask(self, name: str, body: Struct) -> None:
        if self._asked >= MAX_ASKED:
            self.send(wire.Error("too much at once"))
            return
        self._asked += 1
        self._edge.spawn(self._asking(name, body))

    async def _asking(self, name: str, body: Struct) -> None:
        """Send a command, and its error to the GUI. One that was confirmed by us gets no error for
        a missing answer: it may be carried out. `event/failed` says whether a run has failed."""
        request = new_id()
        order = self._edge.ordered(request, self)
        try:
            await self._edge.ask(name, body, request)
        except OutcomeUnknown as unknown:
            self._edge.log.warning("outcome unknown", request=request, why=unknown.why)
        except Rejected as error:
            order.fail(error.code, error.message)
            if (
                error.code == "stopped"
            ):  # before it began: nothing else tells this GUI that it is over
                self.send(wire.Status(self._edge.countdown.remaining))
        except (Unavailable, TooLarge) as error:
            order.fail("unavailable", str(error))
        finally:
            self._asked -= 1


def _data(message: Message, kind: type[Any]) -> Any:
    """The data of an event, or None: anybody may publish anything there."""
    try:
        return msgspec.json.decode(decode(_event, message.payload).data, type=kind)
    except msgspec.DecodeError:
        return None


def _pumps(shown: list[messages.Pump]) -> tuple[wire.PumpState, ...]:
    return tuple(wire.PumpState(one.enabled, one.refill_time, one.speed_ratio) for one in shown)
