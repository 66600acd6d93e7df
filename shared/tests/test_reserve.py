from __future__ import annotations

from pathlib import Path

from patchbay.outbox.reserve import Reserve

TOO_MUCH = 2**62
"""No disk has so much room."""


def test_room_that_is_held_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path, 100_000)
    assert not reserve.held
    assert reserve.hold()
    assert reserve.held
    assert path.stat().st_size == 100_000
    assert path.stat().st_blocks * 512 >= 100_000


def test_room_that_is_released_is_free(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path, 100_000)
    reserve.hold()
    reserve.release()
    assert not reserve.held
    assert not path.exists()
    reserve.release()
    assert reserve.hold()


def test_where_there_is_no_room_none_is_held_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path, TOO_MUCH)
    assert not reserve.hold()
    assert not reserve.held
    assert not path.exists()


def test_where_it_cannot_lie_there_is_no_room(tmp_path: Path) -> None:
    assert not Reserve(tmp_path / "nowhere" / "reserve", 1).hold()


def test_what_another_start_left_behind_is_held_again(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    Reserve(path, 100_000).hold()
    again = Reserve(path, 100_000)
    assert again.hold()
    assert path.stat().st_size == 100_000
