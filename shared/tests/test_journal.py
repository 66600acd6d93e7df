"""The outbox's file."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.errors import PatchbayError, Unavailable
from patchbay.outbox import Journal, Row
from patchbay.outbox import file as file_module
from patchbay.outbox import journal as journal_module
from patchbay.outbox.journal import Epoch


def row(seq: int, body: bytes = b"{}") -> Row:
    """An event that says its number."""
    return Row(seq, f"k{seq}", "patchbay/tiny/d1/event/said", "patchbay.tiny.said", "D1", "t", body)


def rows(first: int, last: int, body: bytes = b"{}") -> list[Row]:
    return [row(seq, body) for seq in range(first, last + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def reopened(journal: Journal, path: Path) -> Journal:
    journal.close()
    return Journal(path)


def no_more_room(journal: Journal) -> None:
    """A full disk, as SQLite sees it: the file may not grow."""
    [pages] = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count={pages}")


def test_a_new_file_has_an_epoch_of_its_own_and_counts_from_1(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "1.sqlite"), Journal(tmp_path / "2.sqlite")
    assert one.epoch
    assert one.epoch != two.epoch
    assert (one.base, one.seq, one.acked, one.rows, one.bytes) == (0, 0, 0, 0, 0)
    one.close()
    two.close()


def test_what_is_committed_is_there_again_when_the_file_is_opened_again(
    journal: Journal, path: Path
) -> None:
    journal.commit(rows(1, 3, b'{"n": 1}'), [("last/d1", b"3")], 0)
    again = reopened(journal, path)
    assert (again.seq, again.acked, again.rows, again.bytes) == (3, 0, 3, 24)
    assert again.after(0, 10) == rows(1, 3, b'{"n": 1}')
    assert dict(again.notes("last/")) == {"d1": b"3"}
    again.close()


def test_what_is_committed_survives_a_killed_process(path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from patchbay.outbox import Journal, Row
journal = Journal(Path(sys.argv[1]))
journal.commit([Row(1, "k1", "topic", "type", "D1", "t", b"{}")], [("n", b"v")], 0)
print("committed", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "committed\n"
        process.kill()
    journal = Journal(path)
    assert (journal.seq, journal.rows, dict(journal.notes("n"))) == (1, 1, {"": b"v"})
    journal.close()


def test_seq_never_goes_back_even_when_all_is_forgotten_and_the_file_is_opened_again(
    journal: Journal, path: Path
) -> None:
    journal.commit(rows(1, 5), (), 0)
    journal.commit([], (), 5)
    assert (journal.seq, journal.rows, journal.bytes) == (5, 0, 0)
    again = reopened(journal, path)
    assert (again.seq, again.acked, again.rows, again.bytes) == (5, 5, 0, 0)
    again.commit(rows(6, 6), (), 5)
    assert [one.seq for one in again.after(0, 10)] == [6]
    again.close()


def test_what_is_acknowledged_is_forgotten_with_the_next_commit(journal: Journal) -> None:
    journal.commit(rows(1, 10, b"12345"), (), 0)
    journal.commit(rows(11, 12, b"1"), (), 4)
    assert [one.seq for one in journal.after(0, 99)] == list(range(5, 13))
    assert (journal.seq, journal.acked, journal.rows, journal.bytes) == (12, 4, 8, 32)


def test_an_acknowledgement_that_goes_back_changes_nothing(journal: Journal, path: Path) -> None:
    journal.commit(rows(1, 4), (), 0)
    journal.commit([], (), 3)
    journal.commit(rows(5, 5), (), 1)
    assert (journal.acked, journal.rows) == (3, 2)
    again = reopened(journal, path)
    assert again.acked == 3
    again.close()


def test_after_gives_events_in_order_and_not_more_than_asked_for(journal: Journal) -> None:
    journal.commit(rows(1, 20), (), 0)
    assert [one.seq for one in journal.after(7, 5)] == [8, 9, 10, 11, 12]
    assert journal.after(20, 5) == []


def test_a_commit_for_which_there_is_no_room_takes_nothing_and_the_next_one_does(
    journal: Journal, path: Path
) -> None:
    journal.commit(rows(1, 2), [("n", b"old")], 0)
    no_more_room(journal)
    with pytest.raises(sqlite3.Error):
        journal.commit(rows(3, 500, b"x" * 500), [("n", b"new")], 1)
    assert (journal.seq, journal.acked, journal.rows, journal.bytes) == (2, 0, 2, 4)
    assert journal.after(0, 10) == rows(1, 2)
    assert dict(journal.notes("n")) == {"": b"old"}

    journal._db.execute("PRAGMA max_page_count=100000")
    journal.commit(rows(3, 500, b"x" * 500), [("n", b"new")], 1)
    again = reopened(journal, path)
    assert (again.seq, again.acked, again.rows) == (500, 1, 499)
    assert dict(again.notes("n")) == {"": b"new"}
    again.close()


def test_what_is_acknowledged_makes_room_for_what_comes_with_it(journal: Journal) -> None:
    journal.commit(rows(1, 200, b"x" * 500), (), 0)
    no_more_room(journal)
    with pytest.raises(sqlite3.Error):
        journal.commit(rows(201, 300, b"x" * 500), (), 0)
    journal.commit(rows(201, 300, b"x" * 500), (), 150)
    assert (journal.seq, journal.rows) == (300, 150)


def test_a_number_that_is_there_already_is_refused_and_nothing_of_its_turn_is_taken(
    journal: Journal,
) -> None:
    journal.commit(rows(1, 2), (), 0)
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit([row(3), row(2)], (), 0)
    assert (journal.seq, journal.rows) == (2, 2)


def test_notes_are_replaced_forgotten_and_found_by_their_prefix(
    journal: Journal, path: Path
) -> None:
    wrong = [("las", b"x"), ("last", b"x"), ("last0", b"x"), ("lasu", b"x"), ("Last/a", b"x")]
    right = [("last/", b"0"), ("last/b", b"1"), ("last/a", b"2"), ("last/등", b"3")]
    journal.commit([], [*wrong, *right], 0)
    journal.commit([], [("last/b", b"new"), ("last/", None), ("never there", None)], 0)
    again = reopened(journal, path)
    assert list(again.notes("last/")) == [("a", b"2"), ("b", b"new"), ("등", b"3")]
    assert dict(again.notes("lasu")) == {"": b"x"}
    assert list(again.notes("nothing")) == []
    again.close()


def numbers(journal: Journal) -> list[tuple[str, int]]:
    """Of each event in the file its epoch and its number there."""
    epochs = [(one.seq, journal.epoch_at(one.seq)) for one in journal.after(0, 99)]
    return [(epoch.name, seq - epoch.base) for seq, epoch in epochs]


def test_a_new_epoch_counts_what_is_left_from_1_and_touches_no_event(
    journal: Journal, path: Path
) -> None:
    journal.commit(rows(1, 10), (), 0)
    journal.commit([], (), 6)
    old = journal.epoch
    journal.begin_epoch(7)
    new = journal.epoch
    assert new != old
    wanted = [(new, 1), (new, 2), (new, 3), (new, 4)]
    assert numbers(journal) == wanted
    again = reopened(journal, path)
    assert numbers(again) == wanted
    assert (again.seq, again.rows) == (10, 4)
    again.close()


def test_each_start_begins_an_epoch_and_what_is_left_keeps_its_own(
    journal: Journal, path: Path
) -> None:
    journal.commit(rows(1, 3), (), 0)
    journal.commit([], (), 1)
    one = journal.epoch
    journal = reopened(journal, path)
    two = journal.epoch
    journal.commit(rows(4, 5), (), 1)
    journal = reopened(journal, path)
    journal.commit(rows(6, 6), (), 1)
    three = journal.epoch
    assert len({one, two, three}) == 3
    assert numbers(journal) == [(one, 2), (one, 3), (two, 1), (two, 2), (three, 1)]
    assert journal.find_epoch(one) == Epoch(0, one, 3)
    assert journal.epoch_at(7) == Epoch(5, three, 6)
    journal.commit([], (), 5)
    journal = reopened(journal, path)
    assert [journal.find_epoch(name) is None for name in (one, two, three)] == [True, True, False]
    journal.close()


def test_a_file_that_goes_back_in_time_uses_no_number_again(
    journal: Journal, path: Path, tmp_path: Path
) -> None:
    journal.commit(rows(1, 2), (), 0)
    journal.close()
    copy = path.read_bytes()
    journal = Journal(path)
    journal.commit(rows(3, 4), (), 0)
    used = numbers(journal)[2:]
    journal.close()
    path.write_bytes(copy)
    journal = Journal(path)
    journal.commit(rows(3, 4), (), 0)
    assert not set(used) & set(numbers(journal)[2:])
    journal.close()


def test_a_second_unit_on_the_same_file_is_told_so(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LOCK_WAIT_S", 0.1)
    with pytest.raises(Unavailable, match="locked"):
        Journal(path)
    journal.commit(rows(1, 1), (), 0)
    assert journal.rows == 1


def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        Journal(tmp_path)


def test_an_unknown_synchronous_is_refused_and_each_known_one_is_set(tmp_path: Path) -> None:
    with pytest.raises(PatchbayError, match="SOMETIMES"):
        Journal(tmp_path / "no.sqlite", "SOMETIMES")
    levels = {"OFF": 0, "normal": 1, "FULL": 2, "EXTRA": 3}
    for name, level in levels.items():
        journal = Journal(tmp_path / f"{name}.sqlite", name)
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (level,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        journal.close()


def test_a_body_is_kept_to_the_byte(journal: Journal) -> None:
    body = json.dumps({"text": "등\0" * 3}, ensure_ascii=False).encode()
    journal.commit([row(1, body)], (), 0)
    assert journal.after(0, 1)[0].body == body


@pytest.mark.parametrize("damage", [bytes(8192), b"garbage, not a database" * 500])
def test_a_file_that_is_no_database_is_set_aside_and_a_new_epoch_begins(
    tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / "outbox.sqlite"
    first = Journal(path)
    first.close()
    path.write_bytes(damage)
    second = Journal(path)
    assert second.epoch != first.epoch
    assert (second.seq, second.rows) == (0, 0)
    second.close()
    assert (tmp_path / "outbox.sqlite.bad").read_bytes() == damage


def typed(seq: int, type: str) -> Row:
    return row(seq)._replace(type=type)


def test_of_the_oldest_those_of_some_types_are_given_up_and_the_rest_counts_anew(
    journal: Journal, path: Path
) -> None:
    kinds = ["data", "message", "data", "data", "message", "data", "data"]
    journal.commit([typed(seq, kind) for seq, kind in enumerate(kinds, start=1)], (), 0)
    epoch = journal.epoch
    assert journal.shed(3, {"data"}) == 3
    assert (journal.base, journal.acked, journal.seq, journal.rows) == (3, 3, 7, 4)
    assert journal.epoch != epoch
    assert [(one.seq, one.key) for one in journal.after(0, 10)] == [
        (4, "k2"),
        (5, "k5"),
        (6, "k6"),
        (7, "k7"),
    ]
    assert journal.bytes == 4 * len(b"{}")
    wanted = [(journal.epoch, number) for number in (1, 2, 3, 4)]
    again = reopened(journal, path)
    assert (again.acked, again.seq, again.rows, again.bytes) == (3, 7, 4, 8)
    assert numbers(again) == wanted
    again.close()


def test_what_must_be_kept_and_is_oldest_does_not_keep_the_rest_from_being_given_up(
    journal: Journal,
) -> None:
    kinds = ["message"] * 10 + ["data"] * 4
    journal.commit([typed(seq, kind) for seq, kind in enumerate(kinds, start=1)], (), 0)
    for left in (["k13", "k14"], []):
        assert journal.shed(2, {"data"}) == 2
        assert [one.key for one in journal.after(0, 20)] == [f"k{n}" for n in range(1, 11)] + left
        assert [one.seq for one in journal.after(0, 20)] == list(
            range(journal.base + 1, journal.seq + 1)
        )
    assert journal.shed(2, {"data"}) == 0


def test_to_give_up_little_not_much_is_moved(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MOVED_FOR_EACH", 3)
    kinds = ["message"] * 7 + ["data", "data", "data"]
    journal.commit([typed(seq, kind) for seq, kind in enumerate(kinds, start=1)], (), 0)
    assert journal.shed(2, {"data"}) == 0
    assert journal.shed(3, {"data"}) == 3


def test_where_nothing_may_be_given_up_nothing_is(journal: Journal) -> None:
    journal.commit(rows(1, 5), (), 0)
    epoch = journal.epoch
    assert journal.shed(5, {"data"}) == 0
    assert (journal.epoch, journal.rows, journal.acked) == (epoch, 5, 0)
