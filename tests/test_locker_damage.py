"""The locker's outbox is damaged, or goes back in time: that part only is lost, and it is said."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from patchbay.messages import Ack, batch, encode, new_event
from patchbay.testing import Lateness, until
from patchbay_locker.messages import Report
from patchbay_locker.simulator import Board
from tests.damaged_outbox import AT_REST, write_at
from tests.house import House

SERVING_S = 10.0
"""So long after damage boards are answered again at the latest."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path) as house:
        yield house


def outbox_of(house: House) -> Path:
    instance = house.edge.instance
    return house.directory / "state" / "units" / instance / "outbox" / f"{instance}.sqlite"


async def report(board: Board, count: int) -> None:
    for number in range(count):
        await board.report(accessed=[1 + number % 8])


def detail(house: House) -> dict[str, int]:
    return house.infos[house.edge.instance].detail


async def check(house: House, board: Board, *, may_lack: int = 0) -> None:
    """All answered accesses are in the store, but for so many, and each is counted once."""
    await house.persisted([board])
    accesses = await house.documents("accesses", board.id)
    stored = {(one["send"], one["cell"]) for one in accesses}
    assert len(stored) == len(accesses)
    lost = {(send, cell) for _, send, cell in board.accesses} - stored
    assert len(lost) <= may_lack
    [document] = await house.documents("boards")
    assert document["accesses"] == len(accesses)


QUICK = "meta zeroed"
LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in AT_REST if kind != QUICK]


@pytest.mark.parametrize("kind", [QUICK, *LONG])
async def test_a_damaged_outbox_is_salvaged_at_the_start_and_boards_are_served(
    house: House, kind: str, lateness: Lateness
) -> None:
    board = house.board("1953")
    await report(board, 10)
    await house.persisted([board])
    await house.kill(house.domain)
    await report(board, 40)
    assert house.edge.terminate()[0] == 0
    try:
        AT_REST[kind].do(outbox_of(house))
    except ValueError:
        pytest.skip("this outbox has nothing of the kind")
    began = time.monotonic()
    await house.start(house.edge)
    await report(board, 1)
    assert time.monotonic() - began < SERVING_S + lateness.worst_s
    await house.start(house.domain)
    await report(board, 5)
    await check(house, board, may_lack=min(AT_REST[kind].loses, 40))
    await until(lambda: detail(house).get("outbox_files_set_aside") == 1)
    assert "outbox_events_salvaged" in detail(house)
    assert "outbox salvaged" in house.edge.log.read_text()


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"another file" * 1000)
    other.replace(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(f"{path}-wal", 0)


def noise(path: Path) -> None:
    for name in (path, Path(f"{path}-wal")):
        write_at(name, name.stat().st_size // 2, os.urandom(5000))


RUNNING: dict[str, tuple[Callable[[Path], None], int]] = {
    "removed": (removed, 0),
    "replaced": (replaced, 0),
    "emptied": (emptied, 40),
    "noise": (noise, 20),
}


@pytest.mark.parametrize(
    "kind", ["removed", *(pytest.param(one, marks=pytest.mark.long) for one in list(RUNNING)[1:])]
)
async def test_damage_to_an_outbox_in_use_stops_the_edge_and_the_next_start_serves(
    house: House, kind: str, lateness: Lateness
) -> None:
    board = house.board("1953")
    await report(board, 10)
    await house.persisted([board])
    await house.kill(house.domain)
    await report(board, 40)
    damage, may_lack = RUNNING[kind]
    damage(outbox_of(house))

    async def start_again() -> None:
        while True:
            await until(lambda: not house.edge.running)
            await house.start(house.edge)

    restarting = asyncio.create_task(start_again())
    began = time.monotonic()
    await report(board, 1)
    assert time.monotonic() - began < SERVING_S + lateness.worst_s
    await report(board, 5)
    await house.start(house.domain)
    await report(board, 1)
    await check(house, board, may_lack=may_lack)
    restarting.cancel()
    if kind != "noise":  # of which a page may be one that is not read again
        assert "is damaged: somebody has removed, replaced or cut it" in house.edge.log.read_text()


async def test_an_older_copy_of_an_outbox_loses_nothing_and_counts_nothing_twice(
    house: House,
) -> None:
    board = house.board("1953")
    await report(board, 10)
    await house.persisted([board])
    await house.kill(house.domain)
    await report(board, 5)
    house.edge.terminate()
    place = outbox_of(house).parent
    copy = house.directory / "copy"
    shutil.copytree(place, copy)
    await house.start(house.edge, house.domain)
    for _ in range(2):
        await report(board, 10)
        await house.persisted([board])
        house.edge.terminate()
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        await house.start(house.edge)
        await report(board, 3)
    await check(house, board)


async def test_nobody_begins_or_goes_on_with_an_epoch_in_the_name_of_an_edge(house: House) -> None:
    board = house.board("1953")
    await report(board, 3)
    await house.persisted([board])
    [source] = await house.documents("sources")
    forged = [
        new_event(
            id=f"forged {sequence}",
            source=house.edge.instance,
            type="patchbay.locker.report",
            subject="666",
            sequence=sequence,
            epoch=epoch,
            data=Report(board="666", boot=1, send=sequence),
        )
        for epoch, sequence in (("forged", 1), ("forged", 2), (source["epoch"], 2**40))
    ]
    alone = house.topics.event("locker", "666", "report")
    stranger = house.topics.batch("locker", "locker-edge-stranger")
    for _ in range(2):
        for one in forged:
            await house.bus.publish(alone, one)
        await house.bus.publish(stranger, batch(forged))
        await report(board, 3)
    ack = house.topics.ack(house.edge.instance)
    await house.bus.publish(ack, encode(Ack(source["epoch"], 2**53)))
    await report(board, 3)
    await check(house, board)
    [after] = await house.documents("sources")
    assert after["epoch"] == source["epoch"]
    assert [one["_id"] for one in await house.documents("boards")] == ["1953"]
    await until(lambda: house.infos[house.edge.instance].backlog == 0)
