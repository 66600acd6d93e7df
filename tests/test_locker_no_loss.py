"""No loss, in the locker: 200 boards report accesses while every part is killed, again and again.

``HOUSE_SEED`` in the environment makes another run of it. Half of the boards send the very same
bytes again after no answer, so their counts and ours are equal; the others ask again with the next
SEND, as the protocol has it, so that an access whose answer was lost may come twice and is marked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest

from patchbay.store import Document
from patchbay_locker.simulator import Behaviour, Board
from tests.house import House, codes_of

BOARDS = 200
SEED = int(os.environ.get("HOUSE_SEED", "1953"))
KILL_EVERY_S = (0.9, 1.7)
"""Ten rounds are 40 kills in some 55 s; a part is back within half a second, so each meets the
others at work."""
PAUSE_S = (0.2, 0.5)
REBOOTS = 0.02
"""The chance that a board loses its power after an answer."""
REPORTS_BEFORE_REBOOT = 3
PATIENCE_S = 60.0


@dataclass
class Life:
    """A board and its codes, and what it has seen."""

    board: Board
    codes: dict[int, str]
    chance: random.Random
    wrong: list[str] = field(default_factory=list)

    async def go_on(self, enough: asyncio.Event) -> None:
        """Report accesses until it is enough."""
        since_boot = 0
        while not enough.is_set():
            opened = self.chance.sample(sorted(self.codes), self.chance.choice([1, 1, 2]))
            answer = await self.board.report(accessed=opened, deadline_s=PATIENCE_S)
            codes = codes_of(answer)
            if codes != self.codes:
                self.wrong.append(f"SEND={answer.send_text}: codes {codes}, not {self.codes}")
            since_boot += 1
            if since_boot > REPORTS_BEFORE_REBOOT and self.chance.random() < REBOOTS:
                self.board.reboot()
                since_boot = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(*PAUSE_S)):
                    await enough.wait()


def lives(house: House) -> list[Life]:
    """The boards: ways to repeat and to connect, and three codes each."""
    made = []
    for number in range(BOARDS):
        chance = random.Random(f"{SEED}/{number}")
        behaviour = Behaviour(
            repeat="same" if number % 2 else "next", keeps_connection=number % 4 < 2
        )
        board = house.board(f"Board-{number:03}", behaviour)
        board.chance = chance
        codes = {cell: f"{chance.randrange(10_000):04}" for cell in chance.sample(range(1, 65), 3)}
        if len(set(codes.values())) < len(codes):
            codes = {cell: f"{cell:04}" for cell in codes}
        made.append(Life(board, codes, chance))
    return made


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path) as house:
        yield house


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_whoever_is_killed_each_access_is_kept_once_and_no_board_is_wiped(
    house: House, rounds: int
) -> None:
    began = time.monotonic()
    fleet = lives(house)
    await asyncio.gather(*(life.board.report() for life in fleet))
    await asyncio.gather(*(house.assign(life.board, life.codes) for life in fleet))

    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for life in fleet:
            group.create_task(life.go_on(enough))
        await kill_in_turn(house, rounds)
        enough.set()
    loaded_s = time.monotonic() - began
    await asyncio.gather(*(life.board.report(accessed=list(life.codes)[:1]) for life in fleet))
    await house.persisted(life.board for life in fleet)
    drained_s = time.monotonic() - began - loaded_s

    accesses = await house.documents("accesses")
    boards = {one["_id"]: one for one in await house.documents("boards")}
    problems = list(differences(fleet, boards, accesses))
    problems += [f"dead letter: {one['reason']}" for one in await house.documents("dead")]
    answered = sum(life.board.reports_answered for life in fleet)
    print(
        f"seed {SEED}: {sum(life.board.reports_sent for life in fleet)} reports sent, "
        f"{answered} answered, {len(accesses)} accesses kept "
        f"({sum(one['maybe_repeat'] for one in accesses)} marked maybe_repeat), "
        f"{sum(life.board.boot for life in fleet)} reboots, {4 * rounds} kills; "
        f"{loaded_s:.1f} s and {drained_s:.1f} s to drain"
    )
    assert not problems, f"{len(problems)} differences:\n" + "\n".join(problems[:50])
    assert answered > rounds * BOARDS
    await house.quiet()


async def kill_in_turn(house: House, rounds: int) -> None:
    """kill -9 of each part in each round; it is started again at once."""
    chance = random.Random(SEED)
    for _ in range(rounds):
        for victim in (house.edge, house.domain, house.broker, house.store):
            await asyncio.sleep(chance.uniform(*KILL_EVERY_S))
            await house.kill(victim)
            await house.start(victim)


def differences(
    fleet: list[Life], boards: dict[str, Document], accesses: list[Document]
) -> Iterator[str]:
    """What differs between the boards' own counts and the store, a sentence each."""
    kept: dict[str, list[Document]] = {}
    for access in accesses:
        kept.setdefault(access["board"], []).append(access)
    for life in fleet:
        board = life.board
        document = boards.get(board.id.lower())
        if document is None:
            yield f"{board.id}: not in the store"
            continue
        found = [*life.wrong, *board_differences(board, document, kept.pop(board.id, []))]
        yield from (f"{board.id} ({board.behaviour.repeat}): {one}" for one in found)
    yield from (f"{name}: nobody has this id" for name in kept)


def board_differences(board: Board, document: Document, accesses: list[Document]) -> Iterator[str]:
    """The same for one board."""
    if board.empty_after_codes:
        yield f"wiped {board.empty_after_codes} times"
    if document["accesses"] != len(accesses):
        yield f"counts {document['accesses']} accesses and {len(accesses)} are kept"
    answered, kept = board.reports_answered, document["reports"]
    if board.behaviour.repeat == "same" and kept != answered:
        yield f"{answered} reports were answered and {kept} are counted"
    if not answered <= kept <= board.reports_sent:
        yield f"of {board.reports_sent} reports {answered} were answered and {kept} are counted"

    # The edge names a boot by its time; each has an access in an answered report.
    boots = {boot: number for number, boot in enumerate(sorted({one["boot"] for one in accesses}))}
    if len(boots) != board.boot + 1:
        yield f"{board.boot + 1} boots, and {len(boots)} are known"
        return
    ours = Counter((boots[one["boot"]], one["send"], one["cell"]) for one in accesses)
    yield from (f"access {one} is kept {count} times" for one, count in ours.items() if count > 1)
    yield from (f"access {one} was answered and is lost" for one in set(board.accesses) - set(ours))
    allowed = board.accesses_sent if board.behaviour.repeat == "next" else set(board.accesses)
    yield from (f"access {one} was never made" for one in set(ours) - allowed)

    marked = {(boots[one["boot"]], one["send"]) for one in accesses if one["maybe_repeat"]}
    for chain in tries(board, set(ours)):
        yield from (f"repeated access {one} is not marked" for one in set(chain[1:]) - marked)


def tries(board: Board, kept: set[tuple[int, int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The kept (boot, SEND) of each report: up to its answer they say the same accesses again."""
    ends = sorted({(boot, send) for boot, send, _ in board.accesses})

    def end(one: tuple[int, int]) -> tuple[int, int]:
        return next((answered for answered in ends if answered >= one), ends[-1])

    for _, chain in groupby(sorted({(boot, send) for boot, send, _ in kept}), key=end):
        yield list(chain)
