"""What a disk may hold after a power cut: records a program's writes, and replays them.

`record` runs a program under strace. Of what it has written at some moment, all that was synced is
on the disk. Of the rest any part may be: each beginning of it, any choice of the writes to file
contents, and of the last write some sectors. Changes of names (create, rename, link, unlink) are
durable once their directory is synced, and reach the disk in their order.

The program says what it has promised by writing lines to its standard output.
"""

from __future__ import annotations

import codecs
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512

CALLS = (
    "openat,creat,close,write,pwrite64,writev,pwritev,ftruncate,truncate,"
    "fallocate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "copy_file_range,sendfile"
)

_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def strace() -> str | None:
    """The program, if it is there and may trace here."""
    found = shutil.which("strace")
    if found is None:
        return None
    tried = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, check=False)
    return found if tried.returncode == 0 else None


class Op(NamedTuple):
    """A change. ``file``: the number of the file whose contents or name it is about."""

    kind: str
    file: int = 0
    name: str = ""
    old: str = ""
    at: int = 0
    data: bytes = b""


class Recording:
    """What a program did to the files of one directory."""

    def __init__(self, directory: Path, before: dict[str, bytes]) -> None:
        self.ops: list[Op] = []
        self._directory = f"{directory}/"
        self._before = before
        self._names = {name: number for number, name in enumerate(before)}
        self._files = len(before)
        self._open: dict[int, int | str] = {}
        self._places: dict[int, int] = {}
        self._sizes = {number: len(before[name]) for name, number in self._names.items()}

    # Reading the trace

    def read(self, trace: Iterable[str]) -> None:
        for line in trace:
            found = _LINE.match(line)
            if found is None:
                continue
            call, rest, result = found[1], found[2], int(found[3])
            if result >= 0:
                self._take(call, rest, result)

    def _take(self, call: str, rest: str, result: int) -> None:
        texts = [codecs.decode(one.replace("\\x", ""), "hex") for one in _TEXT.findall(rest)]
        numbers = [int(one) for one in re.findall(r"(?<![\w\\])-?\d+", _TEXT.sub("", rest))]
        if call == "openat":
            self._opened(texts[0].decode(), rest, result)
        elif call == "close":
            self._open.pop(numbers[0], None)
        elif call in ("rename", "renameat", "renameat2", "link", "linkat"):
            self._renamed(call, *(one.decode() for one in texts))
        elif call in ("unlink", "unlinkat"):
            name = self._ours(texts[0].decode())
            if name is not None:
                self.ops.append(Op("unlink", self._names.pop(name), name))
        elif numbers[0] == 1 and call == "write":
            self.ops.append(Op("says", data=texts[0]))
        elif numbers[0] in self._open:
            self._changed(call, numbers, texts, result)

    def _ours(self, path: str) -> str | None:
        return path[len(self._directory) :] if path.startswith(self._directory) else None

    def _opened(self, path: str, flags: str, fd: int) -> None:
        self._open.pop(fd, None)
        if f"{path}/" == self._directory:
            self._open[fd] = "directory"
        name = self._ours(path)
        if not name:
            return
        if name not in self._names:
            self._names[name] = self._files
            self._files += 1
            self._sizes[self._names[name]] = 0
            self.ops.append(Op("create", self._names[name], name))
        file = self._names[name]
        if "O_TRUNC" in flags and self._sizes[file]:
            self.ops.append(Op("truncate", file))
            self._sizes[file] = 0
        self._open[fd] = file
        self._places[fd] = self._sizes[file] if "O_APPEND" in flags else 0

    def _renamed(self, call: str, old: str, new: str) -> None:
        before, after = self._ours(old), self._ours(new)
        assert (before is None) is (after is None)
        if before is None or after is None:
            return
        kind = "link" if call.startswith("link") else "rename"
        file = self._names[before]
        if self._names.get(after) == file:
            return  # two names of one file: nothing happens
        self.ops.append(Op(kind, file, after, before))
        self._names[after] = file
        if kind == "rename":
            del self._names[before]

    def _changed(self, call: str, numbers: list[int], texts: list[bytes], result: int) -> None:
        file = self._open[numbers[0]]
        if isinstance(file, str):
            if call in ("fsync", "fdatasync"):
                self.ops.append(Op("sync names"))
            return
        if call in ("fsync", "fdatasync"):
            self.ops.append(Op("sync", file))
        elif call in ("write", "pwrite64"):
            at = numbers[-1] if call == "pwrite64" else self._places[numbers[0]]
            data = texts[0][:result]
            self._places[numbers[0]] += result if call == "write" else 0
            self._sizes[file] = max(self._sizes[file], at + result)
            self.ops.append(Op("write", file, at=at, data=data))
        elif call == "ftruncate":
            self._sizes[file] = numbers[1]
            self.ops.append(Op("truncate", file, at=numbers[1]))
        elif call == "fallocate":
            end = numbers[-2] + numbers[-1]
            if end > self._sizes[file]:
                self._sizes[file] = end
                self.ops.append(Op("truncate", file, at=end))
        else:
            raise AssertionError(f"{call} is not known here")

    # Replaying

    def moments(self) -> range:
        """The moments at which the power may fail: after so many changes."""
        return range(len(self.ops) + 1)

    def said(self, moment: int) -> list[str]:
        """The lines that the program had written by then."""
        parts = [op.data for op in self.ops[:moment] if op.kind == "says"]
        return b"".join(parts).decode().splitlines()

    def states(self, moment: int, subsets: int, chance: random.Random) -> Iterator[list[Op]]:
        """What may be on the disk if the power fails then, as changes to make in this order."""
        ops = [(place, op) for place, op in enumerate(self.ops[:moment]) if op.kind != "says"]
        synced: dict[int, int] = {}
        names = -1
        for place, op in ops:
            if op.kind == "sync":
                synced[op.file] = place
            elif op.kind == "sync names":
                names = place
        changes = [(place, op) for place, op in ops if not op.kind.startswith("sync")]
        loose = [
            place
            for place, op in changes
            if place > (synced.get(op.file, -1) if op.kind in ("write", "truncate") else names)
        ]
        for kept in range(len(loose) + 1):
            lost = set(loose[kept:])
            state = [op for place, op in changes if place not in lost]
            yield state
            if kept and self.ops[loose[kept - 1]].kind == "write":
                yield self._torn(state, self.ops[loose[kept - 1]], chance)
        for _ in range(subsets if len(loose) > 1 else 0):
            cut = chance.choice(loose)
            lost = {
                place
                for place in loose
                if (chance.random() < 0.5 if self.ops[place].kind == "write" else place > cut)
            }
            yield [op for place, op in changes if place not in lost]

    @staticmethod
    def _torn(state: list[Op], last: Op, chance: random.Random) -> list[Op]:
        sectors = range(0, len(last.data), SECTOR)
        parts = [
            last._replace(at=last.at + at, data=last.data[at : at + SECTOR])
            for at in sectors
            if chance.random() < 0.5
        ]
        return [one for op in state for one in (parts if op is last else [op])]

    def make(self, state: list[Op], directory: Path) -> None:
        """Fill an empty directory with such a state."""
        names = {name: number for number, name in enumerate(self._before)}
        contents = {number: bytearray(self._before[name]) for name, number in names.items()}
        for op in state:
            content = contents.setdefault(op.file, bytearray())
            if op.kind == "write":
                content.extend(bytes(max(0, op.at + len(op.data) - len(content))))
                content[op.at : op.at + len(op.data)] = op.data
            elif op.kind == "truncate":
                del content[op.at :]
                content.extend(bytes(op.at - len(content)))
            elif op.kind == "unlink":
                names.pop(op.name, None)
            else:
                names[op.name] = op.file
                if op.kind == "rename":
                    names.pop(op.old, None)
        directory.mkdir()
        for name, number in names.items():
            (directory / name).write_bytes(contents[number])


def record(program: str, directory: Path, *arguments: str) -> Recording:
    """Run this Python program, which gets the directory as its first argument."""
    found = strace()
    assert found is not None
    before = {one.name: one.read_bytes() for one in sorted(directory.iterdir())}
    trace = directory.with_name(f"{directory.name}.trace")
    command = [found, "-f", "-xx", "-s", "9999999", "-e", f"trace={CALLS}", "-o", str(trace)]
    subprocess.run(
        [*command, sys.executable, "-c", program, str(directory), *arguments],
        check=True,
        capture_output=True,
        timeout=300,
    )
    recording = Recording(directory, before)
    with trace.open(encoding="ascii") as lines:
        recording.read(lines)
    trace.unlink()
    return recording
