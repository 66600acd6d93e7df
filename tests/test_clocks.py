"""Wall clocks that are wrong: of the domain's machine, of an edge's, or of both.

Each unit is a process with a wall clock of its own (`tests.wrong_clocks`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchbay.messages import now, parse_time
from patchbay.testing import eventually, until
from patchbay_locker.simulator import Board
from tests.house import House, UnitPart, codes_of, lists
from tests.wrong_clocks import DAY_S, YEARS_S, WallClock

CODES = {2: "1492", 5: "0007"}
MINUTES = 600
AT_ONCE = {"LOCKER__OFFLINE_AFTER_S": 2}
WHO = ["domain", "edge", "both"]


class Clocks:
    """A house whose units have wall clocks that the test sets."""

    def __init__(self, directory: Path) -> None:
        self.house = House(directory, watch="patchbay/locker/#")
        self.domain = WallClock(directory, "domain")
        self.edge = WallClock(directory, "edge")
        self.domain.of(self.house.domain, **AT_ONCE)
        self.edge.of(self.house.edge, **AT_ONCE)
        self.around = AsyncExitStack()

    async def start(self) -> House:
        return await self.around.enter_async_context(self.house)

    def of(self, who: str) -> Sequence[WallClock]:
        return {"domain": [self.domain], "edge": [self.edge]}.get(who, [self.domain, self.edge])

    async def state(self, board: Board) -> dict[str, Any]:
        answer = await self.house.ask(board.id, "state")
        found: dict[str, Any] = answer["board"]
        return found

    async def restart(self, *units: UnitPart) -> None:
        await self.house.kill(*units)
        await self.house.start(*units)
        for unit in units:
            await self.house.online(unit)

    def reboot(self, unit: UnitPart) -> None:
        """Whatever the unit (not running) knows of this boot of its machine is gone."""
        (self.house.directory / "state" / "units" / unit.instance / "clock.json").unlink()

    async def rented(self, id: str = "1953") -> Board:
        board = self.house.board(id)
        await board.report()
        await self.house.assign(board, CODES, MINUTES)
        return board


@pytest.fixture
async def clocks(tmp_path: Path) -> AsyncIterator[Clocks]:
    """The house is started by the test."""
    made = Clocks(tmp_path)
    async with made.around:
        yield made


async def minutes(board: Board) -> set[int]:
    """What the board is told of the time that its codes have left."""
    return {code.minutes for code in (await board.report()).codes}


async def goes_on(clocks: Clocks, board: Board, left: int = MINUTES) -> None:
    """Whatever clocks say: the rentals run, as long as before, and the board is seen now."""
    assert await minutes(board) <= {left - 1, left}
    assert codes_of(await board.report()) == CODES
    await clocks.house.persisted([board])
    state = await clocks.state(board)
    assert state["busy"] == [2, 5]
    assert state["online"]
    assert abs(parse_time(state["last_seen"]) - now()) < timedelta(minutes=1)
    for rental in state["rentals"]:
        ends = parse_time(rental["expires_at"])
        assert abs(ends - now() - timedelta(minutes=left)) < timedelta(minutes=2)


async def jump_and_return(clocks: Clocks, who: str, step_s: float, held_s: float) -> None:
    await clocks.start()
    board = await clocks.rented()
    for clock in clocks.of(who):
        clock.steps_to(step_s)
    async with asyncio.timeout(held_s + 60):
        for _ in range(max(1, round(held_s / 2))):
            await goes_on(clocks, board)
            await asyncio.sleep(min(2.0, held_s))
    for clock in clocks.of(who):
        clock.steps_to(0)
    await goes_on(clocks, board)
    assert board.empty_after_codes == 0

    async def is_offline() -> bool:
        return not (await clocks.state(board))["online"]

    await eventually(is_offline)  # it reports no more, and that is noticed


async def test_a_clock_that_jumps_for_seconds_ends_no_rental_and_leaves_no_dead_board_online(
    clocks: Clocks,
) -> None:
    await jump_and_return(clocks, "both", YEARS_S, 2)


@pytest.mark.long
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("step_s", [YEARS_S, -YEARS_S, 7200, -7200, 90])
@pytest.mark.timeout(300)
async def test_no_jump_of_any_size_ends_or_stretches_a_rental(
    clocks: Clocks, who: str, step_s: float
) -> None:
    await jump_and_return(clocks, who, step_s, 12)


async def killed_meanwhile(clocks: Clocks, who: str, step_s: float) -> None:
    """Units that are killed and started again while the clock is wrong, and again when it is back,
    go on with the right time."""
    house = await clocks.start()
    board = await clocks.rented()
    for back_s in (step_s, 0):
        for clock in clocks.of(who):
            clock.steps_to(back_s)
        await clocks.restart(house.domain, house.edge)
        await eventually(lambda: lists(board, CODES))
        await goes_on(clocks, board)
    assert board.empty_after_codes == 0


async def test_units_that_are_killed_while_clocks_are_wrong_go_on_with_the_right_time(
    clocks: Clocks,
) -> None:
    await killed_meanwhile(clocks, "both", YEARS_S)


@pytest.mark.long
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("step_s", [YEARS_S, -YEARS_S, 7200, -7200])
@pytest.mark.timeout(300)
async def test_whoever_is_killed_while_clocks_are_wrong_goes_on(
    clocks: Clocks, who: str, step_s: float
) -> None:
    await killed_meanwhile(clocks, who, step_s)


async def boots_in_1970(clocks: Clocks, who: str) -> None:
    for clock in clocks.of(who):
        clock.is_not_synchronized()
        clock.goes_to_1970()
    house = await clocks.start()
    board = await clocks.rented()
    rented_at = now()
    assert await minutes(board) <= {MINUTES - 1, MINUTES}
    assert codes_of(await board.report()) == CODES
    for clock in clocks.of(who):
        clock.steps_to(0)
        clock.synchronizes()

    async def is_right() -> bool:
        state = await clocks.state(board)
        ends = {parse_time(one["expires_at"]) for one in state["rentals"]}
        wanted = rented_at + timedelta(minutes=MINUTES)
        return all(abs(one - wanted) < timedelta(minutes=1) for one in ends)

    await eventually(is_right)
    await eventually(lambda: told(board))
    await goes_on(clocks, board)
    [rental, _] = await house.documents("rentals")
    assert abs(rental["created_at"] - rented_at) < timedelta(minutes=1)


async def told(board: Board) -> bool:
    return await minutes(board) <= {MINUTES - 1, MINUTES}


async def test_a_rental_made_in_1970_ends_as_long_after_as_it_was_made_for(clocks: Clocks) -> None:
    await boots_in_1970(clocks, "both")


@pytest.mark.long
@pytest.mark.parametrize("who", ["domain", "edge"])
async def test_only_one_machine_boots_in_1970(clocks: Clocks, who: str) -> None:
    await boots_in_1970(clocks, who)


async def test_after_a_boot_with_a_wrong_clock_no_rental_ends_until_it_is_synchronized(
    clocks: Clocks,
) -> None:
    house = await clocks.start()
    board = await clocks.rented()
    await house.kill(house.domain)
    clocks.reboot(house.domain)
    clocks.domain.is_not_synchronized()
    clocks.domain.steps_to(30 * DAY_S)
    await house.start(house.domain)
    await house.online(house.domain)
    await eventually(lambda: lists(board, CODES))
    assert (await clocks.state(board))["busy"] == [2, 5]
    alarms = house.said["patchbay/locker/all/event/alarm"]
    await until(lambda: alarms)
    assert msgspec.json.decode(alarms[0].payload)["data"]["alarm"] == "clock_unsure"

    clocks.domain.steps_to(0)
    clocks.domain.synchronizes()
    await eventually(lambda: told(board))
    await goes_on(clocks, board)
    assert board.empty_after_codes == 0


async def test_a_wrong_clock_that_nobody_synchronizes_counts_after_a_while(clocks: Clocks) -> None:
    clocks.domain.of(clocks.house.domain, RUNTIME__CLOCK_WAIT_S=3)
    house = await clocks.start()
    board = await clocks.rented()
    await house.kill(house.domain)
    clocks.reboot(house.domain)
    clocks.domain.is_not_synchronized()
    clocks.domain.steps_to(30 * DAY_S)
    await house.start(house.domain)

    async def is_free() -> bool:
        return (await clocks.state(board))["busy"] == []

    await eventually(is_free)
    ended = {one["status"] for one in await house.documents("rentals")}
    assert ended == {"expired"}


async def test_an_edge_whose_clock_is_wrong_from_the_start_tells_boards_the_right_minutes(
    clocks: Clocks,
) -> None:
    clocks.edge.steps_to(-7200)
    house = await clocks.start()
    board = await clocks.rented()
    await goes_on(clocks, board)
    await house.kill(house.edge)
    house.empty_the_outbox()
    clocks.edge.steps_to(2 * MINUTES * 60)
    await house.start(house.edge)
    await eventually(lambda: lists(board, CODES))
    assert await minutes(board) <= {MINUTES - 1, MINUTES}
    assert board.empty_after_codes == 0


async def test_without_a_domain_an_edge_goes_on_with_the_last_offset(clocks: Clocks) -> None:
    clocks.edge.steps_to(7200)
    house = await clocks.start()
    board = await clocks.rented()
    await house.kill(house.domain, house.edge)
    clocks.edge.steps_to(-YEARS_S)
    await house.start(house.edge)
    assert codes_of(await board.report()) == CODES
    assert await minutes(board) <= {MINUTES - 1, MINUTES}


async def test_a_board_that_an_older_version_saw_in_the_future_is_noticed_when_it_is_silent(
    clocks: Clocks,
) -> None:
    house = await clocks.start()
    board = await clocks.rented()
    await house.persisted([board])
    await house.kill(house.domain)
    [document] = await house.documents("boards")
    document["last_seen"] = datetime(2080, 1, 1, tzinfo=UTC)
    await house.kept.save("boards", [document])
    await house.start(house.domain)

    async def is_offline() -> bool:
        return not (await clocks.state(board))["online"]

    await eventually(is_offline)
    await board.report()
    await goes_on(clocks, board)
