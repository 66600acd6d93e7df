"""The UART edge: frames of the root become events on the bus, commands become bytes for the root.

The line has no answer that says "it is safe": what it said is safe from the commit of the outbox
on, milliseconds later. It cannot be told to wait either: a full outbox gives up the oldest data.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

import structlog

from patchbay.bus import Bus, Commands, Request
from patchbay.bus import Message as BusMessage
from patchbay.bus.commands import Command as BusCommand
from patchbay.errors import OutcomeUnknown
from patchbay.forms import MSGPACK_FORM
from patchbay.outbox import Outbox, OutboxFull
from patchbay.rate import TokenBucket
from patchbay.runtime import Unit
from patchbay_mesh.edge.line import CutOff, Line, NotReady
from patchbay_mesh.messages import (
    DATA,
    MESSAGE,
    NETWORK,
    ROOT,
    SERVICE,
    Data,
    Member,
    Message,
    Network,
    Raw,
    Rejected,
    Send,
    Value,
    from_hex,
    node_device,
    type_name,
)
from patchbay_mesh.settings import MeshSettings, serial_port
from patchbay_mesh.wire import content, opcodes
from patchbay_mesh.wire.uart import (
    COMMANDS,
    MAX_MESSAGE,
    OPCODE_BYTES,
    TO_A_NODE,
    TYPE_BYTES,
    Command,
    Decoder,
    Frame,
    WireError,
    encode_command,
    encode_raw,
)

GATHER_ROWS: Final = 500
"""Frames that are committed without waiting for more."""

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"


async def run(unit: Unit) -> None:
    """The unit ``mesh.uart``."""
    settings = unit.settings(MeshSettings)
    url = serial_port(unit.config)
    async with Outbox(
        unit.bus,
        SERVICE,
        unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
        synchronous=settings.outbox_synchronous,
        max_rows=settings.outbox_max_rows,
        max_bytes=settings.outbox_max_bytes,
        gather_s=settings.outbox_gather_s,
        gather_rows=GATHER_ROWS,
        form=MSGPACK_FORM,
        sheds=(DATA,),
    ) as outbox:
        edge = UartEdge(unit.bus, outbox, settings)
        unit.info_sources["backlog"] = lambda: outbox.waiting
        unit.info_sources["connections"] = lambda: int(edge.ready)
        unit.info_sources["frames"] = lambda: edge.frames
        unit.info_sources["bytes_outside_frames"] = lambda: edge.skipped
        unit.info_sources["frames_dropped"] = lambda: edge.dropped
        unit.info_sources["bad_content"] = lambda: edge.bad_content
        unit.info_sources["telemetry_given_up"] = lambda: outbox.shed
        unit.info_sources["refused"] = lambda: edge.refused
        unit.info_sources["port_losses"] = lambda: edge.line.losses if edge.line else 0
        unit.info_sources["silent_s"] = lambda: edge.silent_s
        unit.bus.progress.watch("root", lambda: edge.silent, lambda: ROOT)
        running = None
        if url is None:
            unit.log.warning("no serial port is named: nothing is read (setting serial)")
        else:
            running = unit.spawn(edge.open(url).run(), "line")
            unit.spawn(edge.watch_silence(), "silence of the root")
        await unit.serving()
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


class UartEdge:
    """Between one line and the bus."""

    def __init__(self, bus: Bus, outbox: Outbox, settings: MeshSettings) -> None:
        self.line: Line | None = None
        self.frames = 0
        self.bad_content = 0
        """Frames of a type that we handle which do not fit it."""
        self.refused = 0
        """Frames that could not be kept: the outbox is full of messages, or its disk is."""
        self._bus = bus
        self._outbox = outbox
        self._settings = settings
        self._opcodes = opcodes.Opcodes(settings.data_ids) if settings.types == "opcodes" else None
        self._decoder = self._new_decoder()
        self._skipped = self._dropped = 0
        self._refusals = TokenBucket(0.1, 1)
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self.silent = False
        """The root has sent nothing for ``root_silence_s`` while its port was open."""
        self._status_topic = bus.topics.status(SERVICE, ROOT)
        self._log = structlog.get_logger("uart").bind(instance=bus.client_id)
        bus.listen(self._status_topic, self._status_said)
        bus.keep(self._status_topic, OFFLINE)
        expires_s = settings.command_timeout_s  # by then whoever asked was told that it is not sent
        Commands(
            bus,
            SERVICE,
            {
                "send": BusCommand(
                    Send, self._send, moves=True, confirms=True, expires_s=expires_s
                ),
                "raw": BusCommand(Raw, self._raw, moves=True, confirms=True, expires_s=expires_s),
            },
            device=ROOT,
            cancels=True,
        )

    def open(self, url: str) -> Line:
        """The line at this port; the caller runs it."""
        settings = self._settings
        self.line = Line(
            self,
            url,
            settings.baud,
            reconnect_s=(settings.reconnect_initial_s, settings.reconnect_max_s),
            write_timeout_s=settings.write_timeout_s,
            write_queue=settings.write_queue,
            dead_after_s=settings.dead_after_s,
            dtr=settings.dtr,
            rts=settings.rts,
        )
        return self.line

    @property
    def ready(self) -> bool:
        """Is the port open?"""
        return self.line is not None and self.line.ready

    @property
    def skipped(self) -> int:
        """Bytes outside of frames since the start: boot logs."""
        return self._skipped + self._decoder.skipped

    @property
    def dropped(self) -> int:
        """Frames that were none, since the start."""
        return self._dropped + self._decoder.dropped

    # What the line says

    def opened(self) -> None:
        self._heard_at = self._loop.time()
        self._tell_status()

    def closed(self, why: str) -> None:
        self._log.info("the root is away", why=why)
        self._skipped = self.skipped
        self._dropped = self.dropped + int(self._decoder.unfinished)
        self._decoder = self._new_decoder()
        self._tell_status()

    def received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        frames = self._decoder.feed(data)
        if not frames:
            return
        time = self._outbox.now()
        self.frames += len(frames)
        for frame in frames:
            try:
                self._take(frame, time)
            except WireError as error:
                self.bad_content += 1
                self._bus.dead_letter(SERVICE, str(error), frame.content, peer=self._port)
            except OutboxFull as error:
                self.refused += 1
                if self._refusals.take():
                    self._log.error("frames are lost", why=str(error), all=self.refused)

    def _new_decoder(self) -> Decoder:
        type_bytes = TYPE_BYTES if self._opcodes is None else OPCODE_BYTES
        return Decoder(self._settings.escape_xor, type_bytes)

    def _take(self, frame: Frame, time: str) -> None:
        parsed = content.parse(frame) if self._opcodes is None else self._opcodes.parse(frame)
        match parsed:
            case content.Data(node, values):
                name, device = DATA, node_device(node)
                data: Any = Data(node, [Value(type_name(one.type), one.data) for one in values])
            case content.Members(nodes):
                name, device = NETWORK, ROOT
                data = Network([Member(node, uuid.hex()) for node, uuid in nodes])
            case content.Passed(passed, restarted):
                name, device = MESSAGE, node_device(passed.node)
                data = Message(passed.node, type_name(passed.type), passed.payload, restarted)
        self._outbox.add(device, name, subject=device, time=time, data=data)

    # What the bus says

    async def _send(self, request: Request, body: Send) -> dict[str, Any]:
        """A command in our own words. Refused: bad_command, bad_hex, serial_not_ready."""
        settings = self._settings
        data = encode_command(_command(body), settings.tx_framing, settings.escape_xor)
        return await self._write(request, data)

    async def _raw(self, request: Request, body: Raw) -> dict[str, Any]:
        """Bytes as they stand. Refused: bad_hex, serial_not_ready."""
        settings = self._settings
        raw = encode_raw(from_hex(body.hex), settings.tx_framing, settings.escape_xor)
        return await self._write(request, raw)

    async def _write(self, request: Request, data: bytes) -> dict[str, Any]:
        """Write, once whoever sent the request has confirmed it: within ``start_deadline_s`` of our
        own question, by our own clock, or not at all."""
        if self.line is None:
            raise Rejected("serial_not_ready", "no serial port is named")
        if not self.line.ready:
            raise Rejected("serial_not_ready", f"{self.line.url} is not open")
        within_s = self._settings.start_deadline_s
        asked_at = time.monotonic()
        await request.confirm(within_s)
        try:
            await self.line.send(data, asked_at + within_s - time.monotonic())
        except NotReady as error:
            raise Rejected("serial_not_ready", str(error)) from error
        except CutOff as error:
            raise OutcomeUnknown(request.envelope_id, str(error)) from error
        return {"bytes": len(data)}

    # Silence

    @property
    def silent_s(self) -> int:
        """Whole seconds since the root sent something, or its port was opened. 0: it is closed."""
        return int(self._loop.time() - self._heard_at) if self.ready else 0

    async def watch_silence(self) -> None:
        """Report a root that sends nothing for ``root_silence_s``, and that it sends again."""
        limit_s = self._settings.root_silence_s
        while True:
            await asyncio.sleep(min(1.0, limit_s / 4))
            silent = self.ready and self._loop.time() - self._heard_at >= limit_s
            if silent == self.silent:
                continue
            self.silent = silent
            if silent:
                self._log.warning("root silent", port=self._port, silent_s=self.silent_s)
            else:
                self._log.info("root no longer silent", port=self._port)

    # The status of the root

    @property
    def _port(self) -> str:
        return self.line.url if self.line is not None else ""

    def _tell_status(self) -> None:
        self._bus.keep(self._status_topic, ONLINE if self.ready else OFFLINE)

    def _status_said(self, message: BusMessage) -> None:
        """The domain says ``offline`` for an edge that was killed; we are here again."""
        message.ack()
        if self.ready and message.payload != ONLINE:
            self._tell_status()


def _command(body: Send) -> Command:
    """The command to the root that is asked for. Raises Rejected (bad_command, bad_hex)."""
    name = body.command.encode()
    addressed = COMMANDS.get(name)
    if addressed is None:
        known = ", ".join(one.decode() for one in COMMANDS)
        raise Rejected("bad_command", f"{body.command!r}: there are {known}; or use raw")
    if body.hex is not None and body.text is not None:
        raise Rejected("bad_command", "either hex or text, not both")
    if not addressed:
        if body.hex or body.text or body.node is not None:
            raise Rejected("bad_command", f"{body.command} has neither node nor message")
        return Command(name)
    message = from_hex(body.hex) if body.hex is not None else (body.text or "").encode()
    if len(message) > MAX_MESSAGE:
        raise Rejected("bad_command", f"{len(message)} bytes: a message has at most {MAX_MESSAGE}")
    if name != TO_A_NODE:
        return Command(name, 0, message)
    if body.node is None:
        raise Rejected("bad_command", f"{body.command} needs a node")
    return Command(name, body.node, message)
