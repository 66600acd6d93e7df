"""The scheduler, with the test as the pumps: what it orders, believes, counts and gives up."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from patchbay.errors import Unavailable
from patchbay.messages import Cancel, encode
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, MakeBus, Part, eventually, pub, store_part, until
from patchbay_bartender.messages import (
    Ask,
    Asked,
    Blend,
    Configure,
    PumpsFinished,
    PumpsStarted,
    PumpsState,
    Refill,
    Stop,
)
from patchbay_bartender.watch import ANSWER_S
from patchbay_bartender.wire.gui import Blend as Said
from tests.bartender_bar import House, PumpsByHand, ask, order_blend, with_settings

TOPIC = "patchbay/bartender"


async def test_a_blend_is_saved_before_it_is_ordered(bar: House, pumps: PumpsByHand) -> None:
    answer = await order_blend(bar)
    assert answer["ok"]
    run = await pumps.ordered()
    assert (answer["run_id"], answer["seconds"]) == (run, 4.0)
    assert bar.heard.of("bar-pumps/cmd/run")[0]["seconds"] == {"0": 4.0, "3": 2.0}
    saved = await bar.bars()
    assert saved["run"]["id"] == run
    (record,) = await bar.blends()
    assert (record["status"], record["by"], record["cup_size"]) == ("ordered", "Ann", 0.2)


async def test_only_the_run_that_stands_is_confirmed_and_once(
    bar: House, pumps: PumpsByHand
) -> None:
    pumps.asks = False
    ordering = asyncio.create_task(order_blend(bar))
    run = await pumps.ordered()
    topic = f"{TOPIC}/bar-pumps/event/asked"
    for asked in (Asked("another", "n0"), Asked(run, "n1"), Asked(run, "n2")):
        await pumps.bus.publish(topic, encode(asked))
    assert (await ordering)["run_id"] == run
    await ask(bar, "state", Ask())  # what came before it was handled
    (confirm,) = bar.heard.of("bar-pumps/cmd/confirm")
    (order,) = bar.heard.of("bar-pumps/cmd/run")
    assert (confirm["run_id"], confirm["nonce"]) == (run, "n1")
    assert confirm["clock"] == order["clock"]
    assert order["ordered_at"] < confirm["now"] < time.monotonic()  # on one clock


async def test_a_run_that_is_stopped_before_the_pumps_ask_is_never_confirmed(
    bar: House, pumps: PumpsByHand
) -> None:
    pumps.asks = False
    ordering = asyncio.create_task(order_blend(bar))
    run = await pumps.ordered()
    await ask(bar, "stop", Stop())
    assert (await ordering)["error"] == {"code": "stopped", "message": "stopped"}
    await pumps.bus.publish(f"{TOPIC}/bar-pumps/event/asked", encode(Asked(run, "n")))
    await ask(bar, "state", Ask())
    assert bar.heard.of("bar-pumps/cmd/confirm") == []
    (failed,) = bar.heard.data("bar/event/failed")
    assert (failed["run_id"], failed["code"]) == (run, "stopped")


async def test_an_end_that_is_told_twice_is_counted_once(bar: House, pumps: PumpsByHand) -> None:
    await order_blend(bar)
    run = await pumps.ordered()
    await pumps.event("started", PumpsStarted(run, {"0": 4.0, "3": 2.0}))
    done = PumpsFinished(run, "done", "", {"0": 4.0, "3": 2.0})
    await pumps.event("finished", done)
    await until(lambda: bar.heard.of("bar/event/finished"))
    await pumps.event("finished", done, again=True)
    await pumps.event("finished", done)  # and once more under a number of its own
    await until(lambda: bar.domain.inbox.taken == 3)
    saved = await bar.bars()
    assert [pump["millilitres"] for pump in saved["pumps"]] == [200, 0, 0, 100, 0, 0, 0, 0]
    (finished,) = bar.heard.data("bar/event/finished")
    assert finished["millilitres"] == {"0": 200, "3": 100}
    await bar.stop("domain")
    await bar.start_domain()
    await pumps.event("finished", done)
    await until(lambda: bar.domain.inbox.taken == 1)
    assert (await bar.bars())["pumps"] == saved["pumps"]


async def test_an_end_that_cannot_be_saved_at_once_is_not_given_up(
    bar: House, pumps: PumpsByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await order_blend(bar)
    run = await pumps.ordered()

    tried: list[object] = []

    async def away(bars: object) -> None:
        tried.append(bars)
        if len(tried) == 3:  # by then time was looked at in between
            monkeypatch.undo()
        bar.domain.watch.runs(-ANSWER_S, asyncio.get_running_loop().time())  # it is overdue now
        raise Unavailable("the store is away")

    monkeypatch.setattr(bar.domain.kept.bars, "save", away)
    await pumps.event("finished", PumpsFinished(run, "done", "", {"0": 4.0, "3": 2.0}))
    await until(lambda: bar.heard.of("bar/event/finished"))
    assert bar.heard.of("bar/event/failed") == []


@with_settings(start_deadline_s=3)
async def test_pumps_that_do_not_ask_never_begin(bar: House, pumps: PumpsByHand) -> None:
    pumps.asks = False
    answer = await order_blend(bar)
    assert answer["error"] == {"code": "not_started", "message": "the pumps have not begun it"}
    run = await pumps.ordered()
    await until(lambda: bar.heard.of("bar/event/failed"))
    (failed,) = bar.heard.data("bar/event/failed")
    assert (failed["run_id"], failed["code"]) == (run, "not_started")
    assert bar.heard.of("bar-pumps/cmd/stop")[-1]["run_id"] == run  # to be sure
    pumps.asks = True
    assert (await order_blend(bar))["ok"]


@with_settings(start_deadline_s=3)
async def test_of_a_run_that_was_confirmed_and_nobody_speaks_of_nobody_knows(
    bar: House, pumps: PumpsByHand
) -> None:
    assert (await order_blend(bar))["ok"]
    await until(lambda: bar.heard.of("bar/event/failed"))
    (failed,) = bar.heard.data("bar/event/failed")
    assert failed["code"] == "pumps_lost"


async def test_pumps_that_are_only_remembered_as_there_are_noticed_at_once(
    bar: House, mosquitto: Part, make_bus: MakeBus
) -> None:
    """As a broker keeps them that was killed together with them."""
    state = PumpsState(
        edge="bartender-pumps-gone", driver="rpi", on=[], run_id=None, remaining=0, last_run=None
    )
    pub(mosquitto, "patchbay/status/bartender-pumps-gone", "online", "-r")
    pub(mosquitto, f"{TOPIC}/bar-pumps/state", encode(state).decode(), "-r")
    await until(lambda: bar.domain.presence.online)
    await bar.watcher.stop()  # it hears all topics, and would count as somebody who does
    asker = make_bus("asker")
    asker.start()
    await asker.wait_connected(PATIENCE_S)
    body = encode(Blend(cup_size=0.1, ratios={"0": 1.0}))
    answer = json.loads(await asker.request(f"{TOPIC}/bar/cmd/blend", body))
    assert answer["error"] == {"code": "pumps_offline", "message": "the pumps are offline"}
    await eventually(lambda: ended(bar))
    (record,) = await bar.blends()
    assert record["status"] == "failed"


async def ended(house: House) -> bool:
    return all(one["ended_at"] for one in await house.blends())


async def test_pumps_that_do_what_nobody_has_ordered_are_stopped(
    bar: House, pumps: PumpsByHand
) -> None:
    await pumps.state("somebody else's")
    await until(lambda: bar.heard.of("bar-pumps/cmd/stop"))
    assert bar.heard.of("bar-pumps/cmd/stop")[0]["run_id"] == "somebody else's"


async def test_a_scheduler_that_is_back_believes_the_pumps(bar: House, pumps: PumpsByHand) -> None:
    await order_blend(bar)
    run = await pumps.ordered()
    await bar.stop("domain")
    await bar.start_domain()
    await until(lambda: bar.heard.of("bar-pumps/cmd/report"))
    await pumps.state(run)
    await until(lambda: bar.heard.of("bar/state")[-1]["remaining"] > 2.5)
    refused = await ask(bar, "refill", Refill(pump=1))
    assert refused["error"]["message"] == "Already blending ! Retry in 3 sec"
    await pumps.event("finished", PumpsFinished(run, "done", "", {"0": 4.0, "3": 2.0}))
    await until(lambda: bar.heard.of("bar/event/finished"))


async def test_a_request_that_is_not_confirmed_never_pours_and_its_repeat_gets_the_same_error(
    bar: House, pumps: PumpsByHand
) -> None:
    pumps.asks = False
    asking = asyncio.create_task(blend(bar, "r1", timeout_s=0.5))
    run = await pumps.ordered()
    with pytest.raises(TimeoutError):
        await asking
    await pumps.bus.publish(f"{TOPIC}/bar-pumps/event/asked", encode(Asked(run, "n")))
    await until(lambda: bar.heard.of("bar/event/failed"))
    (failed,) = bar.heard.data("bar/event/failed")
    assert (failed["run_id"], failed["request"], failed["code"]) == (run, "r1", "cancelled")
    assert bar.heard.of("bar-pumps/cmd/confirm") == []
    again = await blend(bar, "r1")
    assert again["error"]["code"] == "cancelled"
    await bar.stop("domain")
    await bar.start_domain()
    again = await blend(bar, "r1")
    assert again["error"]["code"] == "cancelled"
    assert len(bar.heard.of("bar-pumps/cmd/run")) == 1


async def test_a_request_that_was_confirmed_gets_its_first_answer_when_it_is_sent_again(
    bar: House, pumps: PumpsByHand
) -> None:
    first = await blend(bar, "r1")
    assert first["ok"]
    assert await blend(bar, "r1") == first
    run = await pumps.ordered()
    await pumps.event("started", PumpsStarted(run, {"0": 4.0}))
    await until(lambda: bar.heard.of("bar/event/started"))
    assert bar.heard.data("bar/event/started")[0]["request"] == "r1"
    assert len(bar.heard.of("bar-pumps/cmd/run")) == 1
    assert (await ask(bar, "cancel", Cancel(id="r1")))["outcome"] == "too_late"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("history", {"skip": 2**63}),
        ("refill", {"pump": 2**63}),
        ("configure", {"pump": -(2**63)}),
        ("blend", {"cup_size": 2**63, "ratios": {"0": 1.0}}),
        ("blend", {"cup_size": 0.1, "ratios": {"0" * 1000: 1.0}}),
        ("blend", {"cup_size": 0.1, "ratios": {str(n): 1.0 for n in range(1000)}}),
        ("blend", {"cup_size": 0.1, "ratios": {"0": 1.0}, "by": "x" * 1000}),
    ],
)
async def test_numbers_and_texts_without_a_bound_are_refused(
    bar: House, name: str, body: dict[str, object]
) -> None:
    answer = json.loads(await bar.watcher.request(f"{TOPIC}/bar/cmd/{name}", encode(body)))
    assert answer["error"]["code"] == "bad_request"


async def test_a_frozen_broker_does_not_keep_the_bar_s_lock(
    bar: House, pumps: PumpsByHand, mosquitto: Part
) -> None:
    pumps.asks = False
    ordering = asyncio.create_task(order_blend(bar))
    await pumps.ordered()
    with mosquitto.frozen():
        async with asyncio.timeout(PATIENCE_S), bar.domain.kept.bars.lock:
            pass
    ordering.cancel()


async def blend(bar: House, id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Order a blend under this id, and confirm it; the answer."""
    body = encode(Blend(cup_size=0.2, ratios={"0": 1.0}))
    topic = f"{TOPIC}/bar/cmd/blend"
    payload = await bar.watcher.request(topic, body, timeout_s=timeout_s, actuates=True, id=id)
    answer: dict[str, Any] = json.loads(payload)
    return answer


async def test_while_the_store_is_away_nothing_is_poured_nor_kept_for_later(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    part = store_part(tmp_path / "store")
    part.start()
    settings = StoreSettings(timeout_s=1.0)
    try:
        async with Store(settings, f"mongodb://127.0.0.1:{part.port}") as store:
            house = House(make_bus, store, tmp_path)
            try:
                await house.start()
                await asyncio.to_thread(part.kill)
                body = encode(Blend(cup_size=0.1, ratios={"0": 1.0}))
                topic = f"{TOPIC}/bar/cmd/blend"
                payload = await house.watcher.request(topic, body, timeout_s=20)
                assert json.loads(payload)["error"]["code"] == "unavailable"
                for name, asked in (("configure", Configure(pump=0)), ("state", Ask())):
                    topic = f"{TOPIC}/bar/cmd/{name}"
                    payload = await house.watcher.request(topic, encode(asked), timeout_s=20)
                    assert json.loads(payload)["error"]["code"] == "unavailable"
                await asyncio.to_thread(part.start)
                await eventually(lambda: pours(house))
                assert list(house.pins.ran()) == [5]
            finally:
                await house.end()
    finally:
        part.stop()


async def pours(house: House) -> bool:
    """Does it pour again? It tries, with another pump."""
    async with house.connect() as gui:
        try:
            return await gui.pour(Said(0.01, {"5": 1.0})) != []
        except RuntimeError:
            return False


async def test_dead_letters_are_kept(bar: House, store: Store, mosquitto: Part) -> None:
    pub(mosquitto, "patchbay/dead/bartender", "a letter that somebody made up")

    async def buried() -> bool:
        return await store.count("dead", {}) == 1

    await eventually(buried)
