"""The numbers of a real unit, asked for as Prometheus does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from patchbay.bus import Bus
from patchbay.errors import Unavailable
from patchbay.log import get_logger
from patchbay.metrics.endpoint import MAX_REQUEST, Metrics
from patchbay.metrics.meter import Counters, UnitMeter
from patchbay.outbox import Outbox
from patchbay.progress import Verdict
from patchbay.testing import (
    PATIENCE_S,
    MakeBus,
    Part,
    Seen,
    broker_settings,
    eventually,
    free_port,
    until,
)
from patchbay.topics import Topics

LOG = get_logger("test")
LABELS = {"unit": "gate.edge", "instance_id": "gate-edge-x"}


class Unit:
    """What is measured of a unit."""

    def __init__(self, bus: Bus) -> None:
        self.name = "gate.edge"
        self.instance = "gate-edge-x"
        self.bus = bus
        self.info_sources: dict[str, Any] = {}
        self.verdict = Verdict()


class Measured:
    """An endpoint and the unit that it measures."""

    def __init__(self, metrics: Metrics, bus: Bus, outbox: Outbox) -> None:
        self.metrics = metrics
        self.bus = bus
        self.outbox = outbox
        self.unit = Unit(bus)

    async def numbers(self) -> dict[tuple[str, str], float]:
        """(name, kind or other label) -> value, of what ours are."""
        text = (await ask(self.metrics.port)).partition(b"\r\n\r\n")[2].decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("patchbay_"):
                    more = {k: v for k, v in sample.labels.items() if k not in LABELS}
                    assert LABELS.items() <= sample.labels.items()
                    found[sample.name, ",".join(more.values())] = sample.value
        return found


@pytest.fixture
async def measured(mosquitto: Part, tmp_path: Path) -> AsyncIterator[Measured]:
    async with Metrics("127.0.0.1", 0, LOG) as metrics:
        bus = Bus(
            broker_settings(mosquitto.port),
            client_id="gate-edge-x",
            topics=Topics(),
            meter=metrics.meter("gate.edge", "gate-edge-x", "patchbay"),
        )
        async with Outbox(bus, "gate", tmp_path / "outbox.sqlite") as outbox:
            measured = Measured(metrics, bus, outbox)
            metrics.watch([measured.unit])
            yield measured
        await bus.stop()


async def ask(port: int, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer


async def test_messages_are_counted_by_what_they_are(measured: Measured) -> None:
    seen = Seen()
    measured.bus.subscribe("patchbay/gate/+/desired", seen.take)
    measured.bus.start()
    await measured.bus.set_ready()
    await measured.bus.wait_online(PATIENCE_S)
    for number in range(3):
        await measured.bus.publish("patchbay/gate/7/desired", b"%d" % number)
    await until(lambda: len(seen) == 3)
    numbers = await measured.numbers()
    assert numbers["patchbay_online", ""] == 1
    assert numbers["patchbay_messages_sent_total", "desired"] == 3
    assert numbers["patchbay_messages_received_total", "desired"] == 3
    assert numbers["patchbay_message_handling_seconds_count", "desired"] == 3
    assert 0 < numbers["patchbay_message_handling_seconds_sum", "desired"] < 20
    assert numbers["patchbay_messages_sent_total", "status"] >= 1


async def test_a_message_is_handled_when_it_is_acknowledged_and_not_before(
    measured: Measured,
) -> None:
    held: list[Any] = []
    measured.bus.listen("patchbay/gate/+/cmd/+", held.append)
    async with measured.bus:
        await measured.bus.wait_connected(PATIENCE_S)
        await measured.bus.publish("patchbay/gate/7/cmd/open", b"")
        await until(lambda: held)
        assert ("patchbay_message_handling_seconds_count", "cmd") not in await measured.numbers()
        held[0].ack()
        assert (await measured.numbers())["patchbay_message_handling_seconds_count", "cmd"] == 1


async def test_what_waits_in_the_outbox_and_for_how_long(measured: Measured) -> None:
    numbers = await measured.numbers()
    assert numbers["patchbay_outbox_events", ""] == 0
    assert numbers["patchbay_outbox_oldest_age_seconds", ""] == 0
    for time in ("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"):
        measured.outbox.add("7", "passed", key=time, subject="7", time=time, data={})
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    measured.outbox.after_commit(done.set_result)
    assert await asyncio.wait_for(done, PATIENCE_S)
    numbers = await measured.numbers()
    assert numbers["patchbay_outbox_events", ""] == 2
    assert numbers["patchbay_outbox_oldest_age_seconds", ""] > 86_400 * 30


async def test_reconnects_and_dead_letters_are_counted(measured: Measured, mosquitto: Part) -> None:
    measured.bus.start()
    await measured.bus.wait_connected(PATIENCE_S)
    mosquitto.kill()
    await until(lambda: measured.bus.reconnects == 1)
    measured.bus.dead_letter("gate", "nonsense", b"x")
    numbers = await measured.numbers()
    assert numbers["patchbay_broker_reconnects_total", ""] == 1
    assert numbers["patchbay_dead_letters_total", ""] == 1
    assert numbers["patchbay_online", ""] == 0


async def test_what_the_unit_says_of_itself_is_there_and_a_broken_number_is_left_out(
    measured: Measured,
) -> None:
    measured.unit.info_sources |= {
        "backlog": lambda: 4,
        "connections": lambda: 5,
        "boards": lambda: 6,
        "broken": lambda: 1 // 0,
    }
    numbers = await measured.numbers()
    assert numbers["patchbay_backlog", ""] == 4
    assert numbers["patchbay_device_connections", ""] == 5
    assert numbers["patchbay_detail", "boards"] == 6
    assert ("patchbay_detail", "broken") not in numbers


async def test_without_a_meter_nothing_is_wrapped(make_bus: MakeBus) -> None:
    bus = make_bus("plain")
    taken: list[Any] = []
    bus.listen("patchbay/x/y/state", taken.append)
    async with bus:
        await bus.wait_connected(PATIENCE_S)
        await bus.publish("patchbay/x/y/state", b"")
        await until(lambda: taken)
    assert "Router._measured" not in repr(taken[0].acknowledge)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"x" * (MAX_REQUEST + 1), b"431 Request Header Fields Too Large"),
    ],
)
async def test_a_request_is_answered_once_and_the_connection_closed(
    measured: Measured, request_: bytes, status: bytes
) -> None:
    answer = await ask(measured.metrics.port, request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head


async def test_a_request_in_pieces_is_one(measured: Measured) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", measured.metrics.port)
    for piece in (b"GET /met", b"rics HTTP/1.1\r", b"\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_port_that_is_taken_is_said_in_one_line(measured: Measured) -> None:
    taken = Metrics("127.0.0.1", measured.metrics.port, LOG)
    with pytest.raises(Unavailable, match="the port is in use"):
        await taken.__aenter__()


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("root/a/b/event/c", "event"),
        ("root/a/b/state", "state"),
        ("root/status/x", "status"),
        ("root/status/x/info", "status"),
        ("root/ack/x", "ack"),
        ("root/a/b/c", "other"),
        ("root/anything", "other"),
        ("elsewhere/a/b/event/c", "other"),
    ],
)
def test_a_topic_is_of_one_of_few_kinds(topic: str, kind: str) -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    meter = UnitMeter(Counters(registry), "root", "a.edge", "a-edge-x")
    meter.sent(topic)
    labels = {"unit": "a.edge", "instance_id": "a-edge-x", "kind": kind}
    assert registry.get_sample_value("patchbay_messages_sent_total", labels) == 1


@pytest.fixture
def both_units(tmp_path: Path, mosquitto: Part) -> Iterator[int]:
    """A process that runs two units; the port of its numbers."""
    clean = {key: text for key, text in os.environ.items() if not key.startswith("PATCHBAY_")}
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "patchbay.runtime", "locker", "--instance", "x"],
        env={
            **clean,
            "PATCHBAY_BROKER__PORT": str(mosquitto.port),
            "PATCHBAY_RUNTIME__STATE_DIR": str(tmp_path / "state"),
            "PATCHBAY_RUNTIME__METRICS_PORT": str(port),
            "PATCHBAY_LOCKER__PORT": str(free_port()),
            "PATCHBAY_STORE__PORT": "1",
        },
        cwd=tmp_path,
        stderr=(tmp_path / "log").open("wb"),
    )
    yield port
    process.terminate()
    assert process.wait(20) == 0


async def test_a_process_with_two_units_has_one_port_for_both(both_units: int) -> None:
    said = b""

    async def the_edge_is_online() -> bool:
        nonlocal said
        try:
            said = await ask(both_units)
        except OSError:
            return False
        return b'patchbay_online{instance_id="locker-edge-x",unit="locker.edge"} 1' in said

    await eventually(the_edge_is_online)
    assert b'unit="locker.domain"' in said
    assert b"patchbay_outbox_events{" in said
    assert b"process_resident_memory_bytes " in said
    assert b"_created" not in said


def test_switched_off_it_is_not_even_imported(tmp_path: Path) -> None:
    program = "import sys; import patchbay.runtime; print('prometheus_client' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert ran.stdout == "False\n"
