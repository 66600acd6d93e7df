"""One board that reconnects, or two boards with one ID?"""

from __future__ import annotations

from collections.abc import Iterable

from patchbay_locker.twins import FORGET_S, Peers


def moves(peers: Peers, connections: Iterable[int], *, at: float = 0.0) -> list[str]:
    for connection in connections:
        if connection != peers.last:
            peers.moved(connection, f"10.0.0.{connection}", at, returned=False)
    return peers.two(at)


def test_a_board_that_connects_anew_each_time_is_one() -> None:
    assert moves(Peers(), range(1, 100)) == []


def test_two_that_report_in_turn_are_two() -> None:
    assert sorted(moves(Peers(), [1, 2] * 3)) == ["10.0.0.1", "10.0.0.2"]


def test_one_packet_that_was_late_does_not_make_two() -> None:
    assert moves(Peers(), [1, 1, 2, 1, 2, 2]) == []


def test_two_are_forgotten_after_an_hour_without_a_return() -> None:
    peers = Peers()
    assert moves(peers, [1, 2] * 3)
    assert peers.two(FORGET_S)
    assert peers.two(FORGET_S + 1) == []
    assert moves(peers, [1, 2], at=FORGET_S + 2) == []


def test_of_two_the_last_two_connections_are_named() -> None:
    peers = Peers()
    moves(peers, [1, 2] * 3)
    peers.moved(3, "10.0.0.3", 0.0, returned=True)
    assert peers.two(0.0) == ["10.0.0.2", "10.0.0.3"]
