"""The domain, by its commands on a real broker and store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from patchbay.messages import encode
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, Part, Seen, eventually, pub, store_part, until
from patchbay_lantern.messages import ALL, SERVICE
from patchbay_lantern.store import LanternStore

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeHouse
    from tests.lantern_house import House

SET = "patchbay/lantern/all/cmd/set"


@pytest.fixture
async def alone(make_house: MakeHouse) -> House:
    """A house with a domain and nobody else."""
    house = make_house()
    await house.start("domain")
    return house


async def test_a_command_is_kept_published_and_answered(alone: House) -> None:
    answer = await alone.ask("set", command="COLOR", value="#FF0000", by="me")
    assert answer == {"ok": True, "command": "COLOR", "value": "ff0000", "rev": 1, "lanterns": 0}
    await until(lambda: alone.state.get("rev") == 1)
    (told,) = alone.said
    assert told == {
        "command": "COLOR",
        "value": "ff0000",
        "by": "me",
        "epoch": alone.domain.epoch,
        "rev": 1,
    }
    assert alone.state["orders"] == [{"command": "COLOR", "value": "ff0000"}]
    assert (alone.state["on"], alone.state["color"], alone.state["by"]) == (None, "ff0000", "me")
    shown = await alone.ask("state")
    assert {**alone.state, "lanterns": 0, "ok": True} == shown


async def test_home_assistants_form_is_a_color_and_then_on(alone: House) -> None:
    answer = await alone.ask("set", state="ON", color={"r": 255, "g": 0, "b": 0})
    assert (answer["command"], answer["rev"]) == ("ON", 2)
    await until(lambda: len(alone.said) == 2)
    assert alone.commanded() == [("COLOR", "ff0000"), ("ON", None)]


async def test_a_command_of_a_person_needs_no_envelope(alone: House, mosquitto: Part) -> None:
    pub(mosquitto, SET, '{"command": "COLOR", "value": "00ff00"}')
    await until(lambda: alone.commanded() == [("COLOR", "00ff00")])


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("nonsense", "bad_request"),
        ("{}", "bad_request"),
        ('{"command": "BLINK"}', "unknown_command"),
        ('{"command": "COLOR", "value": "red"}', "bad_value"),
        ('{"command": "ON", "speed": 1}', "bad_request"),
        ('{"color": {"r": 256, "g": 0, "b": 0}}', "bad_request"),
    ],
)
async def test_a_bad_command_is_rejected_for_everybody_to_see(
    alone: House, mosquitto: Part, payload: str, code: str
) -> None:
    pub(mosquitto, SET, payload)
    await until(lambda: len(alone.said) == 1)
    assert (alone.said[0]["command"], alone.said[0]["code"]) == ("set", code)
    await alone.tell("ON")
    assert alone.commanded() == [("ON", None)]


async def test_a_retained_command_is_ignored(alone: House, mosquitto: Part) -> None:
    await alone.tell("ON")
    await alone.stop("domain")
    pub(mosquitto, SET, '{"command": "OFF"}', "-r")
    await alone.start("domain")
    await alone.tell("COLOR", "ff0000")
    assert alone.commanded() == [("ON", None), ("COLOR", "ff0000")]


async def test_a_command_that_was_queued_while_the_domain_was_away_is_too_late(
    alone: House, mosquitto: Part
) -> None:
    await alone.tell("ON")
    await alone.stop("domain")
    pub(mosquitto, SET, '{"command": "OFF"}', "-q", "1")
    await alone.start("domain")
    await until(lambda: any(one.get("code") == "too_late" for one in alone.said))
    await alone.tell("COLOR", "ff0000")
    assert alone.commanded() == [("ON", None), ("COLOR", "ff0000")]


async def test_a_command_delivered_twice_acts_once_and_gets_the_same_answer(alone: House) -> None:
    body = {
        "specversion": "1.0",
        "id": "c1",
        "source": "me",
        "type": "t",
        "time": "2026-11-20T12:00:00Z",
        "data": {"command": "ON"},
    }
    topic = alone.watcher.topics.command(SERVICE, ALL, "set")
    answers = [await alone.watcher.request(topic, encode(body), timeout_s=20) for _ in range(2)]
    assert answers[0] == answers[1]
    await alone.tell("OFF")
    assert alone.commanded() == [("ON", None), ("OFF", None)]


async def test_a_command_that_comes_again_after_a_restart_is_answered_the_same_and_acts_once(
    alone: House,
) -> None:
    body = {"specversion": "1.0", "id": "c1", "source": "me", "data": {"command": "ON"}}
    topic = alone.watcher.topics.command(SERVICE, ALL, "set")
    first = await alone.watcher.request(topic, encode(body), timeout_s=PATIENCE_S)
    await alone.tell("OFF")
    await alone.stop("domain")
    replies = Seen()
    alone.watcher.subscribe("patchbay/reply/me", replies.take)
    await alone.watcher.publish(topic, encode(body), response_topic="patchbay/reply/me")
    await alone.start("domain")
    await until(lambda: replies)
    assert replies.payloads == [first]
    await alone.tell("COLOR", "ff0000")
    assert alone.commanded() == [("ON", None), ("OFF", None), ("COLOR", "ff0000")]


async def test_the_state_and_the_history_outlive_the_domain(make_house: MakeHouse) -> None:
    house = make_house(history=3)
    await house.start("domain")
    for value in ("000001", "000002", "000003", "000004"):
        await house.tell("COLOR", value)
    await house.stop("domain")
    house.state = {}
    await house.start("domain")
    await until(lambda: house.state.get("color") == "000004")
    answer = await house.ask("history", limit=2)
    assert answer["total"] == 3
    assert [(one["rev"], one["value"]) for one in answer["history"]] == [
        (4, "000004"),
        (3, "000003"),
    ]
    (document,) = await house.kept._store.find("lanterns", {})
    assert (document["_id"], document["rev"], len(document["history"])) == ("all", 4, 3)


async def test_an_event_that_the_broker_did_not_confirm_follows_after_a_kill(
    make_house: MakeHouse, store: Store
) -> None:
    """A domain that dies between its save and the broker's acknowledgement."""
    house = make_house()
    await house.start("domain")
    await house.tell("ON")
    epoch = house.domain.epoch
    await house.stop("domain")
    (document,) = await store.find("lanterns", {})
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{epoch}/2",
        "source": "lantern-domain-test",
        "type": "patchbay.lantern.commanded",
        "subject": "all",
        "time": "2026-11-20T12:00:00Z",
        "data": {"command": "OFF", "value": None, "by": "x", "epoch": epoch, "rev": 2},
    }
    light = {"power": {"command": "OFF", "value": None}}
    kept = {**document, "rev": 2, "light": light, "outgoing": json.dumps([event])}
    await store.save("lanterns", [kept])
    house.kept.documents.doubt([ALL])
    await house.start("domain")
    await until(lambda: house.commanded() == [("ON", None), ("OFF", None)])

    async def forgotten() -> bool:
        await house.stop("domain")
        (after,) = await store.find("lanterns", {})
        return bool(after["outgoing"] == "")

    assert await forgotten()


async def test_while_the_store_is_away_a_command_waits_and_then_is_refused(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    part = store_part(tmp_path / "own")
    await asyncio.to_thread(part.start)
    uri = f"mongodb://127.0.0.1:{part.port}"
    async with Store(StoreSettings(timeout_s=1.0), uri) as store:
        house = make_house(answer_s=3.0)
        house.kept = LanternStore(store, 3600)
        await house.start("domain")
        await house.tell("ON")
        await asyncio.to_thread(part.kill)
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(house.ask("set", command="OFF"))
        await until(lambda: loop.time() > began + house.settings.answer_s)
        await asyncio.to_thread(part.start)
        answer = await waiting
        assert answer["error"]["code"] == "too_late"
        await house.tell("COLOR", "ff0000")
        assert house.commanded() == [("ON", None), ("COLOR", "ff0000")]
        await house.stop()
    await asyncio.to_thread(part.stop)


async def test_what_the_store_kept_too_late_is_taken_back(
    make_house: MakeHouse, tmp_path: Path
) -> None:
    part = store_part(tmp_path / "own")
    await asyncio.to_thread(part.start)
    uri = f"mongodb://127.0.0.1:{part.port}"
    async with Store(StoreSettings(), uri) as store:
        house = make_house(answer_s=3.0)
        house.kept = LanternStore(store, 3600)
        await house.start("domain")
        await house.tell("ON")
        for _ in range(2):
            with part.frozen():
                answer = await house.ask("set", state="OFF", color={"r": 1, "g": 2, "b": 3})
                assert answer["error"]["code"] == "too_late"
            await house.tell("COLOR", "ff0000")
        assert house.commanded() == [("ON", None), *[("COLOR", "ff0000")] * 2]
        shown = await house.ask("history")
        assert [one["command"] for one in shown["history"]] == ["COLOR", "COLOR", "ON"]
        assert (await house.ask("state"))["on"] is True
        await house.stop()
    await asyncio.to_thread(part.stop)


async def test_a_dead_letter_is_kept(alone: House, mosquitto: Part) -> None:
    pub(mosquitto, "patchbay/dead/lantern", "no letter", "-q", "1")

    async def kept() -> bool:
        return bool(await alone.kept._store.find("dead", {}))

    await eventually(kept)
    (letter,) = await alone.kept._store.find("dead", {})
    assert letter["hex"] == b"no letter".hex()
