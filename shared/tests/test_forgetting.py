"""A unit that is gone can be forgotten, and may come back all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.bus import Bus
from patchbay.cli.forgetting import forget_unit
from patchbay.errors import Rejected, Unavailable
from patchbay.inbox.watermarks import SOURCES
from patchbay.outbox import Outbox
from patchbay.services import Service
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, Part, Seen, broker_settings, reaches, until
from patchbay.topics import Topics
from shared.tests.tiny import SERVICE, Said, TinyDomain

EDGE = "tiny-edge-1"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny service is one of those that the command line knows."""
    roles = {"edge": "x:run", "domain": "x:run"}
    tiny = Service(name=SERVICE, settings="x:Settings", roles=roles)
    monkeypatch.setattr("patchbay.services.discover", lambda: {SERVICE: tiny})


@pytest.fixture
async def tiny(mosquitto: Part, store: Store) -> AsyncIterator[TinyDomain]:
    bus = Bus(
        broker_settings(mosquitto.port), client_id="tiny-domain-1", topics=Topics(), durable=True
    )
    domain = TinyDomain(bus, store)
    domain.inbox.start()
    async with bus:
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)
        yield domain
        await domain.inbox.stop()


def say(outbox: Outbox, *numbers: int) -> None:
    for number in numbers:
        outbox.add(
            "d1",
            "said",
            key=f"d1:{number:08}",
            subject="d1",
            time="2026-01-01T00:00:00Z",
            data=Said("d1", number),
        )


@contextlib.asynccontextmanager
async def edge(port: int, path: Path) -> AsyncIterator[Outbox]:
    bus = Bus(broker_settings(port), client_id=EDGE, topics=Topics())
    async with Outbox(bus, SERVICE, path) as outbox, bus:
        await bus.set_ready()
        await bus.wait_online(PATIENCE_S)
        bus.keep(bus.topics.unit_info(EDGE), b'{"unit": "tiny.edge"}')
        yield outbox


async def forget(make_bus: MakeBus, unit: str = EDGE, *, force: bool = False) -> list[str]:
    return await forget_unit(make_bus("looks"), make_bus("forgets"), unit, force=force)


async def total(store: Store) -> list[int]:
    return [one["count"] for one in await store.find("counters", {})]


async def test_nothing_is_left_of_a_unit_that_was_forgotten(
    tiny: TinyDomain, make_bus: MakeBus, mosquitto: Part, store: Store, tmp_path: Path
) -> None:
    async with edge(mosquitto.port, tmp_path / "outbox.sqlite") as outbox:
        say(outbox, 1, 2)
        await reaches(lambda: total(store), [2])
        await until(lambda: not outbox.waiting)
    stray = make_bus("stray")
    stray.start()
    await stray.wait_connected(PATIENCE_S)
    await stray.publish(f"patchbay/tiny/{EDGE}/event/invented", b"1", retain=True)
    assert await forget(make_bus) == [
        "progress of its events in the store",
        f"patchbay/status/{EDGE}",
        f"patchbay/status/{EDGE}/info",
        f"patchbay/tiny/{EDGE}/event/invented",
    ]
    seen = Seen()
    watcher = make_bus("watcher")
    watcher.subscribe("#", seen.take)
    watcher.start()
    await watcher.wait_connected(PATIENCE_S)
    await watcher.publish("end", b"x")
    await until(lambda: [one for one in seen if one.topic == "end"])
    assert not [one.topic for one in seen if EDGE in one.topic]
    [document] = await store.find(SOURCES, {"_id": EDGE})
    assert "forgotten" in document
    with pytest.raises(Rejected, match="nothing is known of"):
        await forget(make_bus)


async def test_a_unit_that_is_online_is_not_forgotten(
    tiny: TinyDomain, make_bus: MakeBus, mosquitto: Part, tmp_path: Path
) -> None:
    async with edge(mosquitto.port, tmp_path / "outbox.sqlite"):
        with pytest.raises(Rejected, match=f"{EDGE} is online: stop it first"):
            await forget(make_bus)
    with pytest.raises(Rejected, match="unit_online"):
        await forget(make_bus, "tiny-domain-1")


async def test_a_status_that_nobody_can_take_back_is_cleared_by_force(
    tiny: TinyDomain, make_bus: MakeBus
) -> None:
    stray = make_bus("stray")
    stray.start()
    await stray.wait_connected(PATIENCE_S)
    await stray.publish("patchbay/status/nobody", b"online", retain=True)
    with pytest.raises(Rejected, match="unit_online"):
        await forget(make_bus, "nobody")
    assert await forget(make_bus, "nobody", force=True) == ["patchbay/status/nobody"]


async def test_an_edge_that_comes_back_loses_nothing_and_nothing_counts_twice(
    tiny: TinyDomain, make_bus: MakeBus, mosquitto: Part, store: Store, tmp_path: Path
) -> None:
    """It was killed before it heard of an acknowledgement, and has others that it never sent."""
    path = tmp_path / "outbox.sqlite"
    away = Bus(broker_settings(mosquitto.port), client_id=EDGE, topics=Topics())
    async with Outbox(away, SERVICE, path) as outbox:  # it is never started
        say(outbox, 1, 2, 3)
        done = asyncio.Event()
        outbox.after_commit(lambda _ok: done.set())
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        [epoch] = {outbox.epoch}
    sent = make_bus("sent")  # the first of them reached the domain, and its answer nobody
    sent.start()
    await sent.wait_connected(PATIENCE_S)
    first = {
        "specversion": "1.0",
        "id": "d1:00000001",
        "source": EDGE,
        "type": "patchbay.tiny.said",
        "subject": "d1",
        "time": "2026-01-01T00:00:00Z",
        "sequence": 1,
        "epoch": epoch,
        "data": {"device": "d1", "number": 1},
    }
    await sent.publish("patchbay/tiny/d1/event/said", json.dumps(first).encode())
    await reaches(lambda: total(store), [1])
    assert await forget(make_bus) == ["progress of its events in the store"]

    async with edge(mosquitto.port, path) as outbox:
        say(outbox, 4)
        await until(lambda: not outbox.waiting)
    await reaches(lambda: total(store), [4])
    assert [one["total"] for one in await store.find("counters", {})] == [10]
    [document] = await store.find(SOURCES, {"_id": EDGE})
    assert "forgotten" not in document


async def test_without_its_domain_nothing_is_forgotten(make_bus: MakeBus, mosquitto: Part) -> None:
    stray = make_bus("stray")
    stray.start()
    await stray.wait_connected(PATIENCE_S)
    await stray.publish(f"patchbay/status/{EDGE}", b"offline", retain=True)
    with pytest.raises(Unavailable, match="no answer from the tiny domain"):
        await forget(make_bus)


@pytest.mark.parametrize("unit", ["", "a/b", "+", "x" * 300, "#"])
async def test_what_cannot_be_a_unit_is_refused(make_bus: MakeBus, unit: str) -> None:
    with pytest.raises(Rejected, match="UNIT must be an instance id"):
        await forget_unit(make_bus("looks"), make_bus("forgets"), unit)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"{}", "forget: unit is required"),
        (b"{", "forget: it ends too early"),
        (b'{"unit": 5}', "forget: unit must be text of 1 to 256 characters, got 5"),
    ],
)
async def test_an_invalid_request_is_answered(
    tiny: TinyDomain, make_bus: MakeBus, payload: bytes, why: str
) -> None:
    client = make_bus("cli")
    client.start()
    await client.wait_connected(PATIENCE_S)
    answer = await client.request("patchbay/forget/tiny", payload, timeout_s=PATIENCE_S)
    assert json.loads(answer)["error"] == {"code": "bad_request", "message": why}


async def test_forgetting_is_in_the_store_for_as_long_as_facts_are(store: Store) -> None:
    """The index is the store's: what it says of the time is looked up there."""
    from patchbay.inbox import Watermarks
    from patchbay.messages import Event

    marks = Watermarks(store)
    marks.judge(Event(id="1", source=EDGE, type="t", time="t", sequence=1, epoch="e1"))
    with pytest.raises(Rejected, match="are being stored"):
        await marks.forget(EDGE, 60)
    await marks.save()
    assert await marks.forget(EDGE, StoreSettings().events_ttl_s)
    assert not await marks.forget(EDGE, 60)
    assert not await marks.forget("nobody", 60)
    marks.judge(Event(id="2", source=EDGE, type="t", time="t", sequence=2, epoch="e1"))
    await marks.save()
    [document] = await store.find(SOURCES, {})
    assert document == {"_id": EDGE, "epoch": "e1", "upto": 2, "past": []}
