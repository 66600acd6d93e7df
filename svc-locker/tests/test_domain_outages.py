"""The locker domain service when it, its broker or its store was away."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patchbay.errors import Unavailable
from patchbay.inbox import Aggregate, Outgoing
from patchbay.messages import event_type, new_event, now
from patchbay.settings import StoreSettings
from patchbay.store import Document, Store
from patchbay.testing import PATIENCE_S, MakeBus, Part, eventually, until
from patchbay.topics import device_id
from patchbay_locker.messages import Opened
from tests.locker_domain import (
    BOOT,
    DOMAIN,
    TOPICS,
    Office,
    keep,
    known_board,
    record,
    rental,
)

STATUS = TOPICS.status("locker", "1953")


# Starting again


async def test_after_a_start_all_that_is_kept_is_published_before_it_is_online(
    office: Office,
) -> None:
    await keep(
        office.store,
        known_board(rental(2), blocked=True, reset_id=1),
        known_board(id="Stadt Ost", online=True),
    )
    await office.open(offline_after_s=3600.0)
    online = TOPICS.unit_status(DOMAIN)
    await until(lambda: office.ears.on(online) == [b"online"])
    said = [one.topic for one in office.ears.messages]
    before = set(said[: said.index(online)])
    desired = office.ears.desired()[0]
    assert (desired["rev"], desired["blocked"], desired["reset_id"]) == (3, True, 1)
    assert office.ears.states("Stadt Ost")[0]["online"]
    for device in ("1953", device_id("Stadt Ost")):
        kept = {topic("locker", device) for topic in (TOPICS.state, TOPICS.desired, TOPICS.status)}
        assert kept <= before


async def test_a_domain_that_starts_again_goes_on_where_it_was(office: Office) -> None:
    await office.open()
    await office.report(box_acc=[2])
    await office.done("assign", cell=4, minutes=60, code="1492")
    await office.close()
    assert office.ears.on(TOPICS.unit_status(DOMAIN)) == [b"online", b"offline"]
    office.add(box_acc=[4])
    office.add()
    await office.open()
    await office.persisted()
    await until(lambda: len(office.ears.events("opened")) == 2)
    found = await office.document("boards", "1953")
    assert (found["reports"], found["accesses"], found["rev"]) == (3, 2, 1)
    assert [one["code"] for one in office.ears.desired()[-1]["rentals"]] == ["1492"]
    assert office.ears.facts("opened")[1]["rental"] == found["rentals"]["4"]["id"]
    assert len({event.id for event in office.ears.events("opened")}) == 2


async def test_after_a_broken_connection_everything_is_published_again(
    office: Office, mosquitto: Part
) -> None:
    await keep(office.store, known_board(rental(2)))
    await office.open()
    mosquitto.kill()
    await until(lambda: not office.domain.bus.connected)
    mosquitto.start()
    for bus in (office.listener, office.operator, office.domain.bus):
        await bus.wait_connected(PATIENCE_S)
    await office.domain.bus.wait_online(PATIENCE_S)
    await office.report()
    await until(lambda: office.ears.states()[-1]["reports"] == 8)
    assert office.ears.desired()[-1]["rev"] == 3


async def test_events_that_the_broker_has_not_confirmed_are_published_after_a_start(
    office: Office,
) -> None:
    board = Aggregate("1953", known_board())
    opened = Opened("1953", 2, None, BOOT, 7, False)
    for id in ("e1/0", "e1/1"):
        body = new_event(
            id=id,
            source=DOMAIN,
            type=event_type("locker", "opened"),
            subject="1953",
            data=opened,
        )
        board.publish(id, Outgoing("1953", "opened", body))
    await keep(office.store, board)
    await office.open()
    await until(lambda: [one.id for one in office.ears.events("opened")] == ["e1/0", "e1/1"])
    await eventually(office.has("boards", "1953", outgoing=""))
    await office.close()
    await office.open()
    await office.report()
    assert len(office.ears.events("opened")) == 2


async def test_a_kill_between_a_board_and_its_records_is_made_good(office: Office) -> None:
    unrecorded, extended = rental(2), rental(5)
    revoked, expired = rental(7), rental(8, left_s=-60.0)
    await keep(office.store, known_board(unrecorded, extended))
    shorter = record(extended, expires_at=extended.expires_at - timedelta(minutes=30))
    await office.store.save("rentals", [shorter, record(revoked), record(expired)])
    began = now()
    await office.open()
    found = {one["_id"]: one for one in await office.documents("rentals")}
    assert found["rental-2"] == record(unrecorded)
    assert found["rental-5"] == record(extended)
    assert found["rental-7"]["status"] == "revoked"
    assert began <= found["rental-7"]["ended_at"] <= now()
    assert found["rental-8"] == record(expired, status="expired", ended_at=expired.expires_at)


async def test_an_edge_that_comes_hears_the_domain_say_online(office: Office) -> None:
    await office.open()
    own = TOPICS.unit_status(DOMAIN)
    await until(lambda: office.ears.on(own) == [b"online"])
    for instance in ("allocator-edge-1", "locker-edge-1"):
        topic = TOPICS.unit_status(instance)
        await office.operator.publish(topic, b"offline", retain=True)
        await office.operator.publish(topic, b"online", retain=True)
    await until(lambda: office.ears.on(own) == [b"online", b"online"])
    await office.report()  # what else would have been said has been heard
    assert len(office.ears.on(own)) == 2


# What is away


async def test_reports_that_come_while_the_store_is_killed_are_kept_once(
    frail: tuple[Office, Part],
) -> None:
    office, store = frail
    await office.open()
    await office.report(box_acc=[2])
    store.kill()
    for _ in range(20):
        office.add(box_acc=[2, 4])
    await until(lambda: len(office.ears.messages) > 0)
    store.start()
    await office.persisted()
    found = await office.document("boards", "1953")
    assert (found["reports"], found["accesses"]) == (21, 41)
    assert len(await office.documents("accesses")) == 41
    await until(lambda: len({one.id for one in office.ears.events("opened")}) == 41)


async def test_a_domain_that_starts_before_its_store_is_online_when_that_is_there(
    frail: tuple[Office, Part],
) -> None:
    office, store = frail
    await keep(office.store, known_board(rental(2)))
    store.kill()
    await office.open_without_waiting()
    office.add()
    await office.domain.bus.wait_connected(PATIENCE_S)
    assert not office.domain.bus.online
    store.start()
    await office.domain.bus.wait_online(PATIENCE_S)
    await office.persisted()
    assert (await office.document("boards", "1953"))["reports"] == 8


class Interrupted(Store):
    """A store that is away once, for the next write into the collection ``away``."""

    away = ""

    def _look(self, collection: str) -> None:
        if collection == self.away:
            self.away = ""
            raise Unavailable(f"{collection} could not be written")

    async def insert_new(self, collection: str, documents: Sequence[Document]) -> int:
        self._look(collection)
        return await super().insert_new(collection, documents)

    async def save(self, collection: str, documents: Iterable[Document]) -> None:
        self._look(collection)
        await super().save(collection, documents)

    async def replace(
        self, collection: str, changes: Iterable[tuple[Mapping[str, Any], Document]]
    ) -> int:
        self._look(collection)
        return await super().replace(collection, changes)


@pytest.mark.parametrize("away", ["accesses", "boards", "rentals", "sources"])
async def test_wherever_a_round_is_cut_short_it_is_counted_once_and_whole(
    make_bus: MakeBus, store_server: Part, tmp_path: Path, away: str
) -> None:
    settings = StoreSettings(database=f"interrupted_{os.getpid()}_{away}")
    async with (
        Interrupted(settings, f"mongodb://127.0.0.1:{store_server.port}") as store,
        Office(make_bus, store, tmp_path) as office,
    ):
        await office.open()
        await office.report()
        store.away = away
        for board in ("1953", "1953", "new"):
            office.add(board=board, box_acc=[2, 4])
        await office.done("assign", cell=5, minutes=60)
        await office.persisted()
        assert not store.away
        found = {one["_id"]: one for one in await office.documents("boards")}
        assert {id: one["reports"] for id, one in found.items()} == {"1953": 3, "new": 1}
        assert {id: one["accesses"] for id, one in found.items()} == {"1953": 4, "new": 2}
        assert len(await office.documents("accesses")) == 6
        assert len(await office.documents("rentals")) == 1
        opened = office.ears.events
        await until(lambda: len({one.id for one in opened("opened")}) == 4)
        await until(lambda: len({one.id for one in opened("opened", "new")}) == 2)
