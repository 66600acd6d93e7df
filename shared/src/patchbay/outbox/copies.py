"""The copies of each page that a damaged SQLite file and its log hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from patchbay.outbox import pages
from patchbay.outbox.pages import Unreadable


class Copies:
    """The pages of the damaged file and of its log, from the newest copy of each to the oldest.

    A frame of the log whose checksum is wrong may hold what stood there before: it comes last.
    """

    def __init__(self, main: pages.Bytes, log: pages.Bytes) -> None:
        self._main = main
        self._log = log
        self._size = pages.page_size_of(main[:100], log[:32])
        self._newest: dict[int, int] = {}
        self._older: list[tuple[int, int]] = []
        self._doubtful: list[tuple[int, int]] = []
        frames = pages.frames(log, self._size)
        read = 0  # frames that SQLite would read
        for place, frame in enumerate(frames):
            if not pages.is_whole(log, frame, self._size):
                self._doubtful.append((frame.page, frame.offset))
                continue
            if read == place:
                read += 1
            if frame.page in self._newest:
                self._older.append((frame.page, self._newest[frame.page]))
            self._newest[frame.page] = frame.offset
        self.torn = any(frame.commits for frame in frames[read:])
        """The log holds transactions of which a part is gone, and what they moved with it."""

    def version(self) -> int | None:
        """The version that the file's first page names, if it is one."""
        with contextlib.suppress(Unreadable):
            page = self.read(1)
            if page.startswith(pages.HEADER):
                return int.from_bytes(page[60:64], "big")
        return None

    def newest(self) -> Iterator[tuple[int, bytes]]:
        """The newest copy of each page that the file has a use for, with its number."""
        there = -(-len(self._main) // self._size)
        free = pages.freelist(self.read)
        for number in range(1, max([there, *self._newest]) + 1):
            if number not in free:
                with contextlib.suppress(Unreadable):
                    yield number, self.read(number)

    def older(self) -> Iterator[tuple[int, bytes]]:
        """All older copies, the doubtful ones last."""
        for number, offset in reversed(self._older):
            yield number, self._log[offset : offset + self._size]
        for number in self._newest:
            if page := self._in_main(number):
                yield number, page
        for number, offset in reversed(self._doubtful):
            yield number, self._log[offset : offset + self._size]

    def read(self, number: int) -> bytes:
        """A page as it was written last. Raises Unreadable."""
        offset = self._newest.get(number)
        page = self._in_main(number) if offset is None else self._log[offset : offset + self._size]
        if not page:
            raise Unreadable(f"page {number} is not there")
        return page

    def _in_main(self, number: int) -> bytes:
        if number < 1:
            return b""
        page = self._main[(number - 1) * self._size : number * self._size]
        return page.ljust(self._size, b"\0") if page else b""
