"""``cmd/forget``, the time that a retained state says, and records that expire."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchbay.messages import encode, now, parse_time
from patchbay.testing import PATIENCE_S, MakeBus, eventually, until
from patchbay_bartender.messages import Forget, PumpsState
from patchbay_bartender.wire.gui import Blend
from tests.bartender_bar import House, with_settings


async def ask(house: House, name: str, body: Any) -> dict[str, Any]:
    topic = house.watcher.topics.command("bartender", house.settings.bar, name)
    answer = await house.watcher.request(topic, encode(body), timeout_s=PATIENCE_S)
    found: dict[str, Any] = json.loads(answer)
    return found


async def old_bar(house: House, **fields: Any) -> None:
    """What another bar has left in the store and on the bus."""
    (ours,) = await house.store.find("pumps", {"_id": house.settings.bar})
    await house.store.insert_new("pumps", [{**ours, "_id": "old", "bar": "old", **fields}])
    await house.store.insert_new("settings", [{"_id": "bartender:old", "sec_per_liter": 7}])
    await house.store.insert_new(
        "blends", [{"_id": "old:1", "bar": "old", "ended_at": now()}, {"_id": "older:1"}]
    )
    await house.stop("domain")
    await house.start_domain()
    for topic, payload in (
        ("old/state", b'{"bar":"old"}'),
        ("old-pumps/state", encode(pumps_state())),
        ("old-pumps/status", b"offline"),
    ):
        await house.watcher.publish(f"patchbay/bartender/{topic}", payload, retain=True)


def pumps_state(edge: str = "bartender-pumps-old") -> PumpsState:
    return PumpsState(
        edge=edge, driver="simulated", on=[], run_id=None, remaining=0.0, last_run=None
    )


async def retained_of_old(make_bus: MakeBus) -> list[str]:
    seen: list[str] = []
    async with make_bus("looker") as looker:
        looker.listen(
            looker.topics.state("bartender", "+"), lambda m: (m.ack(), seen.append(m.topic))[-1]
        )
        looker.listen(
            looker.topics.status("bartender", "+"), lambda m: (m.ack(), seen.append(m.topic))[-1]
        )
        await until(lambda: "patchbay/bartender/bar/state" in seen)
    return [topic for topic in seen if "/old" in topic]


@pytest.mark.parametrize(
    ("documents", "left"), [("keep", ["old:1", "older:1"]), ("remove", ["older:1"])]
)
async def test_a_bar_that_is_gone_is_forgotten(
    house: House, make_bus: MakeBus, documents: Any, left: list[str]
) -> None:
    await old_bar(house)
    answer = await ask(house, "forget", Forget(bar="old", documents=documents))
    assert answer["ok"], answer
    assert answer["removed"]["pumps"] == answer["removed"]["settings"] == 1
    assert [one["_id"] for one in await house.store.find("pumps", {})] == ["bar"]
    assert await house.store.find("settings", {"_id": "bartender:old"}) == []
    kept = await house.store.find("blends", {}, sort=[("_id", 1)])
    assert [one["_id"] for one in kept] == left
    assert await retained_of_old(make_bus) == []
    answer = await ask(house, "forget", Forget(bar="old"))
    assert answer["error"]["code"] == "unknown_bar"


async def test_a_bar_in_use_is_forgotten_only_by_force(house: House) -> None:
    answer = await ask(house, "forget", Forget(bar="bar", force=True))
    assert answer["error"]["code"] == "in_use"
    await old_bar(house)
    ours = house.pumps._bus.client_id
    topic = "patchbay/bartender/old-pumps/state"
    await house.watcher.publish(topic, encode(pumps_state(ours)), retain=True)

    async def in_use() -> bool:
        answer = await ask(house, "forget", Forget(bar="old"))
        return bool(answer.get("error", {}).get("code") == "in_use")

    await eventually(in_use)
    assert (await ask(house, "forget", Forget(bar="old", force=True)))["ok"]


@with_settings(sec_per_liter=200)
async def test_the_state_says_until_when_it_runs(house: House) -> None:
    state = "bar/state"
    async with house.connect() as gui:
        began = datetime.now(UTC)
        await gui.say(Blend(0.1, {"0": 1.0}))
        await until(lambda: any(one.get("until") for one in house.heard.of(state)))
        told = next(one for one in reversed(house.heard.of(state)) if one.get("until"))
        ends = parse_time(told["until"])
        assert timedelta(seconds=15) < ends - began < timedelta(seconds=20 + PATIENCE_S)
        await house.watcher.publish("patchbay/bartender/bar/cmd/stop", b"{}")
        await until(lambda: house.heard.of(state)[-1]["until"] is None)


@with_settings(blends_ttl_s=86_400)
async def test_records_expire_by_the_time_of_their_end(house: House) -> None:
    index = await house.store._database["blends"].index_information()
    assert index["ended_at_1"]["expireAfterSeconds"] == 86_400
