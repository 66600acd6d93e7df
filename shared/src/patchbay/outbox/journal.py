"""The outbox's file: SQLite in WAL mode.

    meta     epoch, base, seq, acked     one row; epoch is new when the file is new
    events   seq, key, topic, type, subject, time, body
    notes    name, value                 what an edge remembers of a device, with its events

``<file>.reserve`` beside it keeps room free for the day when the disk is full.

``seq`` never goes back, also when ``events`` is empty. The ``sequence`` on the wire is
``seq - base``: `renew` begins a new epoch at 1 without touching a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from patchbay.errors import PatchbayError, Unavailable
from patchbay.messages import new_id
from patchbay.outbox.reserve import Reserve

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

LOCK_WAIT_S = 2.0
"""A unit that was just killed frees its file at once; a second unit on it never does."""

VACUUM_BYTES = 1_048_576
"""A file that holds no more than this, and is mostly empty, is made small again when its disk was
full: that takes milliseconds. SQLite itself would keep the room for what is to come."""

MOST_MOVED = 50_000
MOVED_FOR_EACH = 50
"""Events that may be written anew to give up others: so many at once, and for each that goes."""

CACHE_KIB = 512
"""Pages of the file in memory. SQLite would take 2 MB, which an outbox that grows fills: it writes
at its end and reads what the kernel has in its own cache."""

SYNCHRONOUS = ("FULL", "NORMAL", "EXTRA", "OFF")


class Row(NamedTuple):
    """One event: ``key`` becomes the CloudEvents id, ``body`` is its data as JSON."""

    seq: int
    key: str
    topic: str
    type: str
    subject: str
    time: str
    body: bytes


class Journal:
    """The file and its commits. Calls block; a commit costs one fsync with synchronous FULL."""

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        if synchronous.upper() not in SYNCHRONOUS:
            raise PatchbayError(f"outbox synchronous: {synchronous} is none of {SYNCHRONOUS}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = _open_or_begin(path, synchronous)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"the outbox {path} cannot be opened: {error}") from error
        self._reserve = Reserve(Path(f"{path}.reserve"))
        self.epoch: str
        self.base: int
        self.seq: int
        self.acked: int
        self.epoch, self.base, self.seq, self.acked = self._db.execute(
            "SELECT epoch, base, seq, acked FROM meta"
        ).fetchone()
        self.rows: int
        self.bytes: int
        self.rows, self.bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
        ).fetchone()

    def commit(
        self,
        rows: list[Row],
        notes: Collection[tuple[str, bytes | None]],
        acked: int,
        ranges: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Write what one turn took in, and forget what is acknowledged, as one transaction.

        Acknowledged is all up to ``acked``, and each of ``ranges`` from its first to its last.
        Raises sqlite3.Error (disk full, I/O error); then nothing of it is written.
        """
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            gone = freed = 0
            if acked > self.acked:  # first, since it makes room for what is new
                gone, freed = db.execute(
                    "SELECT count(*), coalesce(sum(length(body)), 0) FROM events WHERE seq <= ?",
                    (acked,),
                ).fetchone()
                db.execute("DELETE FROM events WHERE seq <= ?", (acked,))
            for span in ranges:
                some, size = db.execute(
                    "SELECT count(*), coalesce(sum(length(body)), 0) FROM events"
                    " WHERE seq BETWEEN ? AND ?",
                    span,
                ).fetchone()
                db.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", span)
                gone, freed = gone + some, freed + size
            if rows:
                db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            kept = [note for note in notes if note[1] is not None]
            db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", kept)
            if len(kept) < len(notes):
                gone_notes = [(name,) for name, value in notes if value is None]
                db.executemany("DELETE FROM notes WHERE name = ?", gone_notes)
            seq = rows[-1].seq if rows else self.seq
            if rows or acked > self.acked:
                db.execute("UPDATE meta SET seq = ?, acked = ?", (seq, max(acked, self.acked)))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.seq = seq
        self.acked = max(acked, self.acked)
        self.rows += len(rows) - gone
        self.bytes += sum(len(row.body) for row in rows) - freed

    def give_up_reserve(self) -> None:
        """There is no room: use what was kept, to forget what is acknowledged, and that only."""
        self._reserve.release()

    @property
    def holds_reserve(self) -> bool:
        """Is room kept for the day when there is none?"""
        return self._reserve.held

    def hold_reserve(self) -> bool:
        """Keep room for the day when there is none. False: it is today."""
        with contextlib.suppress(sqlite3.Error):  # without room here either; the reserve will tell
            self._shrink()
        return self._reserve.hold()

    def renew(self) -> None:
        """Begin a new epoch: what is left counts from 1 again."""
        epoch = new_id()
        self._db.execute("UPDATE meta SET epoch = ?, base = acked", (epoch,))
        self.epoch, self.base = epoch, self.acked

    def shed(self, count: int, types: Collection[str]) -> int:
        """Give up the ``count`` oldest events of these types; how many it were.

        The others keep their order and what is left counts from 1 in a new epoch, since a domain
        service takes no event of an epoch after one that is missing. Those before the last that
        goes have to move: of too many of them for it fewer go, or none. Raises sqlite3.Error.
        """
        db = self._db
        oldest = db.execute(
            "SELECT seq, type, length(body) FROM events ORDER BY seq LIMIT ?", (count + MOST_MOVED,)
        ).fetchall()
        gone: list[tuple[int, int]] = []
        kept: list[int] = []
        for seq, type, size in oldest:
            if type in types:
                gone.append((seq, size))
            else:
                kept.append(seq)
            if len(gone) == count or len(kept) == MOST_MOVED:
                break
        if not gone:
            return 0
        last = gone[-1][0]
        kept = [seq for seq in kept if seq < last]
        if len(kept) > MOVED_FOR_EACH * len(gone):
            return 0
        base = last - len(kept)
        epoch = new_id()
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq, _ in gone])
            moves = [(last - place, seq) for place, seq in enumerate(reversed(kept))]
            db.executemany("UPDATE events SET seq = ? WHERE seq = ?", moves)
            db.execute("UPDATE meta SET epoch = ?, base = ?, acked = ?", (epoch, base, base))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.epoch, self.base, self.acked = epoch, base, base
        self.rows -= len(gone)
        self.bytes -= sum(size for _, size in gone)
        return len(gone)

    def after(self, seq: int, limit: int) -> list[Row]:
        """Up to ``limit`` events with a higher ``seq``, in order."""
        cursor = self._db.execute(
            "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        return [Row(*row) for row in cursor]

    def oldest(self) -> str | None:
        """The time of the oldest event; None if there is none."""
        found = self._db.execute("SELECT time FROM events ORDER BY seq LIMIT 1").fetchone()
        return None if found is None else found[0]

    def notes(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """The notes whose names begin with ``prefix``, without it."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        cursor = self._db.execute(
            "SELECT name, value FROM notes WHERE name >= ? AND name < ? ORDER BY name",
            (prefix, end),
        )
        for name, value in cursor:
            yield name[len(prefix) :], value

    def close(self) -> None:
        self._db.close()

    def _shrink(self) -> None:
        """Move what the log holds into the file, and give back what neither needs."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size, pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        used = pages - free
        if used * size <= VACUUM_BYTES and free > used:
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _open_or_begin(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open the file; one that is no database any more (a power cut) is set aside as ``.bad``."""
    try:
        return _open(path, synchronous)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if part.exists():
                part.replace(f"{part}.bad")
        structlog.get_logger("outbox").error("set aside as .bad", path=str(path), error=str(error))
        return _open(path, synchronous)


def _open(path: Path, synchronous: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("PRAGMA journal_size_limit=16777216")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        db.executescript(SCHEMA)
        db.execute("INSERT OR IGNORE INTO meta VALUES (1, ?, 0, 0, 0)", (new_id(),))
    except BaseException:
        db.close()
        raise
    return db
