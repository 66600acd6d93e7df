"""What is looked up when somebody asks: backlogs, connections, what units say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import patchbay
from patchbay.bus import Bus
from patchbay.messages import now, parse_time
from patchbay.metrics.meter import LABELS
from patchbay.progress import Verdict


class Measured(Protocol):
    """A unit, as far as it is measured here."""

    name: str
    instance: str
    bus: Bus
    verdict: Verdict
    info_sources: dict[str, Callable[[], int]]


class UnitCollector(Collector):
    """All units of a process."""

    def __init__(self, units: Iterable[Measured]) -> None:
        self._units = list(units)

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected before somebody asks: a role may not be set up yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        info = _gauge("patchbay_info", "1, with the version.", "version")
        online = _gauge("patchbay_online", "1 while the unit is connected and has said so.")
        waiting = _gauge("patchbay_outbox_events", "Events that no domain has persisted yet.")
        oldest = _gauge("patchbay_outbox_oldest_age_seconds", "Age of the oldest of them; 0: none.")
        backlog = _gauge("patchbay_backlog", "As in the unit's info: what waits for its next hand.")
        devices = _gauge("patchbay_device_connections", "Devices connected now.")
        detail = _gauge("patchbay_detail", "Numbers of the unit's own, as in its info.", "name")
        state = _gauge(
            "patchbay_progress", "1 for the state that the unit is in.", "state", "cause"
        )
        reconnects = _counter("patchbay_broker_reconnects", "Connections to the broker that ended.")
        letters = _counter("patchbay_dead_letters", "What could not be handled.")
        for unit in self._units:
            labels = [unit.name, unit.instance]
            info.add_metric([*labels, patchbay.__version__], 1)
            online.add_metric(labels, unit.bus.online)
            verdict = unit.verdict
            state.add_metric([*labels, verdict.state, verdict.cause or verdict.what], 1)
            reconnects.add_metric(labels, unit.bus.reconnects)
            letters.add_metric(labels, unit.bus.dead_letters)
            if unit.bus.backlogs:
                waiting.add_metric(labels, sum(one.waiting for one in unit.bus.backlogs))
                oldest.add_metric(labels, _age_s(one.oldest() for one in unit.bus.backlogs))
            numbers = _numbers(unit)
            for name, family in (("backlog", backlog), ("connections", devices)):
                if name in numbers:
                    family.add_metric(labels, numbers.pop(name))
            for name, number in numbers.items():
                detail.add_metric([*labels, name], number)
        yield from (
            info,
            online,
            state,
            reconnects,
            letters,
            waiting,
            oldest,
            backlog,
            devices,
            detail,
        )


def _numbers(unit: Measured) -> dict[str, int]:
    numbers = {}
    for name, source in list(unit.info_sources.items()):
        try:
            numbers[name] = source()
        except Exception:  # noqa: S112  the unit logs it for its info; here it is a number less
            continue
    return numbers


def _age_s(times: Iterable[str | None]) -> float:
    moments = [parse_time(one) for one in times if one is not None]
    return max((now() - min(moments)).total_seconds(), 0.0) if moments else 0.0


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[*LABELS, *more])


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=list(LABELS))
