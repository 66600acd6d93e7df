"""An outbox file that is damaged: that part only is lost, and it is said how much."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from patchbay import durable
from patchbay.errors import Unavailable
from patchbay.outbox import Journal, Row
from patchbay.outbox import salvage as salvage_module
from tests.damaged_outbox import AT_REST, EVENTS, PAGE, sql, write_at

ACKED = 5
NOTES = 20


def row(seq: int) -> Row:
    body = b'{"number":%d,"text":"%s"}' % (seq, b"x" * (seq % 7 * 40))
    if seq == 200:
        body = b'{"large":"%s"}' % (b"y" * 10_000)
    topic = "patchbay/tiny/d1/event/said"
    return Row(seq, f"key-{seq:05d}", topic, "patchbay.tiny.said", "D1", "t", body)


def fill(path: Path) -> list[str]:
    """A file with two epochs, of which some is acknowledged; their names."""
    journal = Journal(path)
    journal.hold_reserve()
    journal.commit([row(seq) for seq in range(1, 101)], (), 0)
    first = journal.epoch
    journal.close()
    journal = Journal(path)
    notes = [(f"note/{n}", b"note of %d, %s" % (n, b"z" * 200)) for n in range(NOTES)]
    journal.commit([row(seq) for seq in range(101, EVENTS + 1)], notes, ACKED)
    second = journal.epoch
    journal.close()
    return [first, second]


def found(journal: Journal) -> list[Row]:
    return journal.after(0, 10_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.mark.parametrize("kind", AT_REST)
def test_what_a_damaged_file_still_holds_is_served_from_a_new_one(path: Path, kind: str) -> None:
    epochs = fill(path)
    damage = AT_REST[kind]
    damage.do(path)
    damaged = path.read_bytes()
    journal = Journal(path)
    saved = journal.salvaged
    assert saved is not None
    left = found(journal)
    whole = [row(seq) for seq in range(ACKED + 1, EVENTS + 1)]
    if kind == "a column less in events":
        left = [one._replace(subject="D1") for one in left]
    assert [one for one in left if one not in whole] == []
    assert len(whole) - len(left) <= damage.loses
    assert (journal.rows, saved.events) == (len(left), len(left))
    if damage.loses < EVENTS and "meta" not in kind:
        assert saved.missing == len(whole) - len(left)
    notes = dict(journal.notes("note/"))
    assert NOTES - len(notes) <= damage.notes_lost
    assert all(value.startswith(b"note of %d," % int(name)) for name, value in notes.items())
    if damage.loses < EVENTS:  # those that the domain has persisted are known to it
        assert {journal.epoch_at(one.seq).name for one in left} & set(epochs) or "epoch" in kind
    assert (path.parent / "outbox.sqlite.bad").read_bytes()[: len(damaged)] == damaged
    after = journal.seq + 1
    journal.commit([row(after)], [("note/new", b"new")], 0)
    assert journal.epoch not in epochs
    journal.close()
    journal = Journal(path)
    assert journal.salvaged is None
    assert found(journal) == [*(one for one in found(journal)[:-1]), row(after)]
    assert (len(found(journal)), journal.set_aside) == (len(left) + 1, 1)
    journal.close()


def killed(path: Path) -> Path:
    """As after kill -9: what was committed stands in the log."""
    journal = Journal(path)
    for seq in range(1, EVENTS + 1):
        journal.commit([row(seq)], [(f"note/{seq % NOTES}", b"note of %d" % (seq % NOTES))], 0)
    copy = path.parent / "killed.sqlite"
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    journal.close()
    return copy


def test_a_log_that_is_sound_is_no_damage(path: Path) -> None:
    copy = killed(path)
    journal = Journal(copy)
    assert journal.salvaged is None
    assert len(found(journal)) == EVENTS
    journal.close()


LOGS = {
    "zeroes": lambda log, size: write_at(log, size // 3, bytes(2 * PAGE)),
    "noise": lambda log, size: write_at(log, size // 2, os.urandom(3 * PAGE)),
    "its header": lambda log, size: write_at(log, 0, bytes(32)),
    "a bit": lambda log, size: write_at(log, size // 4, b"\x01\xfe"),
}


@pytest.mark.parametrize("kind", LOGS)
def test_what_stands_behind_the_damage_in_a_log_is_not_lost(path: Path, kind: str) -> None:
    copy = killed(path)
    log = Path(f"{copy}-wal")
    LOGS[kind](log, log.stat().st_size)
    journal = Journal(copy)
    assert journal.salvaged is not None
    left = found(journal)
    assert len(left) >= EVENTS - 30
    assert [one for one in left if one != row(one.seq)] == []
    assert len(dict(journal.notes("note/"))) == NOTES
    journal.close()


def test_a_log_whose_file_is_gone_is_salvaged(path: Path) -> None:
    for damage in (Path.unlink, lambda path: os.truncate(path, 0)):
        copy = killed(path)
        damage(copy)
        journal = Journal(copy)
        assert len(found(journal)) == EVENTS
        journal.close()
        shutil.rmtree(path.parent)


def test_a_half_written_transaction_at_the_end_of_the_log_is_no_damage(path: Path) -> None:
    copy = killed(path)
    log = Path(f"{copy}-wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 2000)
    journal = Journal(copy)
    assert journal.salvaged is None
    assert len(found(journal)) >= EVENTS - 1
    journal.close()


def test_a_file_of_newer_code_is_refused_in_one_sentence_and_stays_as_it_is(path: Path) -> None:
    fill(path)
    sql("PRAGMA user_version = 2", "ALTER TABLE events ADD COLUMN extra TEXT")(path)
    before = path.read_bytes()
    with pytest.raises(Unavailable, match=r"outbox\.sqlite was written by newer code \(version 2"):
        Journal(path)
    assert path.read_bytes() == before
    assert set(path.parent.iterdir()) <= {path, Path(f"{path}.reserve")}


OLD_SCHEMA = (
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL,"
    " base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL)",
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, topic TEXT NOT NULL,"
    " type TEXT NOT NULL, subject TEXT NOT NULL, time TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES (1, 'the old epoch', 2, 9, 5)",
    "INSERT INTO notes VALUES ('note/1', x'00ff')",
)


def old_file(path: Path) -> None:
    """As release 0.1.0 left it, with the events 6 to 9."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    for statement in OLD_SCHEMA:
        db.execute(statement)
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", map(row, range(6, 10)))
    db.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_of_release_0_1_0_is_taken_over(path: Path, damaged: bool) -> None:
    old_file(path)
    if damaged:
        sql("DELETE FROM meta")(path)
    journal = Journal(path)
    assert (journal.salvaged is not None) is damaged
    assert found(journal) == [row(seq) for seq in range(6, 10)]
    assert dict(journal.notes("note/")) == {"1": b"\x00\xff"}
    assert (journal.acked, journal.seq) == (5, 9)
    epoch = journal.epoch_at(6)
    assert damaged or (epoch.name, epoch.base) == ("the old epoch", 2)
    journal.commit([row(10)], [("note/1", b"2")], 6)
    journal.close()
    journal = Journal(path)
    assert found(journal) == [row(seq) for seq in range(7, 11)]
    journal.close()


def test_earlier_damaged_files_are_never_overwritten_and_there_are_not_more_than_nine(
    path: Path,
) -> None:
    fill(path)
    for number in range(1, 12):
        write_at(path, 0, b"damage number %02d" % number)
        journal = Journal(path)
        assert len(found(journal)) == EVENTS - ACKED
        assert journal.set_aside == min(number, durable.MOST_ASIDE)
        journal.close()
    heads = [one.read_bytes()[:16] for one in salvage_module.set_aside(path)]
    assert heads == [b"damage number %02d" % number for number in range(1, 10)]


def test_a_salvage_that_was_cut_off_is_finished_by_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    write_at(path, 0, bytes(100))
    for step in ("_complete", "_install"):
        with monkeypatch.context() as patch:

            def killed(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(salvage_module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                Journal(path)
    journal = Journal(path)
    assert len(found(journal)) == EVENTS - ACKED
    journal.close()


def test_damage_that_is_met_while_running_is_told_once_and_salvaged_at_the_next_start(
    path: Path,
) -> None:
    fill(path)
    journal = Journal(path)
    told: list[str] = []
    journal.on_damage = told.append
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal._remember_sizes()
    AT_REST["noise in a page of events"].do(path)
    journal._db.execute("PRAGMA cache_size=0")
    journal._db.execute("PRAGMA shrink_memory")
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError):
            found(journal)
    assert len(told) == 1
    assert str(path) in told[0]
    with pytest.raises(sqlite3.DatabaseError):
        journal.commit([row(journal.seq + 1)], (), 0)
    journal.close()
    journal = Journal(path)
    assert journal.salvaged is not None
    assert len(found(journal)) >= EVENTS - ACKED - 40
    journal.close()


@pytest.mark.parametrize("part", ["", "-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced", "cut"])
def test_a_file_that_is_taken_away_while_it_is_open_is_noticed_before_anything_is_answered(
    path: Path, part: str, how: str
) -> None:
    fill(path)
    journal = Journal(path)
    last = EVENTS + 1
    journal.commit([row(last)], (), 0)
    victim = Path(f"{path}{part}")
    if how == "removed":
        victim.unlink()
    elif how == "replaced":
        other = path.parent / "other"
        other.write_bytes(b"other" * 1000)
        other.replace(victim)
    else:
        os.truncate(victim, victim.stat().st_size // 4096 * 2048)
    with pytest.raises(sqlite3.DatabaseError):
        journal.commit([row(last + 1)], (), 0)
    assert "removed, replaced or cut" in journal.damage
    journal.close()
    journal = Journal(path)
    left = found(journal)
    if how != "cut":
        assert left == [row(seq) for seq in range(ACKED + 1, last + 1)]
    assert [one for one in left if one != row(one.seq)] == []
    assert journal.set_aside == 1 or (part, how) == ("", "removed")
    journal.close()
