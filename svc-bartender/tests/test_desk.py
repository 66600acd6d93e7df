"""How commands come to the bar's desk, and what is answered: twice, late, beside others."""

from __future__ import annotations

import asyncio
import json

import pytest

from patchbay.messages import encode, new_event
from patchbay.testing import Part, Seen, pub, until
from patchbay_bartender.messages import Ask, Blend, Configure, PumpsFinished, Stop
from patchbay_bartender.wire.gui import Blend as Said
from patchbay_bartender.wire.gui import Error
from patchbay_bartender.wire.gui import Stop as SaidStop
from tests.bartender_bar import House, PumpsByHand, ask, order_blend, stopped

TOPIC = "patchbay/bartender"


async def test_a_stop_waits_for_no_other_command_and_stops_what_is_being_saved(
    bar: House, pumps: PumpsByHand
) -> None:
    async with bar.domain.kept.bars.lock:  # as while the store is slow
        asked_for = asyncio.create_task(order_blend(bar))
        await bar.watcher.publish(f"{TOPIC}/bar/cmd/configure", b"{}")
        assert await ask(bar, "stop", Stop()) == {"ok": True, "stopped": None}
        assert stopped(bar) == {None}
    assert (await asked_for)["error"] == {"code": "stopped", "message": "stopped"}
    assert bar.heard.of("bar-pumps/cmd/run") == []


@pytest.mark.parametrize(
    ("payload", "which"),
    [
        (b"", None),
        (b"STOP!", None),
        (b'{"run_id": "r1"}', "r1"),
        (b'{"specversion": "1.0", "id": "1", "data": {"run_id": "r1"}}', "r1"),
    ],
)
async def test_a_stop_is_understood_however_it_is_said(
    bar: House, payload: bytes, which: str | None
) -> None:
    await bar.watcher.publish(f"{TOPIC}/bar/cmd/stop", payload)
    await until(lambda: bar.heard.of("bar-pumps/cmd/stop"))
    assert stopped(bar) == {which}


async def test_a_command_that_comes_again_is_answered_the_same_and_done_once(
    bar: House, pumps: PumpsByHand
) -> None:
    event = in_envelope(Blend(cup_size=0.2, ratios={"0": 1.0}))
    first = json.loads(await bar.watcher.request(f"{TOPIC}/bar/cmd/blend", event))
    second = json.loads(await bar.watcher.request(f"{TOPIC}/bar/cmd/blend", event))
    assert first["ok"]
    assert second == first
    assert len(bar.heard.of("bar-pumps/cmd/run")) == 1


def in_envelope(blend: Blend) -> bytes:
    """The same event each time."""
    return new_event(id="c1", source="somebody", type="patchbay.bartender.blend", data=blend)


@pytest.mark.parametrize("envelope", [False, True])
async def test_a_blend_that_comes_again_late_is_answered_the_same_and_poured_once(
    bar: House,
    pumps: PumpsByHand,
    monkeypatch: pytest.MonkeyPatch,
    envelope: bool,
) -> None:
    """The scheduler ends when it is poured already, before it could say so."""
    replies = Seen()
    bar.watcher.subscribe("patchbay/reply/me", replies.take)
    held = asyncio.Event()

    async def hold() -> None:
        held.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bar.domain.kept, "save_records", hold)
    blend = Blend(cup_size=0.2, ratios={"0": 1.0})
    said = in_envelope(blend) if envelope else encode(blend)
    topic = f"{TOPIC}/bar/cmd/blend"
    await bar.watcher.publish(topic, said, response_topic="patchbay/reply/me", correlation=b"7")
    run = await pumps.ordered()
    await held.wait()
    await bar.stop("domain")
    await bar.start_domain()
    await until(lambda: replies)
    assert json.loads(replies[0].payload) == {"ok": True, "run_id": run, "seconds": 4.0}
    assert replies[0].correlation == b"7"
    await pumps.state(run)
    await pumps.event("finished", PumpsFinished(run, "done", "", {"0": 4.0}))
    await until(lambda: bar.heard.of("bar/event/finished"))
    if envelope:  # once more, when it is done and nobody is there
        await bar.stop("domain")
        await bar.watcher.publish(topic, said, response_topic="patchbay/reply/me")
        await bar.start_domain()
        await until(lambda: len(replies) == 2)
        assert replies.payloads[1] == replies.payloads[0]
    await ask(bar, "state", Ask())  # all that came before was handled
    assert [one["run_id"] for one in bar.heard.of("bar-pumps/cmd/run")] == [run]
    assert bar.heard.of("bar/event/rejected") == []
    assert len(await bar.blends()) == 1


async def test_a_blend_that_nobody_has_seen_in_time_is_refused_however_it_is_said(
    bar: House, pumps: PumpsByHand, mosquitto: Part
) -> None:
    blend = Blend(cup_size=0.2, ratios={"0": 1.0})
    await bar.stop("domain")
    for said in (encode(blend), in_envelope(blend)):
        pub(mosquitto, f"{TOPIC}/bar/cmd/blend", said.decode(), "-q", "1")
    pub(mosquitto, f"{TOPIC}/bar/cmd/refill", '{"pump": 1}', "-q", "1")
    await bar.start_domain()
    await until(lambda: len(bar.heard.of("bar/event/rejected")) == 3)
    assert {one["code"] for one in bar.heard.data("bar/event/rejected")} == {"too_late"}
    assert bar.heard.of("bar-pumps/cmd/run") == []
    again = json.loads(await bar.watcher.request(f"{TOPIC}/bar/cmd/blend", in_envelope(blend)))
    assert again["ok"]  # what was refused was not obeyed, and may be asked for again


async def test_a_stop_that_waited_while_the_scheduler_was_away_still_stops(
    bar: House, mosquitto: Part
) -> None:
    await bar.stop("domain")
    pub(mosquitto, f"{TOPIC}/bar/cmd/stop", "{}", "-q", "1")
    await bar.start_domain()
    await until(lambda: bar.heard.of("bar-pumps/cmd/stop"))
    assert stopped(bar) == {None}


async def test_a_stop_is_handled_once_and_has_one_answer_and_one_event(house: House) -> None:
    replies = Seen()
    house.watcher.subscribe("patchbay/reply/me", replies.take)
    run = (await ask(house, "blend", Blend(cup_size=1.0, ratios={"2": 1.0})))["run_id"]
    await until(lambda: house.pins.on == [2])
    topic = f"{TOPIC}/bar/cmd/stop"
    await house.watcher.publish(topic, b"{}", response_topic="patchbay/reply/me")
    await until(lambda: house.heard.of("bar/event/failed"))
    await until(lambda: replies)
    await ask(house, "state", Ask())  # all that came before was handled
    assert [json.loads(one) for one in replies.payloads] == [{"ok": True, "stopped": run}]
    assert [one["run_id"] for one in house.heard.of("bar-pumps/cmd/stop")] == [None]
    assert [one["code"] for one in house.heard.data("bar/event/failed")] == ["stopped"]


async def test_a_blend_that_is_stopped_while_it_is_saved_ends_as_one_that_was_stopped(
    house: House,
) -> None:
    async with house.connect() as gui:
        async with house.domain.kept.bars.lock:  # as while the store is slow
            await gui.say(Said(0.5, {"2": 1.0}))
            await until(lambda: house.heard.of("bar/cmd/blend"))
            await gui.say(SaidStop())
            # The GUI tells the pumps, and so does the scheduler.
            await until(lambda: len(house.heard.of("bar-pumps/cmd/stop")) == 2)
        await until(lambda: house.heard.of("bar/event/failed"))
        (failed,) = house.heard.data("bar/event/failed")
        assert (failed["code"], failed["reason"]) == ("stopped", "stopped")
        await until(lambda: gui.statuses[-1:] == [0])
        assert not [one for one in gui.heard if isinstance(one, Error)]
    await house.idle()
    (record,) = await house.blends()
    assert (record["status"], record["reason"], record["millilitres"]) == ("stopped", "stopped", {})
    assert house.pins.ran() == {}


async def test_what_is_set_survives_a_restart(bar: House) -> None:
    wanted = Configure(pump=2, enabled=False, refill_time=6.5, speed_ratio=2, sec_per_liter=99)
    answer = await ask(bar, "configure", wanted)
    assert answer["sec_per_liter"] == 99
    await bar.stop("domain")
    await bar.start_domain()
    state = (await ask(bar, "state", Ask()))["bar"]
    assert state["sec_per_liter"] == 99
    assert state["pumps"][2] == {
        "enabled": False,
        "refill_time": 6.5,
        "speed_ratio": 2,
        "millilitres": 0.0,
    }


async def test_what_a_gui_sets_and_gets_an_error_for_is_never_set(bar: House) -> None:
    async with bar.domain.kept.bars.lock:  # as while the store is slow: the queue waits for it
        waits = asyncio.create_task(ask(bar, "state", Ask()))
        await until(lambda: bar.heard.of("bar/cmd/state"))
        with pytest.raises(TimeoutError):
            await bar.watcher.request(
                f"{TOPIC}/bar/cmd/configure",
                encode(Configure(sec_per_liter=99)),
                timeout_s=0.3,
                actuates=True,
            )
    await waits
    assert (await ask(bar, "state", Ask()))["bar"]["sec_per_liter"] == 20
