"""Which stranger makes room, and how many new ids an address may bring."""

from __future__ import annotations

from patchbay_locker.room import DAY_S, HOSTS, MINUTE_S, Newcomers, Rank, Strangers, rank

NOW = 1_800_000_000.0


def strangers(boards: dict[str, Rank | None]) -> Strangers:
    found = Strangers(boards.get)
    found.add(*boards)
    return found


def test_who_was_silent_for_a_day_makes_room_first_then_who_reported_least() -> None:
    boards = {
        "used": None,
        "reports all the time": rank(1000, NOW - 1),
        "has just come": rank(1, NOW - 2),
        "came a while ago": rank(1, NOW - 60),
        "was there a day ago": rank(5000, NOW - DAY_S - 1),
        "was there a week ago": rank(2, NOW - 7 * DAY_S),
    }
    room = strangers(boards)
    order = []
    while (id := room.next(NOW)) is not None:
        order.append(id)
        del boards[id]
    assert order == [
        "was there a week ago",
        "was there a day ago",
        "came a while ago",
        "has just come",
        "reports all the time",
    ]
    assert [*boards] == ["used"]


def test_one_that_reports_meanwhile_or_is_spared_does_not_make_room() -> None:
    boards: dict[str, Rank | None] = {name: rank(1, NOW - 50) for name in "abcd"}
    room = strangers(boards)
    assert room.next(NOW, spared={"a"}) == "b"
    boards["c"] = rank(2, NOW)
    assert room.next(NOW, spared={"b"}) == "d"


def test_one_of_a_kind_that_goes_sooner_goes_though_it_came_later() -> None:
    boards: dict[str, Rank | None] = {f"honest-{n}": rank(100, NOW - 60) for n in range(5)}
    room = strangers(boards)
    boards["invented-0"] = rank(1, NOW)
    room.add("invented-0")
    assert room.next(NOW) == "invented-0"
    del boards["invented-0"]
    boards["invented-1"] = rank(1, NOW)
    room.add("invented-1")
    assert room.next(NOW) == "invented-1"


def test_those_that_were_used_are_not_looked_at_again() -> None:
    boards: dict[str, Rank | None] = {"used": None, "stranger": rank(1, NOW)}
    room = strangers(boards)
    assert room.next(NOW) == "stranger"
    assert len(room) == 1


def test_an_address_brings_its_number_of_new_ids_a_minute() -> None:
    newcomers = Newcomers(60, ["127.0.0.1"])
    assert [newcomers.admit("10.0.0.7", 100.0) for _ in range(61)].count(True) == 60
    assert newcomers.admit("10.0.0.8", 100.0)
    assert all(newcomers.admit("127.0.0.1", 100.0) for _ in range(1000))
    assert newcomers.admit("10.0.0.7", 100.0 + MINUTE_S)


def test_addresses_without_end_share_one_number() -> None:
    newcomers = Newcomers(60, [])
    admitted = sum(newcomers.admit(f"10.0.{n // 250}.{n % 250}", 100.0) for n in range(3 * HOSTS))
    assert admitted == HOSTS + 60
