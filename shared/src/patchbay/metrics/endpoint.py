"""``GET /metrics``: the numbers of all units of this process.

A small answer to a small request, on the loop that the units run on: no thread looks into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from patchbay.bus.meter import Meter
from patchbay.log import Logger
from patchbay.metrics.collector import Measured, UnitCollector
from patchbay.metrics.meter import Counters, UnitMeter
from patchbay.net import Limits, Peer, Server

MAX_REQUEST: Final = 8192
"""Bytes of a request's head: a scraper's has some 300."""

LIMITS: Final = Limits(max_connections=32, idle_timeout_s=10.0)
"""A few scrapers, and a person with a browser."""

PATH: Final = "/metrics"


class Metrics:
    """The numbers of one process. ``async with`` serves them."""

    def __init__(self, host: str, port: int, log: Logger) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._counters = Counters(self._registry)
        self._server = Server(lambda peer: _Session(self, peer), host, port, LIMITS, log)

    @property
    def port(self) -> int:
        """The port that is served: the real one when it was asked for 0."""
        return self._server.port

    def meter(self, unit: str, instance: str, root: str) -> Meter:
        """What counts for this unit."""
        return UnitMeter(self._counters, root, unit, instance)

    def watch(self, units: Sequence[Measured]) -> None:
        """Look at these units when somebody asks."""
        self._registry.register(UnitCollector(units))

    def text(self) -> bytes:
        """All numbers, in the text format of Prometheus."""
        return generate_latest(self._registry)

    async def __aenter__(self) -> Self:
        """Raises Unavailable if the port cannot be had."""
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()


class _Session:
    """One connection: one request, one answer, and it is closed."""

    def __init__(self, metrics: Metrics, peer: Peer) -> None:
        self._metrics = metrics
        self._peer = peer
        self._head = b""

    def received(self, data: bytes) -> None:
        if self._peer.closing:
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._answer(self._head.partition(b"\r\n")[0].split(b" "))
        elif len(self._head) > MAX_REQUEST:
            self._send("431 Request Header Fields Too Large", b"")

    def lost(self) -> None:
        """Nothing is owed to who has gone."""

    def _answer(self, request: Sequence[bytes]) -> None:
        match request:
            case [b"GET", target, _] if target.partition(b"?")[0] == PATH.encode():
                self._send("200 OK", self._metrics.text())
            case [b"GET", _, _]:
                self._send("404 Not Found", f"the numbers are at {PATH}\n".encode())
            case [_, _, _]:
                self._send("405 Method Not Allowed", b"")
            case _:
                self._send("400 Bad Request", b"")

    def _send(self, status: str, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._peer.write(head.encode() + body)
        self._peer.close()
