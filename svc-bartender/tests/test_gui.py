"""The GUIs' edge in a whole bar: every message of the seed, the extras, and every bad input."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from patchbay.testing import PATIENCE_S, Lateness, until
from patchbay_bartender.messages import TOLERANCE_S
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import (
    Blend,
    Config,
    Echo,
    Error,
    GetBlendStatus,
    GetConfig,
    GetPumpsStates,
    PumpsStates,
    Refill,
    ReloadConfig,
    SecPerLiter,
    SetPump,
    SetSecPerLiter,
    Status,
    Stop,
)
from tests.bartender_bar import House, with_settings

SEED_BLEND = (
    '{"type": "blend", "data": {"cup_size": 0.04, "ratios": {"1": 0.2, "2": 0.1, "5": 0.7}}}'
)
SEED_REFILL = '{"type": "refill", "data": {"pump": 4}}'
SEED_ECHO = '{"type": "echo", "data": {"msg": "toaster"}}'
SEED_STATUS = {"type": "status", "data": {"remaining_time": 2}}


async def text(connection: Any) -> Any:
    """The next message, as JSON."""
    return json.loads(await asyncio.wait_for(connection.recv(), PATIENCE_S))


async def test_the_seed_s_blend_pours_what_it_says_and_counts_down_to_zero(
    house: House, lateness: Lateness
) -> None:
    await house.domain.kept.set_sec_per_liter(213)
    async with connect(f"ws://127.0.0.1:{house.port}") as gui:
        await gui.send(SEED_BLEND)
        said = [await text(gui)]
        while said[-1]["data"]["remaining_time"]:
            said.append(await text(gui))
    assert [one["data"]["remaining_time"] for one in said] == [6, 5, 4, 3, 2, 1, 0]
    assert SEED_STATUS in said
    ran = house.pins.ran()
    assert sorted(ran) == [1, 2, 5]
    assert ran[1] == pytest.approx(0.2 * 0.04 * 213, abs=0.1 + lateness.worst_s)
    assert ran[2] == pytest.approx(0.1 * 0.04 * 213, abs=0.1 + lateness.worst_s)
    assert ran[5] == pytest.approx(0.7 * 0.04 * 213, abs=0.1 + lateness.worst_s)


async def test_the_seed_s_echo_comes_back_as_it_was(house: House) -> None:
    async with connect(f"ws://127.0.0.1:{house.port}") as gui:
        await gui.send(SEED_ECHO)
        assert await text(gui) == json.loads(SEED_ECHO)
        await gui.send('{"type": "echo", "data": "anything"}')
        assert await text(gui) == {"type": "echo", "data": "anything"}
        await gui.send('{"type": "echo"}')
        assert await text(gui) == {"type": "echo", "data": None}


async def told_to_retry(gui: Gui, doing: str) -> int:
    """The seed's text; the seconds in it."""
    error = (await gui.hear(Error)).msg
    seconds = error.removeprefix(f"Already {doing} ! Retry in ").removesuffix(" sec")
    assert error == f"Already {doing} ! Retry in {int(seconds)} sec"
    return int(seconds)


@pytest.mark.parametrize("pump", ["4", '"4"'])
async def test_a_refill_takes_the_time_of_its_position(
    house: House, pump: str, lateness: Lateness
) -> None:
    async with house.connect() as gui:
        await gui.say(SetPump(4, refill_time=0.4))
        await gui.hear(PumpsStates)
        await gui.connection.send(SEED_REFILL.replace("4", pump))
        await gui.hear(Status, lambda one: one.remaining_time == 1)
        await gui.hear(Status, lambda one: one.remaining_time == 0)
    assert house.pins.ran() == {4: pytest.approx(0.4, abs=0.1 + lateness.worst_s)}


async def test_every_gui_hears_the_status_and_one_that_leaves_changes_nothing(
    house: House, lateness: Lateness
) -> None:
    async with house.connect() as one, house.connect() as other:
        async with house.connect() as third:
            await third.say(Blend(0.1, {"0": 0.6}))
            await third.hear(Status)
        for gui in (one, other):
            await gui.hear(Status, lambda said: said.remaining_time == 0)
            assert gui.statuses == [2, 1, 0]
    assert house.pins.ran() == {0: pytest.approx(1.2, abs=0.1 + lateness.worst_s)}


async def test_a_second_blend_is_told_when_to_come_back_and_all_else_still_works(
    house: House,
) -> None:
    async with house.connect() as first, house.connect() as second:
        began = time.monotonic()
        await first.say(Blend(0.15, {"3": 1.0}))
        await first.hear(Status)
        for other in (Blend(0.1, {"4": 1.0}), Refill(4)):
            await second.say(other)
            left = await told_to_retry(second, "blending")
            assert 3 >= left >= 3 - TOLERANCE_S - (time.monotonic() - began)
        await second.say(Echo(b'{"msg":"toaster"}'))
        assert await second.hear(Echo) == Echo(b'{"msg":"toaster"}')
        await second.say(GetConfig())
        await second.hear(Config)
        await second.say(GetBlendStatus())
        left = (await second.hear(Status)).remaining_time
        assert 3 >= left >= 3 - TOLERANCE_S - (time.monotonic() - began)
        await first.hear(Status, lambda one: one.remaining_time == 0)
        assert Error not in map(type, first.heard)
    assert sorted(house.pins.ran()) == [3]


async def test_a_refill_is_what_it_is_called_while_it_runs(house: House) -> None:
    async with house.connect() as gui:
        began = time.monotonic()
        await gui.say(Refill(7))
        await gui.hear(Status)
        await gui.say(Refill(0))
        left = await told_to_retry(gui, "refilling")
        assert 5 >= left >= 5 - TOLERANCE_S - (time.monotonic() - began)
        await gui.say(Stop())
        await gui.hear(Status, lambda one: one.remaining_time == 0)


async def test_the_extras_are_answered_to_whom_they_should_be(house: House) -> None:
    async with house.connect() as gui, house.connect() as other:
        await gui.say(GetBlendStatus())
        assert await gui.hear(Status) == Status(0)
        await gui.say(GetPumpsStates())
        assert len((await gui.hear(PumpsStates)).pumps) == 8
        await gui.say(GetConfig())
        config = await gui.hear(Config)
        assert config.sec_per_liter == 20
        assert [pump.refill_time for pump in config.pumps] == [2, 2, 3, 3, 4, 4, 5, 5]
        assert {(pump.enabled, pump.speed_ratio) for pump in config.pumps} == {(True, 1.0)}
        assert other.heard == []
        await gui.say(SetPump(3, enabled=False))
        for one in (gui, other):
            assert not (await one.hear(PumpsStates)).pumps[3].enabled
        await gui.say(SetPump(3, refill_time=7))
        for one in (gui, other):
            assert (await one.hear(PumpsStates)).pumps[3].refill_time == 7
        await gui.say(SetPump(5, speed_ratio=1.5))
        for one in (gui, other):
            assert (await one.hear(Config)).pumps[5].speed_ratio == 1.5
        await gui.say(SetSecPerLiter(100))
        for one in (gui, other):
            assert await one.hear(SecPerLiter) == SecPerLiter(100)
        await gui.say(ReloadConfig())
        for one in (gui, other):
            told = await one.hear(Config)
            assert (told.sec_per_liter, told.pumps[5].speed_ratio) == (100, 1.5)


NONSENSE = [
    "this is not JSON",
    '{"type": "blend", "data": {"cup_size": 0.04',
    "[]",
    "{}",
    '{"data": 1}',
    '{"type": 7}',
    '{"type": "pour"}',
    '{"type": "blend"}',
    '{"type": "blend", "data": {"ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 0, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": -0.1, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": "0.1", "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": true, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": NaN, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 1e999, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 1.01, "ratios": {"1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"8": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"-1": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"x": 0.2}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"6": 0.2}}}',  # it is disabled
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"1": 1.01}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"1": -0.1}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"1": true}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"1": null}}}',
    '{"type": "blend", "data": {"cup_size": 0.1}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {}}}',
    '{"type": "blend", "data": {"cup_size": 0.1, "ratios": {"1": 0, "2": 0.0}}}',
    '{"type": "blend", "data": {"cup_size": 1.0, "ratios": {"7": 1.0}}}',  # over max_run_seconds
    '{"type": "refill"}',
    '{"type": "refill", "data": {"pump": 8}}',
    '{"type": "refill", "data": {"pump": "four"}}',
    '{"type": "refill", "data": {"pump": 6}}',
    '{"type": "refill", "data": {"pump": 1.5}}',
    '{"type": "set_pump_state", "data": {"pump_index": 1}}',
    '{"type": "set_pump_state", "data": {"pump_index": 9, "state": true}}',
    '{"type": "set_pump_refill_time", "data": {"pump_index": 1, "refill_time": 0}}',
    '{"type": "set_pump_speed_ratio", "data": {"pump_index": 1, "speed_ratio": -1}}',
    '{"type": "set_sec_per_liter", "data": {"sec_per_liter": 0}}',
    '{"type": "echo", "data": ' + "[" * 5000 + "]" * 5000 + "}",
]


async def test_every_bad_input_gets_an_error_and_nothing_else_changes(house: House) -> None:
    async with house.connect() as gui, house.connect() as other:
        await gui.say(SetPump(6, enabled=False))
        await other.hear(PumpsStates)
        await gui.say(SetPump(7, speed_ratio=20))
        before = await other.hear(Config)
        for bad in NONSENSE:
            await gui.connection.send(bad)
            assert (await gui.hear(Error)).msg, bad
        await gui.say(GetConfig())
        assert await gui.hear(Config) == before
        await gui.say(GetBlendStatus())
        assert await gui.hear(Status) == Status(0)
        assert Error not in map(type, other.heard)
        assert Status not in map(type, other.heard)
    assert house.pins.ran() == {}
    assert await house.blends() == []


async def test_a_message_over_64_kib_closes_its_connection_and_no_other(house: House) -> None:
    async with house.connect() as other:
        async with connect(f"ws://127.0.0.1:{house.port}") as gui:
            await gui.send('{"type": "echo", "data": "' + "x" * 65_536 + '"}')
            with pytest.raises(ConnectionClosed) as closed:
                await gui.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        await other.say(Echo(b"1"))
        assert await other.hear(Echo) == Echo(b"1")


async def test_a_stop_is_told_to_the_pumps_and_everybody_hears_zero(
    house: House, lateness: Lateness
) -> None:
    async with house.connect() as gui, house.connect() as other:
        await gui.say(Blend(1.0, {"0": 1.0, "1": 1.0}))
        await gui.hear(Status)
        await until(lambda: house.pins.on == [0, 1])
        said_at = time.monotonic()
        await other.say(Stop())
        for one in (gui, other):
            await one.hear(Status, lambda said: said.remaining_time == 0)
            assert Error not in map(type, one.heard)
    assert house.pins.on == []
    # WebSocket, broker, pumps: the target is 50 ms, and each of three may wake late.
    assert max(off_at for _, _, off_at in house.pins.spans()) - said_at < 0.1 + 3 * lateness.worst_s
    await house.idle()
    (record,) = await house.blends()
    assert record["status"] == "stopped"


async def test_a_blend_without_pumps_is_refused_at_once(house: House) -> None:
    await house.stop("pumps")
    await until(lambda: not house.domain.presence.online)
    async with house.connect() as gui:
        await gui.say(Blend(0.1, {"0": 1.0}))
        assert await gui.hear(Error) == Error("the pumps are offline")
        assert gui.statuses == []
    assert await house.blends() == []


async def test_a_gui_is_told_when_its_own_blend_fails_and_all_hear_zero(house: House) -> None:
    async with house.connect() as gui, house.connect() as other:
        await gui.say(Blend(0.5, {"0": 1.0}))
        await until(lambda: house.pins.on == [0])
        await house.stop("pumps")
        assert house.pins.on == []
        for one in (gui, other):
            await one.hear(Status, lambda said: said.remaining_time == 0)
        await until(lambda: Error("the pumps' process was stopped") in gui.heard)
        assert Error not in map(type, other.heard)


@with_settings(answer_s=1)
async def test_without_a_scheduler_a_gui_is_told_so(house: House) -> None:
    await house.stop("domain")
    async with house.connect() as gui:
        await gui.say(Blend(0.1, {"0": 1.0}))
        assert await gui.hear(Error) == Error("the scheduler does not answer")
    assert house.pins.ran() == {}


async def test_a_gui_that_asks_too_much_at_once_is_told_so(house: House) -> None:
    await house.stop("domain")
    async with house.connect() as gui:
        for _ in range(17):
            await gui.say(ReloadConfig())
        assert await gui.hear(Error) == Error("too much at once")


async def test_a_gui_in_the_middle_of_a_blend_gets_the_rest_of_the_count(house: House) -> None:
    async with house.connect() as gui:
        await gui.say(Blend(0.13, {"0": 1.0}))
        await gui.hear(Status, lambda one: one.remaining_time == 2)
        async with house.connect() as late:
            await late.hear(Status, lambda one: one.remaining_time == 0)
            said = len(late.statuses)
            assert late.statuses == gui.statuses[-said:]
            assert said < len(gui.statuses)
