"""Saves what can be read of a damaged outbox file into a new one, and sets the old one aside.

It reads the pages themselves (`patchbay.outbox.pages`), without the index above them, since that
may be what is damaged: each event and each note that is whole counts, wherever it stands. Of a page
that is damaged older copies are tried too, and of all pages where the log is damaged: the rest of a
transaction may lie in what cannot be read. So what was forgotten may come back. Events keep their
numbers and epochs, so a domain service knows those that it has persisted.

    <file>.salvaging    being written
    <file>.salvaged     complete: takes the file's place, now or at the next start
    <file>.bad, .bad.2  what was damaged, with its log beside it; never overwritten
    <file>.damaged      the unit has met damage while it ran: salvage at the next start
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from patchbay.durable import place_aside, places_aside, put_in_place, sync_directory
from patchbay.errors import Unavailable
from patchbay.messages import new_id, now, rfc3339
from patchbay.outbox import file, pages
from patchbay.outbox.copies import Copies
from patchbay.outbox.pages import Record, Unreadable

PARTS: Final = ("", "-wal", "-shm", "-journal")

_LOCK_BYTES: Final = (512, 0x40000000)
"""Length and place of the bytes that SQLite locks in a file."""


class Salvage(NamedTuple):
    """What was saved. ``missing``: numbers without an event between the first and the last that
    should be there."""

    why: str
    events: int
    missing: int
    notes: int


def losses(saved: Salvage | None, aside: int, *, in_order: bool) -> dict[str, int]:
    """Numbers of what damage has cost, for a unit's info; empty while there was none.

    How many events are missing cannot be told where they are acknowledged in any order.
    """
    found = {"outbox_files_set_aside": aside} if aside else {}
    if saved is not None:
        found |= {"outbox_events_salvaged": saved.events, "outbox_notes_salvaged": saved.notes}
        if in_order:
            found["outbox_events_missing"] = saved.missing
    return found


def mark_damaged(path: Path, why: str) -> None:
    """Leave word that the file is to be salvaged, however well it looks at the next start."""
    with contextlib.suppress(OSError):
        _marker(path).write_text(why, encoding="utf-8")


def open_or_salvage(
    path: Path, synchronous: str
) -> tuple[sqlite3.Connection, file.State, Salvage | None]:
    """Open the file; if it is damaged, save what can be saved of it first.

    Raises Unavailable, and sqlite3.Error or OSError when there is no room or the file is in use.
    """
    if _salvaged(path).exists():
        _install(path)
    why = ""
    with contextlib.suppress(OSError):
        why = _marker(path).read_text(encoding="utf-8", errors="replace") or "damaged"
    if not why:
        try:
            with _log_kept(path):
                return (*file.open_file(path, synchronous), None)
        except file.Damage as error:
            why = str(error)
        except sqlite3.Error as error:
            if not file.is_damage(error):
                raise
            why = str(error)
    saved = _salvage(path, why)
    structlog.get_logger("outbox").error(
        "outbox salvaged",
        path=str(path),
        why=why,
        events=saved.events,
        missing=saved.missing,
        notes=saved.notes,
        set_aside=len(set_aside(path)),
    )
    return (*file.open_file(path, synchronous), saved)


@contextlib.contextmanager
def _log_kept(path: Path) -> Iterator[None]:
    """While this lasts the log has a second name, and its first one again if it ends with an error:
    SQLite deletes the log of a file that it closes, with all that it could not read of it."""
    log, kept = Path(f"{path}-wal"), Path(f"{path}-wal.kept")
    if kept.exists() and not log.exists():  # killed between the two
        kept.replace(log)
    kept.unlink(missing_ok=True)
    if log.exists():
        try:
            os.link(log, kept)
        except OSError:  # a file system without links
            shutil.copyfile(log, kept)
    try:
        yield
    finally:
        if kept.exists() and not log.exists():
            kept.replace(log)
        kept.unlink(missing_ok=True)


def set_aside(path: Path) -> list[Path]:
    """The damaged files that are there."""
    return [one for one in places_aside(path) if one.exists()]


def install_copy(db: sqlite3.Connection, path: Path) -> None:
    """Write all that ``db`` holds where the next start finds it: the file itself is gone or is
    another. Raises sqlite3.Error, OSError."""
    fresh = Path(f"{path}.salvaging")
    fresh.unlink(missing_ok=True)
    db.execute("VACUUM INTO ?", (str(fresh),))
    _complete(path)


def _salvage(path: Path, why: str) -> Salvage:
    Path(f"{path}.reserve").unlink(missing_ok=True)  # the new file may need its room
    fresh = Path(f"{path}.salvaging")
    fresh.unlink(missing_ok=True)
    with (
        _locked(path),
        pages.mapped(path) as main,
        pages.mapped(Path(f"{path}-wal")) as log,
    ):
        source = Copies(main, log)
        version = source.version()
        if version is not None and file.VERSION < version <= file.HIGHEST_VERSION:
            file.refuse_newer(path, version)
        db = sqlite3.connect(fresh, isolation_level=None)
        try:
            saved = _Saving(db, source, why).run()
        except BaseException:
            db.close()
            fresh.unlink(missing_ok=True)
            raise
        db.close()
        _complete(path)
        _install(path)
    return saved


def _complete(path: Path) -> None:
    put_in_place(Path(f"{path}.salvaging"), _salvaged(path))


def _install(path: Path) -> None:
    """Put the salvaged file in the place of the damaged one, which is deleted if too many lie
    beside it already."""
    place = place_aside(path)
    for part in PARTS:
        old = Path(f"{path}{part}")
        if place is None:
            old.unlink(missing_ok=True)
        elif old.exists():
            old.replace(f"{place}{part}")
    sync_directory(path.parent)  # the old log must not be found beside the new file
    _salvaged(path).replace(path)
    _marker(path).unlink(missing_ok=True)
    sync_directory(path.parent)


def _salvaged(path: Path) -> Path:
    return Path(f"{path}.salvaged")


def _marker(path: Path) -> Path:
    return Path(f"{path}.damaged")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that SQLite would hold. Raises Unavailable if another process has it."""
    try:
        held = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB, *_LOCK_BYTES)
    except OSError as error:
        os.close(held)
        raise Unavailable(f"the outbox {path} cannot be opened: it is locked") from error
    try:
        yield
    finally:
        os.close(held)


class _Saving:
    """Fills a new file with what a damaged one holds."""

    def __init__(self, db: sqlite3.Connection, source: Copies, why: str) -> None:
        self._db = db
        self._source = source
        self._why = why
        self._columns = dict(file.COLUMNS)
        self._meta: tuple[str, int, int, int] | None = None
        self._epochs: dict[int, str] = {}

    def run(self) -> Salvage:
        db = self._db
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        for statement in file.TABLES.values():
            db.execute(statement)
        whole = {number for number, page in self._source.newest() if self._save_page(number, page)}
        for number, page in self._source.older():
            if self._source.torn or number not in whole:
                self._save_page(number, page)
        saved = self._finish()
        db.execute(f"PRAGMA user_version={file.VERSION}")
        db.execute("COMMIT")
        return saved

    def _save_page(self, number: int, page: bytes) -> bool:
        """Save what is on a page, if it is not saved yet. False: something of it is damaged."""
        take = self._take_schema if number == 1 else self._take
        whole = True
        try:
            for record in pages.records(page, number, self._source.read):
                whole = record is not None and take(record) and whole
        except (Unreadable, struct.error, IndexError):
            return False
        return whole

    def _take_schema(self, record: Record) -> bool:
        """The columns of each table, which may have been changed."""
        match record.values:
            case ["table", str(name), _, _, str(statement)] if name in self._columns:
                with (
                    contextlib.closing(sqlite3.connect(":memory:")) as scratch,
                    contextlib.suppress(sqlite3.Error),
                ):
                    scratch.execute(statement)
                    found = scratch.execute(f"PRAGMA table_info({name})").fetchall()
                    self._columns[name] = tuple(row[1] for row in found)
        return True

    def _take(self, record: Record) -> bool:
        """Save a record, whichever table it is of. False if it is of none, or damaged."""
        if record.rowid is None:
            name, value, check = self._fields("notes", record)
            if not file.is_note(name, value, check):
                return False
            self._db.execute(
                "INSERT OR IGNORE INTO notes VALUES (?, ?, ?)",
                (name, value, file.note_check(name, value)),
            )
            return True
        return self._take_event(record) or self._take_meta(record) or self._take_epoch(record)

    def _fields(self, table: str, record: Record) -> list[Any]:
        """The values in the order of our own columns; None for what is not there."""
        if self._columns[table] == file.COLUMNS[table]:
            return [*record.values, None][: len(file.COLUMNS[table])]
        there = dict(zip(self._columns[table], record.values, strict=False))
        return [there.get(name) for name in file.COLUMNS[table]]

    def _take_event(self, record: Record) -> bool:
        if record.values[0] is not None or len(record.values) < len(file.COLUMNS["events"]) - 2:
            return False
        row = [record.rowid, *self._fields("events", record)[1:]]
        if self._columns["events"] != file.COLUMNS["events"]:
            row = _completed(row, set(file.COLUMNS["events"]) - set(self._columns["events"]))
        if not isinstance(row[2], str) or "/event/" not in row[2] or not file.is_event(row):
            return False
        self._db.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row if row[7] is not None else (*row[:7], file.event_check(row)),
        )
        return True

    def _take_meta(self, record: Record) -> bool:
        if record.rowid != 1 or len(record.values) < len(file.OLD_COLUMNS["meta"]):
            return False
        _, epoch, base, seq, acked, check = self._fields("meta", record)
        if not file.is_meta(epoch, base, seq, acked, check):
            return False
        if self._meta is None:
            self._meta = (epoch, base, seq, acked)
        return True

    def _take_epoch(self, record: Record) -> bool:
        if len(record.values) != len(file.COLUMNS["epochs"]):
            return False
        _, epoch, check = self._fields("epochs", record)
        if record.rowid is None or not file.is_epoch(record.rowid, epoch, check):
            return False
        self._epochs.setdefault(record.rowid, epoch)
        return True

    def _finish(self) -> Salvage:
        """Work out what ``meta`` has to say, from itself or from the rows that are there."""
        db = self._db
        first, last = db.execute("SELECT min(seq), max(seq) FROM events").fetchone()
        seq = last or 0
        acked = first - 1 if first is not None else 0
        if self._meta is not None:
            epoch, base, written, acked = self._meta
            seq = max(seq, written)
            self._epochs.setdefault(base + 1, epoch)
            db.execute("DELETE FROM events WHERE seq <= ?", (acked,))
        first, count = db.execute("SELECT min(seq), count(*) FROM events").fetchone()
        epochs = {at: name for at, name in self._epochs.items() if at <= seq + 1}
        lowest = first if first is not None else seq + 1
        if not any(at <= lowest for at in epochs):
            epochs[lowest] = new_id()
        file.write_epochs(db, sorted(epochs.items()), seq, acked)
        [notes] = db.execute("SELECT count(*) FROM notes").fetchone()
        return Salvage(self._why, count, max(0, seq - acked - count), notes)


def _completed(row: list[Any], lacking: set[str]) -> list[Any]:
    """An event of which columns are gone: what others tell of it, or what stands for nothing."""
    if not lacking - {"crc"}:
        return row
    values = dict(zip(file.COLUMNS["events"], row, strict=True))
    topic = values["topic"] if isinstance(values["topic"], str) else ""
    levels = topic.split("/")
    if len(levels) >= 4:
        stand_ins = {
            "key": f"salvaged/{new_id()}",
            "type": f"patchbay.{levels[-4]}.{levels[-1]}",
            "subject": levels[-3],
            "time": rfc3339(now()),
            "body": b"null",
        }
        values.update({name: stand_ins[name] for name in lacking if name in stand_ins})
    values["crc"] = None
    return list(values.values())
