"""The intake edge: Chromebooks on TCP, jobs on the bus.

A Chromebook says its job, closes at once and gets no answer: what has been read has to be kept.
It goes into the outbox; while that is full, or its disk, what was read waits here and nothing more
is read from anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple

import structlog

from patchbay.bus import Bus
from patchbay.net import Limits, Peer, Server
from patchbay.outbox import Outbox, OutboxFull
from patchbay.runtime import Unit
from patchbay.topics import device_id
from patchbay_allocator.ids import JobIds
from patchbay_allocator.messages import REQUESTED, SERVICE, Rejected, Requested, requested
from patchbay_allocator.settings import AllocatorSettings
from patchbay_allocator.wire.intake import Decoder, Job, Refused
from patchbay_allocator.wire.json_objects import WireError

GATHER_S = 0.005
"""Chromebooks wait for no answer, and each has a connection of its own: without this each job would
cost an fsync (measured: half of all the time)."""

FULL_POLL_S = 0.2
"""How often a full outbox is looked at: the domain empties it by hundreds in that time."""


async def run(unit: Unit) -> None:
    """The unit ``allocator.intake``."""
    settings = unit.settings(AllocatorSettings)
    async with Outbox(
        unit.bus,
        SERVICE,
        unit.state_dir / "outbox" / f"{unit.instance}.sqlite",
        synchronous=settings.outbox_synchronous,
        max_rows=settings.outbox_max_rows,
        max_bytes=settings.outbox_max_bytes,
        in_order=False,
        gather_s=GATHER_S,
    ) as outbox:
        edge = IntakeEdge(unit.bus, outbox)
        limits = Limits(
            settings.max_connections,
            settings.idle_timeout_s,
            ended_grace_s=0,
            max_per_address=settings.max_per_address,
            trusted_proxies=tuple(unit.config.runtime.trusted_proxies),
            max_invalid=unit.config.runtime.max_invalid,
        )
        host, port = unit.config.listen_host(settings.listen_host), unit.config.port(settings.port)
        async with Server(edge.connected, host, port, limits, unit.log, unit.tasks) as server:
            edge.server = server
            unit.info_sources["backlog"] = lambda: outbox.waiting
            unit.info_sources["connections"] = lambda: server.connections
            unit.info_sources["jobs"] = lambda: edge.jobs
            unit.info_sources["bad_input"] = lambda: edge.bad_input
            unit.info_sources["outbox_full"] = lambda: int(outbox.full)
            await unit.serving()


class _Taken(NamedTuple):
    """A job that was read, with the id and the time that it got then."""

    id: str
    time: str
    job: Requested


class IntakeEdge:
    """Turns jobs into events on the bus."""

    def __init__(self, bus: Bus, outbox: Outbox) -> None:
        self.bus = bus
        self.outbox = outbox
        self.server: Server | None = None
        self.jobs = 0
        self.bad_input = 0
        self._ids = JobIds(outbox.domain_time.time)
        self._waiting: deque[_Taken] = deque()
        self._turn = -1
        self._taken: list[_Taken] = []
        self._log = structlog.get_logger("intake").bind(instance=bus.client_id)

    def connected(self, peer: Peer) -> IntakeSession:
        """A Chromebook has connected."""
        return IntakeSession(self, peer)

    def take(self, job: Requested) -> None:
        """Take a job in, for good."""
        self.jobs += 1
        taken = _Taken(self._ids.next(), self.outbox.now(), job)
        if self._waiting or not self._add(taken):
            self._waiting.append(taken)
            self._hold_reading()

    def refuse(self, reason: str, original: bytes, peer: Peer) -> None:
        """What came is no job: it becomes a dead letter."""
        self.bad_input += 1
        self.bus.dead_letter(SERVICE, reason, original, peer=peer.address)

    def _add(self, taken: _Taken) -> bool:
        """Put a job into the outbox; False if there is no room."""
        job = taken.job
        try:
            self.outbox.add(
                device_id(job.ClientName),
                REQUESTED,
                key=taken.id,
                subject=job.ClientName,
                time=taken.time,
                data=job,
            )
        except OutboxFull:
            return False
        if self._turn != self.outbox.turn:
            self._turn, self._taken = self.outbox.turn, []
            self.outbox.after_commit(partial(self._committed, self._taken))
        self._taken.append(taken)
        return True

    def _committed(self, taken: list[_Taken], ok: bool) -> None:
        if not ok:  # nobody would send them again: they are tried until they are written
            self._waiting.extendleft(reversed(taken))
            self._hold_reading()

    def _hold_reading(self) -> None:
        if self.server is not None and not self.server.paused:
            self._log.error("outbox full: not reading", waiting=self.outbox.waiting)
            self.server.pause()
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._go_on)

    def _go_on(self) -> None:
        while self._waiting and self._add(self._waiting[0]):
            self._waiting.popleft()
        if self.server is None:
            return
        if self._waiting or self.outbox.full:
            asyncio.get_running_loop().call_later(FULL_POLL_S, self._go_on)
        else:
            self._log.info("outbox has room: reading again")
            self.server.resume()


class IntakeSession:
    """One connection of a Chromebook: one job and its end, or one job after the other."""

    __slots__ = ("_decoder", "_edge", "_peer")

    def __init__(self, edge: IntakeEdge, peer: Peer) -> None:
        self._edge = edge
        self._peer = peer
        self._decoder = Decoder()

    def received(self, data: bytes) -> None:
        try:
            self._take(self._decoder.feed(data))
        except WireError as error:
            self._take(error.before)
            self._edge.refuse(error.reason, error.original, self._peer)
            self._peer.close()

    def lost(self) -> None:
        try:
            self._decoder.finish()
        except WireError as error:
            self._edge.refuse(error.reason, error.original, self._peer)

    def _take(self, frames: list[Job | Refused]) -> None:
        for frame in frames:
            if isinstance(frame, Refused):
                self._edge.refuse(frame.reason, frame.original, self._peer)
                if self._peer.invalid():
                    return
                continue
            try:
                job = requested(frame.client, frame.customer, frame.color)
            except Rejected as error:
                self._edge.refuse(error.message, frame.original, self._peer)
                if self._peer.invalid():
                    return
            else:
                self._peer.identify()
                self._edge.take(job)
