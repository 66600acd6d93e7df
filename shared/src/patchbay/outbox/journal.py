"""The outbox's file and its commits: SQLite in WAL mode (see `patchbay.outbox.file`).

``<file>.reserve`` beside it keeps room free for the day when the disk is full.

``seq`` never goes back, also when ``events`` is empty. The ``sequence`` on the wire is ``seq`` less
the base of the event's epoch. Each start begins a new epoch; those before keep the events that they
have left, and a domain service gets the epochs one after another.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from patchbay.durable import make_directory
from patchbay.errors import PatchbayError, Unavailable
from patchbay.messages import new_id
from patchbay.outbox.file import (
    event_check,
    is_damage,
    is_event,
    meta_check,
    note_check,
    write_epochs,
)
from patchbay.outbox.reserve import Reserve
from patchbay.outbox.salvage import install_copy, mark_damaged, open_or_salvage, set_aside

VACUUM_BYTES = 1_048_576
"""A file that holds no more than this, and is mostly empty, is made small again when its disk was
full: that takes milliseconds. SQLite itself would keep the room for what is to come."""

MOST_MOVED = 50_000
MOVED_FOR_EACH = 50
"""Events that may be written anew to give up others: so many at once, and for each that goes."""

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


class Epoch(NamedTuple):
    """A numbering: the event ``seq`` has the number ``seq - base``, up to ``last``."""

    base: int
    name: str
    last: int


class Journal:
    """The file and its commits. Calls block; a commit costs one fsync with synchronous FULL.

    A damaged file is salvaged when it is opened. Damage that is met later is told to
    ``on_damage``, once, and raised as sqlite3.Error: who owns this has to stop, and its next start
    salvages.
    """

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        if synchronous.upper() not in SYNCHRONOUS:
            raise PatchbayError(f"outbox synchronous: {synchronous} is none of {SYNCHRONOUS}")
        self._path = path
        self.on_damage: Callable[[str], None] = lambda _why: None
        self.damage = ""
        """What is wrong with the file, once that is known."""
        try:
            make_directory(path.parent)
            self._db, state, self.salvaged = open_or_salvage(path, synchronous)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the outbox {path} cannot be opened: {error}") from error
        self._reserve = Reserve(Path(f"{path}.reserve"))
        self._epochs = state.epochs
        self.seq = state.seq
        self.acked = state.acked
        self.rows = state.rows
        self.bytes = state.bytes
        self._name, self._log = str(path), f"{path}-wal"
        self._place = self._files()

    @property
    def epoch(self) -> str:
        """The name of the present epoch."""
        return self._epochs[-1][1]

    @property
    def base(self) -> int:
        return self._epochs[-1][0] - 1

    @property
    def set_aside(self) -> int:
        """Damaged files that lie beside this one."""
        return len(set_aside(self._path))

    def epoch_at(self, seq: int) -> Epoch:
        """The epoch that the event ``seq`` is, or will be, of."""
        place = max(0, bisect_right(self._epochs, (seq, chr(0x10FFFF))) - 1)
        return self._epoch(place)

    def find_epoch(self, name: str) -> Epoch | None:
        """The epoch of this name, if it has events left."""
        for place, (_, known) in enumerate(self._epochs):
            if known == name:
                return self._epoch(place)
        return None

    def _epoch(self, place: int) -> Epoch:
        first, name = self._epochs[place]
        following = self._epochs[place + 1 : place + 2]
        return Epoch(first - 1, name, following[0][0] - 1 if following else self.seq)

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
        self.check_place()
        events = [(*row, event_check(row)) for row in rows]
        kept = [
            (name, value, note_check(name, value)) for name, value in notes if value is not None
        ]
        seq = rows[-1].seq if rows else self.seq
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
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
                db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", events)
            db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", kept)
            if len(kept) < len(notes):
                gone_notes = [(name,) for name, value in notes if value is None]
                db.executemany("DELETE FROM notes WHERE name = ?", gone_notes)
            if rows or acked > self.acked:
                written = max(acked, self.acked)
                check = meta_check(self.epoch, self.base, seq, written)
                db.execute("UPDATE meta SET seq = ?, acked = ?, crc = ?", (seq, written, check))
            db.execute("COMMIT")
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            self._remember_sizes()
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

    def begin_epoch(self, first: int) -> None:
        """What is in the file from ``first`` on, to the end of its epoch, is a new epoch.

        Raises sqlite3.Error."""
        epochs = [one for one in self._epochs if one[0] != first]
        insort(epochs, (first, new_id()))
        self._write_epochs(epochs, self.acked)

    def _write_epochs(self, epochs: list[tuple[int, str]], acked: int) -> None:
        with self._writing() as db:
            write_epochs(db, epochs, self.seq, acked)
        self._epochs = epochs

    def shed(self, count: int, types: Collection[str]) -> int:
        """Give up the ``count`` oldest events of these types; how many it were.

        The others keep their order and what is left counts from 1 in a new epoch, since a domain
        service takes no event of an epoch after one that is missing. Those before the last that
        goes have to move: of too many of them for it fewer go, or none. Raises sqlite3.Error.
        """
        with self._reading() as db:
            oldest = db.execute(
                "SELECT seq, type, length(body) FROM events ORDER BY seq LIMIT ?",
                (count + MOST_MOVED,),
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
        epochs = [(base + 1, new_id())]
        with self._writing() as db:
            db.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq, _ in gone])
            moves = [(last - place, seq) for place, seq in enumerate(reversed(kept))]
            db.executemany(
                "UPDATE events SET seq = ?1, crc = crc + ?1 - seq WHERE seq = ?2", moves
            )  # the checksum has the number as a summand
            write_epochs(db, epochs, self.seq, base)
        self._epochs, self.acked = epochs, base
        self.rows -= len(gone)
        self.bytes -= sum(size for _, size in gone)
        return len(gone)

    def after(self, seq: int, limit: int) -> list[Row]:
        """Up to ``limit`` events with a higher ``seq``, in order."""
        with self._reading() as db:
            found = db.execute(
                "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
            ).fetchall()
        for row in found:
            if not is_event(row):
                self.found_damage(f"event {row[0]} is damaged")
                raise sqlite3.DatabaseError(self.damage)
        return [Row(*row[:-1]) for row in found]

    def next_after(self, seq: int) -> int:
        """The number of the first event with a higher ``seq``, or what it would be."""
        with self._reading() as db:
            [found] = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (seq,)).fetchone()
        return self.seq + 1 if found is None else int(found)

    def numbers_between(self, first: int, last: int, limit: int) -> list[int]:
        """The numbers of up to ``limit`` events from ``first`` to ``last``."""
        with self._reading() as db:
            found = db.execute(
                "SELECT seq FROM events WHERE seq BETWEEN ? AND ? LIMIT ?", (first, last, limit)
            ).fetchall()
        return [seq for [seq] in found]

    def oldest(self) -> str | None:
        """The time of the oldest event; None if there is none."""
        with self._reading() as db:
            found = db.execute("SELECT time FROM events ORDER BY seq LIMIT 1").fetchone()
        return None if found is None else found[0]

    def notes(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """The notes whose names begin with ``prefix``, without it."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with self._reading() as db:
            found = db.execute(
                "SELECT name, value FROM notes WHERE name >= ? AND name < ? ORDER BY name",
                (prefix, end),
            ).fetchall()
        for name, value in found:
            yield name[len(prefix) :], value

    def close(self) -> None:
        self._db.close()

    def _shrink(self) -> None:
        """Move what the log holds into the file, and give back what neither needs."""
        try:
            with self._reading() as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                size, pages, free = (
                    db.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("page_size", "page_count", "freelist_count")
                )
                used = pages - free
                if used * size <= VACUUM_BYTES and free > used:
                    db.execute("VACUUM")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._remember_sizes()

    # Damage

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            self._undo(error)
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            self._remember_sizes()

    def _undo(self, error: BaseException) -> None:
        """This has gone wrong: nothing of its transaction is written."""
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self.found_damage(str(error))
        with contextlib.suppress(sqlite3.Error):  # of a file that cannot be read either
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def found_damage(self, why: str) -> None:
        """The file is damaged: leave word for the next start."""
        if not self.damage:
            self.damage = f"the outbox {self._path} is damaged: {why}"
            self._reserve.release()
            mark_damaged(self._path, why)
            self.on_damage(self.damage)

    def _files(self) -> tuple[int, ...]:
        """Which files the names of file and log stand for now, and how large they are."""
        try:
            main, log = os.stat(self._name), os.stat(self._log)
        except OSError:
            return ()
        return main.st_ino, log.st_ino, main.st_size, log.st_size

    def _remember_sizes(self) -> None:
        now = self._files()
        if now[:2] == self._place[:2]:
            self._place = now

    def check_place(self) -> None:
        """Nobody but us writes the file: if it is another, or of another size, what we write would
        be lost. Raises sqlite3.DatabaseError; all that the old file holds is then where the next
        start finds it, if it can be read."""
        if self.damage:
            raise sqlite3.DatabaseError(self.damage)
        if self._files() == self._place:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            install_copy(self._db, self._path)
        self.found_damage("somebody has removed, replaced or cut it")
        raise sqlite3.DatabaseError(self.damage)
