"""Ways to damage an outbox file, each as a disk, a power cut or a person does it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PAGE = 4096


class Damage(NamedTuple):
    """``do`` damages the file. ``loses``: events that may be gone of `EVENTS`. ``whole``: no
    damage to the events, so all of them must be there."""

    do: Callable[[Path], None]
    loses: int = 0
    notes_lost: int = 0


def root_of(path: Path, table: str) -> int:
    """The number of a table's first page."""
    db = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    [root] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    return int(root)


def write_at(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def zero_root(table: str) -> Callable[[Path], None]:
    return lambda path: write_at(path, (root_of(path, table) - 1) * PAGE, bytes(PAGE))


def leaves(path: Path) -> list[int]:
    """The pages that hold events, by what stands in them."""
    raw = path.read_bytes()
    pages = range(1, len(raw) // PAGE)
    return [
        page + 1
        for page in pages
        if raw[page * PAGE] == 0x0D and b"/event/" in raw[page * PAGE : (page + 1) * PAGE]
    ]


def zero_a_leaf(path: Path) -> None:
    write_at(path, (leaves(path)[len(leaves(path)) // 2] - 1) * PAGE, bytes(PAGE))


def noise_in_a_leaf(path: Path) -> None:
    write_at(path, (leaves(path)[-1] - 1) * PAGE, bytes(range(256)) * (PAGE // 256))


def flip(text: bytes) -> Callable[[Path], None]:
    """One bit of the first place where the file has this text."""

    def do(path: Path) -> None:
        raw = path.read_bytes()
        at = raw.index(text)
        write_at(path, at + len(text) - 1, bytes([raw[at + len(text) - 1] ^ 1]))

    return do


def cut(part: int) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        size = path.stat().st_size * part // 10
        with path.open("r+b") as file:
            file.truncate(size)

    return do


def sql(*statements: str) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    return do


EVENTS = 300
ALL = EVENTS

AT_REST = {
    "a zeroed page of events": Damage(zero_a_leaf, 40),
    "noise in a page of events": Damage(noise_in_a_leaf, 40),
    "the first page of events zeroed": Damage(zero_root("events")),
    "meta zeroed": Damage(zero_root("meta")),
    "the epochs zeroed": Damage(zero_root("epochs")),
    "the first page of notes zeroed": Damage(zero_root("notes"), 0, 20),
    "a wrong header": Damage(lambda path: write_at(path, 0, b"not SQLite any more")),
    "a header of zeroes": Damage(lambda path: write_at(path, 0, bytes(100))),
    "the schema zeroed": Damage(lambda path: write_at(path, 0, bytes(PAGE))),
    "a wrong page size": Damage(lambda path: write_at(path, 16, b"\x20\x00"), ALL, 20),
    "a bit of an event": Damage(flip(b'"number":117'), 1),
    "a bit of a key": Damage(flip(b"key-00118"), 1),
    "a bit of a note": Damage(flip(b"note of 7"), 0, 1),
    "cut in half": Damage(cut(5), ALL, 20),
    "cut to nine tenths": Damage(cut(9), 60, 20),
    "cut to nothing": Damage(cut(0), ALL, 20),
    "noise all over": Damage(
        lambda path: path.write_bytes(b"noise, and no database" * 3000), ALL, 20
    ),
    "no row in meta": Damage(sql("DELETE FROM meta")),
    "no table meta": Damage(sql("DROP TABLE meta")),
    "no table notes": Damage(sql("DROP TABLE notes"), 0, 20),
    "no table events": Damage(sql("DROP TABLE events"), ALL),
    "a column more in events": Damage(sql("ALTER TABLE events ADD COLUMN extra TEXT")),
    "a column more in meta": Damage(sql("ALTER TABLE meta ADD COLUMN extra TEXT")),
    "a column more in notes": Damage(sql("ALTER TABLE notes ADD COLUMN extra TEXT")),
    "a column of another name": Damage(sql("ALTER TABLE meta RENAME COLUMN base TO basis")),
    "a column less in meta": Damage(sql("ALTER TABLE meta DROP COLUMN base")),
    "a column less in events": Damage(sql("ALTER TABLE events DROP COLUMN subject")),
    "no checksums": Damage(sql("ALTER TABLE events DROP COLUMN crc")),
    "text where a number must be": Damage(sql("UPDATE meta SET acked = 'many'")),
    "a count that goes down": Damage(sql("UPDATE meta SET seq = 7")),
    "more acknowledged than there is": Damage(sql("UPDATE meta SET acked = 10000")),
    "a row that is text": Damage(sql("UPDATE events SET body = 'text' WHERE seq = 50"), 1),
    "a row of another epoch": Damage(sql("UPDATE epochs SET first = 99 WHERE first = 1")),
    "an epoch that is a blob": Damage(sql("UPDATE meta SET epoch = x'ff00ff'")),
    "text that is no UTF-8": Damage(
        sql("UPDATE events SET subject = CAST(x'ff00ff' AS TEXT) WHERE seq = 60"), 1
    ),
    "a note that is a number": Damage(
        sql("UPDATE notes SET value = 5 WHERE name = 'note/7'"), 0, 1
    ),
    "a version that is none": Damage(sql("PRAGMA user_version = -5")),
}
