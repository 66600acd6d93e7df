"""The mesh domain: nodes that come and go, histories, and what survives."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from patchbay.bus import Message, Request
from patchbay.errors import Unavailable
from patchbay.messages import new_event, now, rfc3339
from patchbay.store import Document
from patchbay.testing import Part, pub, until
from patchbay_mesh.messages import Update
from patchbay_mesh.simulator import uuid_of
from patchbay_mesh.wire.content import Value, network_frame
from patchbay_mesh.wire.uart import Frame, encode

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")


async def test_a_node_appears_with_its_first_data(house: House) -> None:
    await house.start()
    await house.root.say(5, b"not yet")
    await house.documents("messages", 1)
    assert house.states == {}
    await house.report(5)
    await until(lambda: house.statuses.get("node-5") == "online")
    state = house.states["node-5"]
    assert state["values"]["GPS"]["hex"] == "02f001be9200"
    assert state.pop("last_contact") == state.pop("values")["GPS"]["time"]
    assert state == {
        "node": 5,
        "uuid": None,
        "status": "active",
        "readings": 1,
        "messages": 0,
        "gps": {"latitude": 37.566, "longitude": 126.978},
        "read": {},
    }
    assert house.named("joined") == [{"node": 5}]


async def test_a_silent_node_leaves_and_one_that_speaks_comes_back(house: House) -> None:
    await house.start()
    await house.report(5)
    house.clock.now += 59
    await house.domain.tick()
    assert house.named("left") == []
    house.clock.now += 2
    await until(lambda: house.named("left"))
    await until(lambda: house.statuses["node-5"] == "offline")
    (left,) = house.named("left")
    last_contact = house.states["node-5"]["last_contact"]
    assert left == {"node": 5, "reason": "silent", "last_contact": last_contact}
    assert house.states["node-5"]["status"] == "away"
    await house.root.say(5, b"here again")
    await until(lambda: len(house.named("joined")) == 2)
    await until(lambda: house.states["node-5"]["status"] == "active")
    assert house.states["node-5"]["messages"] == 1


async def test_while_words_wait_silence_is_counted_up_to_the_oldest_of_them(house: House) -> None:
    await house.start()
    await house.report(5)
    loop = asyncio.get_running_loop()
    house.domain.inbox._arrived.append(Message("", b"", received_at=loop.time() - 30))
    house.clock.now += 85
    await house.domain.tick()
    assert house.domain.kept.nodes.get("node-5").state.active  # type: ignore[union-attr]
    house.clock.now += 60
    await house.domain.tick()
    await until(lambda: house.named("left"))


async def test_a_restarted_root_sends_all_nodes_away_until_they_are_heard(house: House) -> None:
    await house.start()
    await house.report(5)
    await house.report(6)
    await house.root.restart()
    await until(lambda: len(house.named("left")) == 2)
    assert [(one["node"], one["reason"]) for one in house.named("left")] == [
        (5, "root_restarted"),
        (6, "root_restarted"),
    ]
    await until(lambda: house.api.cache.active == 0)
    nodes = ("node-5", "node-6")
    await until(lambda: [house.statuses.get(one) for one in nodes] == ["offline", "offline"])
    await house.report(6)
    await until(lambda: house.statuses["node-6"] == "online")
    assert house.statuses["node-5"] == "offline"
    await until(lambda: house.api.cache.active == 1)


async def test_the_root_says_who_is_there_and_what_they_are(house: House) -> None:
    await house.start()
    await house.root.join(9)
    await until(lambda: house.states.get("node-9", {}).get("uuid") == uuid_of(9).hex())
    assert house.states["node-9"]["status"] == "active"
    assert await house.call(b"[GET]GPS\x00\x09") == b"F\x13Data Type Not Found"
    await house.root.send(encode(network_frame(0, [(9, uuid_of(1)), (10, uuid_of(10))])))
    await until(lambda: house.states.get("node-10", {}).get("uuid") == uuid_of(10).hex())
    assert house.states["node-9"]["uuid"] == uuid_of(1).hex()


async def test_a_domain_that_starts_again_knows_who_was_active_and_waits_its_time(
    house: House,
) -> None:
    await house.start()
    await house.report(5)
    await house.stop("domain")
    house.clock.now += 1000
    await house.start_domain()
    await house.domain.tick()
    assert house.named("left") == []
    house.clock.now += 61
    await until(lambda: house.named("left"))


async def test_while_the_broker_is_away_nobody_is_silent(house: House, mosquitto: Part) -> None:
    await house.start()
    await house.report(5)
    mosquitto.kill()
    await until(lambda: not house.domain.bus.connected)
    house.clock.now += 1000
    await house.domain.tick()
    mosquitto.start()
    await until(lambda: house.domain.bus.online)
    await house.domain.tick()
    assert next(iter(house.domain.kept.nodes)).state.active


async def test_the_history_has_the_newest_first_from_memory_and_from_the_store(
    house: House,
) -> None:
    await house.start()
    for number in range(5):
        await house.report(5, bytes([number]), b"CNT")
    await house.report(6, b"x", b"CNT")
    wanted = [f"{number:02x}" for number in (4, 3, 2, 1, 0)]

    async def hexes(**more: Any) -> list[str]:
        answer = await house.ask("nodes", "history", node=5, type="CNT", **more)
        assert (answer["node"], answer["type"]) == (5, "CNT")
        return [one["hex"] for one in answer["values"]]

    async def all_of_it() -> None:
        assert await hexes() == wanted
        assert await hexes(limit=2) == wanted[:2]
        answer = await house.ask("nodes", "history", node=5, type="CNT")
        times = [one["time"] for one in answer["values"]]
        assert times == sorted(times, reverse=True)
        assert (
            await hexes(**{"from": times[3]})
            == wanted[: 1 + max(place for place, time in enumerate(times) if time == times[3])]
        )
        assert await hexes(to=times[2], limit=1) == [
            wanted[min(place for place, time in enumerate(times) if time == times[2])]
        ]
        before = rfc3339(now() - timedelta(hours=1))
        assert await hexes(**{"from": before}) == wanted
        assert await hexes(to=before) == []

    await all_of_it()
    await house.stop("domain")
    await house.start_domain()
    assert len(house.domain.recent) == 0
    await all_of_it()


async def test_the_history_has_what_an_edge_says_whose_clock_is_ahead_by_our_own_time(
    house: House,
) -> None:
    await house.start()
    began = rfc3339(now())
    for hours in (1, 2):
        await house.watcher.publish(
            "patchbay/mesh/node-5/event/data",
            new_event(
                id=f"x{hours}",
                source="",
                type="patchbay.mesh.data",
                time=rfc3339(now() + timedelta(hours=hours)),
                data={"node": 5, "values": [{"type": "CNT", "data": "AA=="}]},
            ),
        )
        await house.documents("readings", hours)
    stored = [rfc3339(one["at"]) for one in await house.documents("readings", 2)]
    assert began <= stored[0] <= stored[1] <= rfc3339(now())

    async def times(**more: Any) -> list[str]:
        answer = await house.ask("nodes", "history", node=5, type="CNT", **more)
        return [one["time"] for one in answer["values"]]

    for _ in range(2):  # from memory, and from the store
        assert await times() == stored[::-1]
        assert await times(limit=1) == stored[1:]
        assert await times(to=began) == []
        house.domain.recent.clear()


async def test_what_a_store_kept_without_saying_so_is_in_the_history_and_was_heard(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start()
    await house.report(5, b"1", b"CNT")
    replace, silent = house.store.replace, [True]

    async def replace_and_say_nothing(*args: Any) -> int:
        matched = await replace(*args)
        if silent:
            silent.clear()
            raise Unavailable("the store is away: killed before its answer")
        return matched

    monkeypatch.setattr(house.store, "replace", replace_and_say_nothing)
    house.clock.now += 50
    await house.report(5, b"2", b"CNT")
    assert not silent
    await house.report(6)
    house.clock.now += 30
    await house.domain.tick()
    assert house.domain.kept.nodes.get("node-5").state.active  # type: ignore[union-attr]
    history = await house.ask("nodes", "history", node=5, type="CNT", limit=1)
    assert [one["hex"] for one in history["values"]] == ["32"]
    house.clock.now += 31
    await house.domain.tick()
    await until(lambda: len(house.named("left")) == 2)


async def test_while_the_store_does_not_answer_questions_are_refused_and_nothing_waits_for_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start()
    await house.report(5)

    async def slow(*_: object) -> list[Document]:
        raise Unavailable("the store is away: timed out")

    async def never(*_: object) -> list[Document]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr("patchbay_mesh.desk.LOOK_S", 0.05)
    for look in (slow, never):
        monkeypatch.setattr(house.domain.kept, "history", look)
        assert await house.refusal("nodes", "history", node=5, type="GPS") == "unavailable"
    assert (await house.ask("node-5", "show"))["ok"]


async def test_a_value_can_be_put_in_the_place_of_the_latest(house: House) -> None:
    await house.start()
    await house.report(5)
    contact = house.domain.kept.nodes.get("node-5").state.last_contact  # type: ignore[union-attr]
    answer = await house.ask("node-5", "update", type="GPS", hex="03f001bf9200")
    assert answer["ok"]
    assert (answer["node"], answer["type"]) == (5, "GPS")
    await until(lambda: house.latest("node-5", "GPS") == "03f001bf9200")
    assert house.states["node-5"]["last_contact"] == contact
    await until(lambda: house.api.cache.latest(5, b"GPS") == bytes.fromhex("03f001bf9200"))
    history = await house.ask("nodes", "history", node=5, type="GPS")
    assert [one["hex"] for one in history["values"]] == ["03f001bf9200", "02f001be9200"]


async def test_an_update_that_is_delivered_twice_is_one(house: House) -> None:
    await house.start()
    await house.report(5)
    body = new_event(id="u1", source="me", type="x", data={"type": "TMP", "hex": "15"})
    topic = "patchbay/mesh/node-5/cmd/update"
    answers = [await house.watcher.request(topic, body) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(await house.documents("readings", 2)) == 2


async def test_the_same_bare_update_after_a_restart_is_another_and_tried_again_it_is_one(
    house: House,
) -> None:
    await house.start()
    await house.report(5)
    body = Update("TMP", "15")
    for received_at, count in ((1.5, 2), (1.5, 2), (2.5, 3)):
        request = Request("node-5", "update", "same", again=False, received_at=received_at)
        await house.domain.desk._update(request, body)
        assert len(await house.documents("readings", count)) == count


@pytest.mark.parametrize(
    ("device", "name", "body", "code"),
    [
        ("node-7", "update", {"type": "GPS", "hex": "02f001be9200"}, "unknown_node"),
        ("node-5", "update", {"type": "GPS", "hex": "00"}, "bad_length"),
        ("node-5", "update", {"type": "TMP", "hex": "0"}, "bad_hex"),
        ("node-5", "update", {"type": "TMP", "hex": "00" * 256}, "too_long"),
        ("node-5", "update", {"type": "TM", "hex": "00"}, "bad_request"),
        ("node-5", "update", {"type": "한글어", "hex": "00"}, "bad_type"),
        ("node-7", "show", {}, "unknown_node"),
        ("nodes", "history", {"node": 7, "type": "GPS"}, "unknown_node"),
        ("nodes", "history", {"node": 5, "type": "GPS", "from": "yesterday"}, "bad_request"),
        ("node-5", "history", {"node": 5, "type": "GPS"}, "bad_request"),
        ("nodes", "list", {"limit": 0}, "bad_request"),
        ("nodes", "nonsense", {}, "unknown_command"),
    ],
)
async def test_nonsense_is_refused_with_a_code(
    house: House, device: str, name: str, body: dict[str, Any], code: str
) -> None:
    await house.start()
    await house.report(5)
    assert await house.refusal(device, name, **body) == code


async def test_nodes_are_listed_by_address_and_shown_one_by_one(house: House) -> None:
    await house.start()
    for node in (6, 5, 300):
        await house.report(node)
    house.clock.now += 61
    await until(lambda: len(house.named("left")) == 3)
    await house.report(6)
    answer = await house.ask("nodes", "list")
    assert answer["total"] == 3
    assert [one["node"] for one in answer["nodes"]] == [5, 6, 300]
    page = await house.ask("nodes", "list", limit=1, skip=2)
    assert [one["node"] for one in page["nodes"]] == [300]
    active = await house.ask("nodes", "list", active=True)
    assert [one["node"] for one in active["nodes"]] == [6]
    shown = await house.ask("node-300", "show")
    assert shown["node"] == next(one for one in answer["nodes"] if one["node"] == 300)


async def test_what_a_person_publishes_without_an_envelope_is_understood(
    house: House, mosquitto: Part
) -> None:
    await house.start()
    pub(
        mosquitto,
        "patchbay/mesh/node-5/event/data",
        '{"node": 5, "values": [{"type": "GPS", "data": "AvABvpIA"}]}',
    )
    (reading,) = await house.documents("readings", 1)
    assert bytes(reading["data"]) == GPS
    await until(lambda: house.states.get("node-5", {}).get("gps"))


async def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(
    house: House, mosquitto: Part
) -> None:
    await house.start()
    pub(mosquitto, "patchbay/mesh/node-5/event/data", '{"node": "five"}')
    pub(mosquitto, "patchbay/mesh/node-5/event/data", "nonsense")
    await house.report(5)
    assert len(await house.documents("readings", 1)) == 1
    assert len(await house.documents("dead", 2)) == 2


async def test_types_beyond_the_bound_put_out_the_oldest(house: House) -> None:
    house.replace(max_types=3)
    await house.start()
    for number in range(5):
        await house.report(5, b"x", f"T{number:02}".encode())
    node = house.domain.kept.nodes.get("node-5")
    assert node is not None
    assert len(node.state.values) == 3
    assert len(await house.documents("readings", 5)) == 5


async def test_a_short_or_strange_type_is_kept_as_its_bytes(house: House) -> None:
    await house.start()
    await house.report(5, b"x", b"\xff\x00.")
    (reading,) = await house.documents("readings", 1)
    assert reading["type"] == "\xff\x00."
    await until(lambda: "node-5" in house.states)
    assert list(house.states["node-5"]["values"]) == ["\xff\x00."]
    assert await house.call(b"[GET]\xff\x00.\x00\x05") == b"S\xff\x00.\x01\x01\x00\x05x"


async def test_old_documents_are_let_go_by_an_index_on_their_time(house: House) -> None:
    await house.start()
    for collection in ("readings", "messages"):
        indexes = await house.store.collection(collection).index_information()
        (found,) = [one for one in indexes.values() if "expireAfterSeconds" in one]
        assert found["expireAfterSeconds"] == 2_592_000


async def test_several_values_of_a_frame_are_facts_of_their_own(house: House) -> None:
    await house.start()
    await house.root.report(5, Value(b"GPS", GPS), Value(b"TMP", b"\x15"), Value(b"TMP", b"\x16"))
    readings = await house.documents("readings", 3)
    assert [one["_id"].rpartition(":")[2] for one in readings] == ["000", "001", "002"]
    await until(lambda: house.states.get("node-5", {}).get("readings") == 3)
    assert house.states["node-5"]["values"]["TMP"]["hex"] == "16"


async def test_a_frame_without_values_is_a_word(house: House) -> None:
    await house.start()
    await house.root.send(encode(Frame(5, b"[D]", b"\x00")))
    await until(lambda: house.statuses.get("node-5") == "online")
    assert house.states["node-5"]["values"] == {}


def forged(data: bytes, **fields: Any) -> bytes:
    """An event of node 5 in MessagePack whose data are these bytes, as they stand."""
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": "forged",
        "source": "nobody",
        "type": "patchbay.mesh.data",
        "subject": "node-5",
        "time": "2026-11-20T14:04:49.566Z",
        **fields,
    }
    packed = msgpack.packb(envelope)
    return bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("data") + data


@pytest.mark.parametrize(
    "payload",
    [
        forged(b"\x82\xa4node\x05\xa6val\xff\xff\xff\x90"),  # text that is not UTF-8
        forged(msgpack.packb(msgpack.ExtType(5, b"abc"))),
        forged(msgpack.packb({"node": 5, "values": []}), epoch="\x01" * 100_000, sequence=9),
        forged(msgpack.packb({"node": 2**63, "values": []})),
        forged(msgpack.packb({"node": 5, "values": [{"type": "GPS", "data": b"x" * 256}]})),
        forged(msgpack.packb({"node": 5, "values": [{"type": "GPS", "data": b"x"}] * 256})),
        forged(b"\x93" * 60_000),
    ],
)
async def test_an_event_that_makes_no_sense_stops_nobody(house: House, payload: bytes) -> None:
    await house.start()
    await house.start_monitor()
    await house.watcher.publish(
        "patchbay/mesh/node-5/event/data", payload, content_type="application/cloudevents+msgpack"
    )
    await house.report(5)
    await until(lambda: house.latest("node-5", "GPS") == GPS.hex())
    assert await house.call(b"[GET]GPS\x00\x05") == b"SGPS\x06\x01\x00\x05" + GPS
    assert await house.refusal("nodes", "list", skip=2**70) == "bad_request"
    assert await house.refusal("node-5", "update", type="GPS", hex="0" * 200_000) != ""
