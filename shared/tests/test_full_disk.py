"""An outbox on a disk that it fills: a real one, of five megabytes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.bus import Bus, Message
from patchbay.messages import Ack, AckRanges, decode_events, encode, ranges_of
from patchbay.outbox import Outbox, OutboxFull, room
from patchbay.outbox import outbox as outbox_module
from patchbay.outbox.ranges import first_of
from patchbay.testing import MakeBus, until

INSTANCE = "tiny-edge-1"
SIZE = "5m"
TEXT = "x" * 500


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of that size."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is made by mount, which only root may do, and not everywhere")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class Domain:
    """Acknowledges what comes, in order or each by itself."""

    def __init__(self, bus: Bus, *, in_order: bool) -> None:
        self.bus = bus
        self.ids: set[str] = set()
        self._in_order = in_order
        bus.listen("patchbay/tiny/+/event/+", self._hear)

    def _hear(self, message: Message) -> None:
        message.ack()
        events = decode_events(message.payload)
        self.ids |= {event.id for event in events}
        numbers = [event.sequence for event in events]
        ack: Ack | AckRanges = Ack(events[-1].epoch, numbers[-1])
        if not self._in_order:
            ack = AckRanges(events[-1].epoch, ranges_of(numbers))
        self.bus.post(self.bus.topics.ack(INSTANCE), encode(ack))


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_disk_full_of_the_outbox_heals_when_its_events_are_acknowledged(
    make_bus: MakeBus, disk: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.05)
    monkeypatch.setattr(outbox_module, "FORGET_AFTER_S", 0.05)
    bus = make_bus(INSTANCE)
    path = disk / "outbox.sqlite"
    async with Outbox(bus, "tiny", path, in_order=in_order) as outbox, bus:
        kept = await _fill(outbox)
        assert len(kept) > 100
        domain = Domain(make_bus("tiny-domain-1"), in_order=in_order)
        domain.bus.start()
        await until(lambda: outbox.waiting == 0 and not outbox.full)
        assert domain.ids == kept
        await domain.bus.stop()
        again = await _fill(outbox)
        assert len(again) > len(kept) / 2, "there is room as before"


async def test_an_outbox_that_starts_on_a_full_disk_takes_nothing_until_there_is_room(
    make_bus: MakeBus, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_RETRY_S", 0.05)
    path = disk / "outbox.sqlite"
    async with Outbox(make_bus(INSTANCE), "tiny", path):
        pass
    path.with_name("outbox.sqlite.reserve").unlink()
    other = disk / "other"
    other.write_bytes(bytes(3_000_000))
    async with Outbox(make_bus(INSTANCE), "tiny", path) as outbox:
        assert outbox.full
        other.unlink()
        await until(lambda: not outbox.full)
        assert await _take(outbox, 0)


async def _fill(outbox: Outbox) -> set[str]:
    """Events in turns of twenty, until no turn has been taken for a while. Returns what was."""
    kept: set[str] = set()
    refused = 0
    while refused < 40:
        number = outbox._next
        if await _take(outbox, 20):
            kept |= {f"k{one}" for one in range(number, number + 20)}
            refused = 0
        else:
            refused += 1
            await asyncio.sleep(0.02)
    return kept


async def _take(outbox: Outbox, count: int) -> bool:
    """One turn with so many events: did it reach the disk, whole?"""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    try:
        for number in range(outbox._next, outbox._next + count):
            outbox.add("d1", "said", key=f"k{number}", subject="D1", time="t", data=TEXT)
    except OutboxFull:
        return False
    outbox.after_commit(done.set_result)
    return await done


def test_a_full_disk_forgets_a_little_at_a_time() -> None:
    assert first_of([(1, 5), (7, 7), (9, 20)], 8) == [(1, 5), (7, 7), (9, 10)]
    assert first_of([(1, 5)], 5) == [(1, 5)]
    assert first_of([(1, 9)], 5) == [(1, 5)]
    assert first_of([], 5) == []
