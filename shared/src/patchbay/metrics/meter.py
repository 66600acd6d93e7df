"""What is counted as it happens: messages, and how long they take."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

LABELS: Final = ("unit", "instance_id")
"""Of every number: ``locker.edge``, ``locker-edge-pi1``. ``instance`` is set by Prometheus."""

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: from a callback to a message that waited for a store."""

DEVICE_KINDS: Final = frozenset({"event", "cmd", "state", "desired", "status"})
UNIT_KINDS: Final = frozenset({"status", "ack", "reply", "confirm", "fence", "dead"})
OTHER: Final = "other"


class Counters:
    """The metrics of one process; each unit has a `UnitMeter` of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = (*LABELS, "kind")
        self.received = Counter(
            "patchbay_messages_received",
            "Messages from the broker, by the kind of their topic.",
            labels,
            registry=registry,
        )
        self.sent = Counter(
            "patchbay_messages_sent",
            "Messages to the broker, by the kind of their topic.",
            labels,
            registry=registry,
        )
        self.handling = Histogram(
            "patchbay_message_handling_seconds",
            "From a message's arrival to its acknowledgement, when what it says is safe.",
            labels,
            buckets=BUCKETS,
            registry=registry,
        )


class UnitMeter:
    """A `patchbay.bus.meter.Meter` of one unit."""

    def __init__(self, counters: Counters, root: str, unit: str, instance: str) -> None:
        self._root = f"{root}/"
        self._counters = counters
        self._labels = (unit, instance)
        self._sent: dict[str, Counter] = {}
        self._received: dict[str, Counter] = {}
        self._handling: dict[str, Histogram] = {}

    def sent(self, topic: str) -> None:
        kind = self._kind(topic)
        child = self._sent.get(kind)
        if child is None:
            child = self._sent[kind] = self._counters.sent.labels(*self._labels, kind)
        child.inc()

    def received(self, topic: str) -> None:
        kind = self._kind(topic)
        child = self._received.get(kind)
        if child is None:
            child = self._received[kind] = self._counters.received.labels(*self._labels, kind)
        child.inc()

    def handled(self, topic: str, seconds: float) -> None:
        kind = self._kind(topic)
        child = self._handling.get(kind)
        if child is None:
            child = self._handling[kind] = self._counters.handling.labels(*self._labels, kind)
        child.observe(seconds)

    def _kind(self, topic: str) -> str:
        """One of few words, whatever devices call themselves."""
        if not topic.startswith(self._root):
            return OTHER
        levels = topic[len(self._root) :].split("/", 3)
        if len(levels) > 2 and levels[2] in DEVICE_KINDS:
            return levels[2]
        return levels[0] if levels[0] in UNIT_KINDS else OTHER
