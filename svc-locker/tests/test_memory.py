"""What the edge remembers of its boards, in a real outbox's file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patchbay.bus import Bus
from patchbay.messages import encode, parse_time
from patchbay.outbox import Outbox
from patchbay.testing import broker_settings
from patchbay.topics import Topics
from patchbay_locker.memory import Memory
from patchbay_locker.numbering import Last
from patchbay_locker.wire import Answer, Code, Request

EXPIRES = "2026-05-01T12:00:00.000Z"
NOW = parse_time(EXPIRES).timestamp() - 3600
"""An hour before the codes below run out."""

Open = Callable[[], Outbox]


@pytest.fixture
def reopen(tmp_path: Path) -> Open:
    """Open the same file, as an edge does that starts again. Its bus never connects."""

    def reopen() -> Outbox:
        bus = Bus(broker_settings(1), client_id="locker-edge-x", topics=Topics(), announce=False)
        return Outbox(bus, "locker", tmp_path / "outbox.sqlite")

    return reopen


def desired(
    rev: int, *, board: str = "1953", codes: dict[int, str] | None = None, **more: Any
) -> bytes:
    rentals = [
        {"cell": cell, "code": code, "expires_at": EXPIRES} for cell, code in (codes or {}).items()
    ]
    return encode({"rev": rev, "board": board, "rentals": rentals, **more})


def request(send: int = 141349, *, id: str = "1953", reset: bool = False) -> Request:
    return Request("ACon_V1.0", id, send, str(send), reset=reset)


def codes(memory: Memory, device: str = "1953", now: float = NOW) -> dict[int, str]:
    """Cell -> code, as a board would be told."""
    answer = memory.board(device).answer(request(), now)
    return {code.cell: code.code for code in answer.codes}


def resets(memory: Memory, device: str = "1953", *, said: bool = False) -> bool:
    """Would the board be told to reboot, had it said RESET=1 or not?"""
    return memory.board(device).answer(request(reset=said), NOW).reset


async def committed(outbox: Outbox) -> bool:
    """Wait for this turn's commit. Did it succeed?"""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    outbox.after_commit(done.set_result)
    return await done


def out_of_order(outbox: Outbox, broken: bool = True) -> None:
    """Make the disk refuse what is written, or take it again."""
    outbox._journal._db.execute(f"PRAGMA query_only={'ON' if broken else 'OFF'}")


# Answers


@pytest.mark.parametrize(
    ("left_s", "minutes"),
    [(0.001, 1), (59.0, 1), (60.0, 1), (60.001, 2), (61.0, 2), (3600.0, 60), (288_000.0, 4800)],
)
async def test_minutes_are_what_is_left_rounded_up_and_at_least_1(
    reopen: Open, left_s: float, minutes: int
) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(1, codes={2: "1492"}))
        answer = memory.board("1953").answer(request(), parse_time(EXPIRES).timestamp() - left_s)
        assert answer.codes == (Code(2, "1492", minutes),)


async def test_a_code_is_listed_until_its_time_is_over_and_not_after_it(reopen: Open) -> None:
    end = parse_time(EXPIRES).timestamp()
    later = {"cell": 9, "code": "0001", "expires_at": "2026-05-01T13:00:00Z"}
    sooner = {"cell": 2, "code": "1492", "expires_at": EXPIRES}
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", encode({"rev": 1, "board": "1953", "rentals": [sooner, later]}))
        assert codes(memory, now=end - 0.001) == {2: "1492", 9: "0001"}
        assert codes(memory, now=end) == {9: "0001"}
        assert codes(memory, now=end + 3600) == {}


async def test_an_answer_repeats_header_id_and_number_as_the_board_wrote_them(
    reopen: Open,
) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        asked = Request("ACon_V1.7", "Stadt Ost", 7, "0007")
        nothing_held = memory.board("x").answer(asked, NOW)
        assert nothing_held == Answer("ACon_V1.7", "Stadt Ost", "0007")
        memory.desire("x", desired(1, blocked=True))
        assert memory.board("x").answer(asked, NOW) == Answer(
            "ACon_V1.7", "Stadt Ost", "0007", blocked=True
        )


# The desired state


async def test_a_desired_state_that_is_not_newer_is_ignored(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        assert memory.desire("1953", desired(5, codes={2: "1492"}))
        assert not memory.desire("1953", desired(4, codes={3: "1111"}))
        assert not memory.desire("1953", desired(5))
        assert codes(memory) == {2: "1492"}
        assert memory.desire("1953", desired(6, codes={3: "1111"}))
        assert codes(memory) == {3: "1111"}


async def test_an_empty_payload_forgets_the_desired_state_for_good(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(5, codes={2: "1492"}))
        await committed(outbox)
        assert not memory.desire("1953", b"")
        assert memory.board("1953").desired is None
    async with reopen() as outbox:
        memory = Memory(outbox)
        assert memory.board("1953").desired is None
        assert memory.desire("1953", desired(1))


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense",
        b"[]",
        b"null",
        b'{"board": "1953"}',
        b'{"rev": "6", "board": "1953"}',
        b'{"rev": 6, "board": "1953", "rentals": [{"cell": 2, "code": "1"}]}',
        desired(6, rentals=[{"cell": 2, "code": "1", "expires_at": "tomorrow"}]),
        desired(6, rentals=[{"cell": 2, "code": "1", "expires_at": "2026-05-01T12:00:00"}]),
    ],
)
async def test_what_is_no_desired_state_is_refused_and_the_one_held_stays(
    reopen: Open, payload: bytes
) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(5, codes={2: "1492"}))
        with pytest.raises((msgspec.DecodeError, ValueError)):
            memory.desire("1953", payload)
        assert codes(memory) == {2: "1492"}
    async with reopen() as outbox:
        assert codes(Memory(outbox)) == {2: "1492"}


# Reboots


async def test_a_board_is_told_to_reboot_until_it_has(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(1, reset_id=1))
        assert resets(memory)
        assert resets(memory)
        memory.rebooted(memory.board("1953"))
        assert not resets(memory)
        memory.desire("1953", desired(2, reset_id=1))
        assert not resets(memory)


async def test_a_report_that_says_reset_is_never_answered_with_reset(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(1, reset_id=1))
        assert not resets(memory, said=True)
        assert resets(memory)


async def test_a_new_reset_id_reboots_again_and_an_old_one_does_not(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        board = memory.board("1953")
        memory.desire("1953", desired(1, reset_id=4))
        memory.rebooted(board)
        memory.desire("1953", desired(2, reset_id=None))
        assert not resets(memory)
        memory.desire("1953", desired(3, reset_id=3))
        assert not resets(memory)
        memory.desire("1953", desired(4, reset_id=5))
        assert resets(memory)


async def test_a_reboot_that_nobody_ordered_counts_for_no_later_order(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        board = memory.board("1953")
        memory.rebooted(board)
        memory.desire("1953", desired(1))
        memory.rebooted(board)
        memory.desire("1953", desired(2, reset_id=1))
        assert resets(memory)


# The file


async def test_all_of_it_survives_a_restart_of_the_edge(reopen: Open) -> None:
    last = Last(1_700_000_000, 7, b"12345678", (1, 54, 43), reset=True)
    async with reopen() as outbox:
        memory = Memory(outbox)
        board = memory.board("1953")
        memory.desire("1953", desired(5, codes={2: "1492"}, blocked=True, reset_id=3))
        memory.rebooted(board)
        memory.numbered(board, last)
    async with reopen() as outbox:
        memory = Memory(outbox)
        board = memory.board("1953")
        assert board.last == last
        assert board.answer(request(), NOW) == Answer(
            "ACon_V1.0", "1953", "141349", blocked=True, codes=(Code(2, "1492", 60),)
        )
        assert not memory.desire("1953", desired(5))
        memory.desire("1953", desired(6, reset_id=4))
        assert resets(memory)


async def test_several_boards_do_not_mix(reopen: Open) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(1, codes={2: "1492"}, reset_id=1))
        memory.desire("1953-a", desired(9, codes={3: "1111"}, reset_id=1))
        memory.desire("195", desired(1))
        memory.rebooted(memory.board("1953-a"))
        memory.numbered(memory.board("195"), Last(1, 7, b"12345678", ()))
    async with reopen() as outbox:
        memory = Memory(outbox)
        assert sorted(board.device for board in memory) == ["195", "1953", "1953-a"]
        assert len(memory) == 3
        assert [codes(memory, id) for id in ("1953", "1953-a", "195")] == [
            {2: "1492"},
            {3: "1111"},
            {},
        ]
        assert [resets(memory, id) for id in ("1953", "1953-a", "195")] == [True, False, False]
        assert [memory.board(id).last is None for id in ("1953", "1953-a", "195")] == [
            True,
            True,
            False,
        ]


async def test_what_could_not_be_written_of_a_report_is_not_remembered(reopen: Open) -> None:
    before = Last(1_700_000_000, 7, b"12345678", (1,), answered=True)
    async with reopen() as outbox:
        memory = Memory(outbox)
        board = memory.board("1953")
        memory.desire("1953", desired(1, reset_id=1))
        memory.numbered(board, before)
        assert await committed(outbox)

        out_of_order(outbox)
        for send in (8, 9):  # on two connections, in one turn
            memory.numbered(board, Last(1_700_000_000, send, b"abcdefgh", ()))
        memory.rebooted(board)
        assert not await committed(outbox)
        assert board.last == before
        assert resets(memory)

        out_of_order(outbox, False)
        memory.rebooted(board)
        assert await committed(outbox)
        assert not resets(memory)
    async with reopen() as outbox:
        assert not resets(Memory(outbox))


async def test_a_desired_state_that_could_not_be_written_is_written_with_a_later_commit(
    reopen: Open,
) -> None:
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.desire("1953", desired(1, codes={2: "1492"}))
        memory.desire("gone", desired(1))
        assert await committed(outbox)

        out_of_order(outbox)
        memory.desire("1953", desired(2, codes={3: "1111"}))
        memory.desire("gone", b"")
        assert not await committed(outbox)
        assert codes(memory) == {3: "1111"}

        out_of_order(outbox, False)
        memory.numbered(memory.board("other"), Last(1, 7, b"12345678", ()))
        assert await committed(outbox)
    async with reopen() as outbox:
        memory = Memory(outbox)
        assert codes(memory) == {3: "1111"}
        assert memory.find("gone") is None


async def test_that_a_board_has_its_answer_is_known_after_a_restart(reopen: Open) -> None:
    last = Last(1_700_000_000, 7, b"12345678", (1, 54, 43))
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.numbered(memory.board("1953"), last)
        assert await committed(outbox)
        memory.answered(memory.board("1953"), 6)
        assert memory.board("1953").last == last
        memory.answered(memory.board("1953"), 7)
    async with reopen() as outbox:
        assert Memory(outbox).board("1953").last == last.with_answer()


async def test_a_report_that_comes_before_the_answer_is_noted_has_none_yet(reopen: Open) -> None:
    last = Last(1_700_000_000, 7, b"12345678", (1, 54, 43))
    following = Last(1_700_000_000, 8, b"23456789", (1, 54, 43))
    async with reopen() as outbox:
        memory = Memory(outbox)
        memory.numbered(memory.board("1953"), last)
        assert await committed(outbox)
        memory.answered(memory.board("1953"), 7)
        memory.numbered(memory.board("1953"), following)
    async with reopen() as outbox:
        assert Memory(outbox).board("1953").last == following


async def test_a_note_that_cannot_be_read_costs_itself_only(reopen: Open) -> None:
    last = Last(1_700_000_000, 7, b"12345678", (1, 54, 43))
    async with reopen() as outbox:
        for name in ("last/1", "desired/1", "reset/1"):
            outbox.note(name, b"\xff\x00")
        outbox.note("last/2", last.to_bytes())
        assert await committed(outbox)
    async with reopen() as outbox:
        memory = Memory(outbox)
        assert [(one.device, one.last) for one in memory] == [("2", last)]
        assert outbox.losses() == {"outbox_notes_unreadable": 3}
    async with reopen() as outbox:
        assert outbox.losses() == {}
