"""Reads the pages of an SQLite file without SQLite: for files that it refuses.

Only what a salvage needs: the cells of b-tree leaves, with their overflow pages, and the frames of
a write-ahead log. Source of the formats: https://www.sqlite.org/fileformat2.html. Damage raises
`Unreadable` for one cell or page, and never anything else.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

HEADER: Final = b"SQLite format 3\x00"
PAGE_SIZE: Final = 4096
"""What SQLite uses unless told otherwise, and so what our files have when nothing tells."""

WAL_HEADER: Final = 32
FRAME_HEADER: Final = 24
WAL_MAGIC: Final = (0x377F0682, 0x377F0683)

MAX_PAYLOAD: Final = 67_108_864
"""A record that says to be larger is damaged: no event comes near."""

_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_HEADER_BYTES: Final = {0x0D: 8, 0x0A: 8, 0x02: 12, 0x05: 12}

Value = int | float | str | bytes | None


class Unreadable(Exception):
    """This cell or page is damaged."""


class Record(NamedTuple):
    """One record; ``rowid`` is None in an index or a table without rowids."""

    rowid: int | None
    values: list[Value]


class Frame(NamedTuple):
    """A page in a write-ahead log. ``commits``: it is the last of its transaction."""

    page: int
    offset: int
    commits: bool


Bytes = bytes | mmap.mmap


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, of which only those that are looked at are read; none if it is away."""
    try:
        file = path.open("rb")
    except OSError:
        yield b""
        return
    with file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as found:
            yield found


def page_size_of(head: bytes, wal: bytes) -> int:
    """The page size that a file's first bytes name, or else its log's."""
    if head.startswith(HEADER) and len(head) >= 18:
        size = int.from_bytes(head[16:18], "big")
        size = 65536 if size == 1 else size
    elif len(wal) >= WAL_HEADER and int.from_bytes(wal[:4], "big") in WAL_MAGIC:
        size = int.from_bytes(wal[8:12], "big")
    else:
        size = PAGE_SIZE
    return size if 512 <= size <= 65536 and size & (size - 1) == 0 else PAGE_SIZE


def frames(wal: Bytes, page_size: int) -> list[Frame]:
    """The frames of the log's present generation, in order, whatever is between them.

    A log is written again from its start with new salts, so frames with others are older. The salts
    are the header's, or the first frame's where the header is damaged.
    """
    if len(wal) < WAL_HEADER + FRAME_HEADER:
        return []
    salts = bytes(wal[16:24])
    if not _is_wal_header(wal[:WAL_HEADER]):
        salts = bytes(wal[WAL_HEADER + 8 : WAL_HEADER + 16])
    found = []
    for offset in range(
        WAL_HEADER, len(wal) - FRAME_HEADER - page_size + 1, FRAME_HEADER + page_size
    ):
        page, size = struct.unpack_from(">II", wal, offset)
        if wal[offset + 8 : offset + 16] == salts and page:
            found.append(Frame(page, offset + FRAME_HEADER, size != 0))
    return found


def is_whole(wal: Bytes, frame: Frame, page_size: int) -> bool:
    """Is what stands in this frame what was written there? Its checksum goes on from that of the
    frame before it, which is taken as it stands."""
    at = frame.offset - FRAME_HEADER
    before = 24 if at == WAL_HEADER else at - page_size - 8
    one, two = struct.unpack_from(">II", wal, before)
    order = ">" if wal[3] & 1 else "<"
    found = _checksum(wal[at : at + 8], order, one, two)
    found = _checksum(wal[frame.offset : frame.offset + page_size], order, *found)
    return found == struct.unpack_from(">II", wal, at + 16)


def _is_wal_header(header: bytes) -> bool:
    if int.from_bytes(header[:4], "big") not in WAL_MAGIC:
        return False
    order = ">" if header[3] & 1 else "<"
    return _checksum(header[:24], order) == struct.unpack_from(">II", header, 24)


def _checksum(data: bytes, order: str, one: int = 0, two: int = 0) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def freelist(read: Callable[[int], bytes]) -> set[int]:
    """The pages that the file has no use for, as far as its list of them can be read."""
    free: set[int] = set()
    try:
        [trunk] = struct.unpack_from(">I", read(1), 32)
        while trunk and trunk not in free:
            page = read(trunk)
            free.add(trunk)
            trunk, count = struct.unpack_from(">II", page)
            count = min(count, len(page) // 4 - 2)
            free.update(struct.unpack_from(f">{count}I", page, 8))
    except (Unreadable, struct.error):
        pass
    return free


def records(page: bytes, number: int, read: Callable[[int], bytes]) -> Iterator[Record | None]:
    """The records of a page that holds any; None for one that cannot be read.

    ``read`` gives another page by its number. Raises Unreadable for what is no page of a b-tree;
    a page that holds only pointers has no records.
    """
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in _HEADER_BYTES:
        raise Unreadable(f"page {number} is of no kind")
    [count] = struct.unpack_from(">H", page, start + 3)
    first = start + _HEADER_BYTES[kind]
    if first + 2 * count > len(page):
        raise Unreadable(f"page {number} has {count} cells")
    if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
        return
    for pointer in struct.unpack_from(f">{count}H", page, first):
        try:
            yield _cell(page, kind, pointer, read)
        except (Unreadable, struct.error, IndexError, UnicodeDecodeError):
            yield None


def _cell(page: bytes, kind: int, at: int, read: Callable[[int], bytes]) -> Record:
    rowid = None
    if kind == _INDEX_INTERIOR:
        at += 4
    size, at = _varint(page, at)
    if kind == _TABLE_LEAF:
        rowid, at = _varint(page, at)
    return Record(rowid, _values(_payload(page, kind, size, at, read)))


def _payload(page: bytes, kind: int, size: int, at: int, read: Callable[[int], bytes]) -> bytes:
    if not 0 < size <= MAX_PAYLOAD:
        raise Unreadable(f"a record of {size} bytes")
    usable = len(page)
    most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if size <= most:
        local = size
    else:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        if local > most:
            local = least
    if at + local > usable:
        raise Unreadable("a record that reaches beyond its page")
    parts = [page[at : at + local]]
    if local < size:
        [overflow] = struct.unpack_from(">I", page, at + local)
        missing = size - local
        while missing > 0:
            more = read(overflow)
            [overflow] = struct.unpack_from(">I", more)
            parts.append(more[4 : 4 + missing])
            missing -= len(parts[-1])
    return b"".join(parts)


def _values(payload: bytes) -> list[Value]:
    end, at = _varint(payload, 0)
    body = end
    values: list[Value] = []
    while at < end:
        kind = payload[at]
        if kind < 0x80:
            at += 1
        else:
            kind, at = _varint(payload, at)
        if kind >= 12:
            size = (kind - 12) // 2
            raw = payload[body : body + size]
            values.append(raw.decode() if kind % 2 else raw)
        elif kind in _INTEGER_BYTES:
            size = _INTEGER_BYTES[kind]
            values.append(int.from_bytes(payload[body : body + size], "big", signed=True))
        elif kind == 7:
            size = 8
            values += struct.unpack_from(">d", payload, body)
        elif kind in (8, 9):
            size = 0
            values.append(kind - 8)
        elif kind == 0:
            size = 0
            values.append(None)
        else:
            raise Unreadable(f"a value of kind {kind}")
        body += size
    if at != end or body != len(payload):
        raise Unreadable("a record that does not end where it says")
    return values


_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9
