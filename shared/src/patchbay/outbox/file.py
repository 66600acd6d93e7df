"""The outbox's file: its schema, how it is opened, and what makes it count as damaged.

    meta     epoch, base, seq, acked     one row: the present epoch, and how far all has come
    epochs   first, epoch                the first number of each epoch that has events left
    events   seq, key, topic, type, subject, time, body
    notes    name, value                 what an edge remembers of a device, with its events

Each row has a checksum (``crc``): SQLite has none, and a byte that flipped would become another
fact. ``user_version`` is the version of the schema; a file without one is that of release 0.1.0 and
is taken over. All is read once when the file is opened, so that what is damaged is found there and
salvaged (`patchbay.outbox.salvage`) before a device is served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

from patchbay.errors import Unavailable
from patchbay.messages import new_id
from patchbay.outbox import pages

VERSION: Final = 1

HIGHEST_VERSION: Final = 1_000_000
"""What says to be newer than this is no version but damage."""

TABLES: Final = {
    "meta": """CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL,
        crc INTEGER)""",
    "epochs": "CREATE TABLE epochs (first INTEGER PRIMARY KEY, epoch TEXT NOT NULL, crc INTEGER)",
    "events": """CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
        time TEXT NOT NULL, body BLOB NOT NULL, crc INTEGER)""",
    "notes": """CREATE TABLE notes (
        name TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER) WITHOUT ROWID""",
}

COLUMNS: Final = {
    "meta": ("one", "epoch", "base", "seq", "acked", "crc"),
    "epochs": ("first", "epoch", "crc"),
    "events": ("seq", "key", "topic", "type", "subject", "time", "body", "crc"),
    "notes": ("name", "value", "crc"),
}
OLD_COLUMNS: Final = {
    "meta": COLUMNS["meta"][:-1],
    "events": COLUMNS["events"][:-1],
    "notes": COLUMNS["notes"][:-1],
}
"""Of release 0.1.0."""

LOCK_WAIT_S = 2.0
"""A unit that was just killed frees its file at once; a second unit on it never does."""

CACHE_KIB: Final = 512
"""Pages of the file in memory. SQLite would take 2 MB, which an outbox that grows fills: it writes
at its end and reads what the kernel has in its own cache."""

_READ_ERRORS: Final = {10 | sub << 8 for sub in (1, 2, 32, 33)}
"""SQLITE_IOERR_READ, _SHORT_READ, _DATA and _CORRUPTFS: a page cannot be read."""

_DAMAGE: Final = {1, 11, 20, 26}
"""SQLITE_ERROR (the schema is another), _CORRUPT, _MISMATCH, _NOTADB."""


class Damage(Exception):
    """The file holds what it cannot hold. Says what and where."""


class State(NamedTuple):
    """What a file holds. ``epochs``: of each its first number and its name, in order."""

    epochs: list[tuple[int, str]]
    seq: int
    acked: int
    rows: int
    bytes: int


def is_damage(error: sqlite3.Error) -> bool:
    """Is the file damaged, and not merely full, locked or away?"""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # text that is no UTF-8
        return type(error) is sqlite3.OperationalError
    return code in _READ_ERRORS or code & 0xFF in _DAMAGE


def event_check(fields: Sequence[Any]) -> int:
    """The checksum of an event: of its number, of its texts and of its body."""
    return crc32(fields[6], crc32("\0".join(fields[1:6]).encode())) + int(fields[0])


def note_check(name: str, value: bytes) -> int:
    return crc32(value, crc32(name.encode()))


def epoch_check(first: int, epoch: str) -> int:
    return crc32(epoch.encode()) + first


def meta_check(epoch: str, base: int, seq: int, acked: int) -> int:
    return crc32(f"{epoch} {base} {seq} {acked}".encode())


def open_file(path: Path, synchronous: str) -> tuple[sqlite3.Connection, State]:
    """Open the file, or begin it, and read all that it holds.

    Raises Damage, sqlite3.Error (see `is_damage`), and Unavailable for a file of newer code, which
    stays as it is.
    """
    log = _log_of(path)
    db = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=LOCK_WAIT_S,
        check_same_thread=False,  # `Writer` sees to it that one thread at a time uses it
    )
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        refuse_newer(path, version)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("PRAGMA journal_size_limit=16777216")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        if log:
            _require_whole_log(db, log)
        _take_over(db, version)
        return db, _begin_epoch(db, _read(db))
    except BaseException:
        db.close()
        raise


def refuse_newer(path: Path, version: int) -> None:
    """Raise Unavailable for a file that newer code has written, Damage for what is no version."""
    if not 0 <= version <= HIGHEST_VERSION:
        raise Damage(f"its version is {version}")
    if version > VERSION:
        raise Unavailable(
            f"the outbox {path} was written by newer code (version {version} of the file;"
            f" this code reads versions up to {VERSION}): install that release again"
        )


def _log_of(path: Path) -> list[pages.Frame]:
    """The frames in the file's log. Raises Damage if the file itself is gone or empty: SQLite
    would remove the log."""
    with pages.mapped(path) as main, pages.mapped(Path(f"{path}-wal")) as log:
        found = pages.frames(log, pages.page_size_of(main[:100], log[:32]))
        if found and not main:
            raise Damage("it is empty, and its log is not")
    if Path(f"{path}.reserve").exists() and path.exists() and not path.stat().st_size:
        raise Damage("it is empty, and it was not")
    return found


def _require_whole_log(db: sqlite3.Connection, frames: list[pages.Frame]) -> None:
    """Raises Damage if there are transactions in the log behind the place where SQLite stops to
    read it, which it does without a word at the first frame that is damaged."""
    read = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    if any(frame.commits for frame in frames[max(read, 0) :]):
        raise Damage(f"its log can be read up to frame {read} of {len(frames)}")


def _take_over(db: sqlite3.Connection, version: int) -> None:
    """Begin a file that is new, or make one of release 0.1.0 ours."""
    found = {
        name: tuple(row[1] for row in db.execute(f"PRAGMA table_info({name})")) for name in TABLES
    }
    if version == 0 and found != COLUMNS:
        there = {name: columns for name, columns in found.items() if columns}
        if there not in ({}, OLD_COLUMNS):
            raise Damage(f"its tables are {there}")
        db.execute("BEGIN IMMEDIATE")
        for name, statement in TABLES.items():
            if name in there:
                db.execute(f"ALTER TABLE {name} ADD COLUMN crc INTEGER")
            else:
                db.execute(statement)
        if there:
            db.execute("INSERT INTO epochs SELECT base + 1, epoch, NULL FROM meta")
        else:
            epoch = new_id()
            db.execute("INSERT INTO epochs VALUES (1, ?, ?)", (epoch, epoch_check(1, epoch)))
            db.execute("INSERT INTO meta VALUES (1, ?, 0, 0, 0, NULL)", (epoch,))
        db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    elif found != COLUMNS:
        raise Damage(f"its tables are {found}")
    elif version == 0:
        db.execute(f"PRAGMA user_version={VERSION}")


def _read(db: sqlite3.Connection) -> State:
    """All that the file holds. Raises Damage for the first row that cannot be right."""
    seq, acked, epochs = _read_meta(db)
    rows = size = 0
    before = acked
    place = -1
    left: list[tuple[int, str]] = []
    for row in db.execute("SELECT * FROM events ORDER BY seq"):
        if not is_event(row) or not before < row[0] <= seq:
            raise Damage(f"event {row[0]!r} is damaged")
        before = row[0]
        rows += 1
        size += len(row[6])
        while place + 1 < len(epochs) and epochs[place + 1][0] <= before:
            place += 1
        if place < 0:
            raise Damage(f"event {before} is of no epoch")
        if left[-1:] != [epochs[place]]:
            left.append(epochs[place])
    for name, value, check in db.execute("SELECT * FROM notes"):
        if not is_note(name, value, check):
            raise Damage(f"the note {name!r} is damaged")
    return State(left, seq, acked, rows, size)


def _read_meta(db: sqlite3.Connection) -> tuple[int, int, list[tuple[int, str]]]:
    epochs = [
        (first, epoch)
        for first, epoch, check in db.execute("SELECT * FROM epochs ORDER BY first")
        if is_epoch(first, epoch, check)
    ]
    [count] = db.execute("SELECT count(*) FROM epochs").fetchone()
    meta = db.execute("SELECT * FROM meta").fetchall()
    if len(meta) != 1 or not is_meta(*meta[0][1:]):
        raise Damage(f"meta is {meta}")
    _, epoch, base, seq, acked, _ = meta[0]
    if len(epochs) != count or not epochs or epochs[-1] != (base + 1, epoch):
        raise Damage("its epochs are damaged")
    return seq, acked, epochs


def is_event(row: Sequence[Any]) -> bool:
    """Is this an event, by its types and its checksum?"""
    try:
        check = event_check(row)
    except (TypeError, ValueError):
        return False
    if type(row[0]) is not int or type(row[6]) is not bytes:
        return False
    return row[7] is None or row[7] == check


def is_note(name: Any, value: Any, check: Any) -> bool:
    if not isinstance(name, str) or not isinstance(value, bytes):
        return False
    return check is None or check == note_check(name, value)


def is_epoch(first: Any, epoch: Any, check: Any) -> bool:
    if not isinstance(first, int) or not isinstance(epoch, str) or first < 1:
        return False
    return check is None or check == epoch_check(first, epoch)


def is_meta(epoch: Any, base: Any, seq: Any, acked: Any, check: Any) -> bool:
    if not isinstance(epoch, str) or not all(isinstance(one, int) for one in (base, seq, acked)):
        return False
    if not (0 <= base <= seq and 0 <= acked <= seq):
        return False
    return check is None or check == meta_check(epoch, base, seq, acked)


def _begin_epoch(db: sqlite3.Connection, state: State) -> State:
    """What is taken in from now on is a new epoch.

    A file can go back in time: an older copy is put back, or a power cut takes the last commits.
    Its numbers are then used again, but never under a name that a domain service has seen.
    """
    epochs = [*state.epochs, (state.seq + 1, new_id())]
    db.execute("BEGIN IMMEDIATE")
    write_epochs(db, epochs, state.seq, state.acked)
    db.execute("COMMIT")
    return state._replace(epochs=epochs)


def write_epochs(
    db: sqlite3.Connection, epochs: Sequence[tuple[int, str]], seq: int, acked: int
) -> None:
    """Write these epochs, and the row ``meta`` that goes with them."""
    db.execute("DELETE FROM epochs")
    db.executemany(
        "INSERT INTO epochs VALUES (?, ?, ?)",
        [(first, epoch, epoch_check(first, epoch)) for first, epoch in epochs],
    )
    first, epoch = epochs[-1]
    fields = (epoch, first - 1, seq, acked)
    db.execute(
        "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?)", (*fields, meta_check(*fields))
    )
