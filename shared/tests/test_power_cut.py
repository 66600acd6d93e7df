"""A power cut at any moment: what was answered is there, and every state is opened."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchbay.access.directory import Directory
from patchbay.outbox import Journal, Row
from tests import power_cut
from tests.power_cut import Recording, record

pytestmark = pytest.mark.skipif(
    power_cut.strace() is None, reason="strace is missing, or may not trace here"
)

QUICK = 60
"""States that the normal run tries of each recording; all with the marker ``long``."""

WRITER = """
import os, sys
from pathlib import Path
from patchbay.outbox import Journal, Row

def say(text):
    os.write(1, text.encode() + b"\\n")

seq = acked = 0
for start in range(3):
    journal = Journal(Path(sys.argv[1]) / "outbox.sqlite", sys.argv[2])
    journal._db.execute("PRAGMA wal_autocheckpoint=25")
    seq, acked = max(seq, journal.seq), max(acked, journal.acked)
    for turn in range(7):
        rows = []
        for _ in range(1 + turn % 3):
            seq += 1
            body = b'{"n":%d,"t":"%s"}' % (seq, b"x" * (seq % 5 * 1500))
            topic = "patchbay/tiny/d1/event/said"
            rows.append(Row(seq, f"k{seq}", topic, "patchbay.tiny.said", "D1", "t", body))
        if turn % 3 == 2:
            acked = seq - 4
        say(f"acknowledged {acked}")
        journal.commit(rows, [(f"n{seq % 3}", b"%d" % seq)], acked)
        say(f"answered {seq}")
        if turn == 4:
            journal.begin_epoch(seq)
    journal.close()
"""


def body(seq: int) -> bytes:
    return b'{"n":%d,"t":"%s"}' % (seq, b"x" * (seq % 5 * 1500))


def last(said: list[str], word: str) -> int:
    return max([int(line.split()[1]) for line in said if line.startswith(word)], default=0)


def check_outbox(directory: Path, said: list[str], *, lossless: bool = True) -> None:
    """Opens, and holds all that was answered and was not to be forgotten."""
    journal = Journal(directory / "outbox.sqlite", "OFF")
    there = {row.seq: row for row in journal.after(0, 1000)}
    assert all(row.body == body(seq) and row.key == f"k{seq}" for seq, row in there.items())
    answered = last(said, "answered")
    if lossless:
        wanted = set(range(last(said, "acknowledged") + 1, answered + 1))
        assert wanted <= set(there)
        newest = max([int(value) for _, value in journal.notes("n")], default=0)
        assert newest >= answered
    seq = journal.seq + 1
    topic = "patchbay/tiny/d1/event/said"
    journal.commit([Row(seq, "new", topic, "patchbay.tiny.said", "D1", "t", b"{}")], (), 0)
    assert journal.epoch_at(seq).base == seq - 1
    journal.close()


Check = Callable[[Path, list[str]], None]


def all_states(recording: Recording, subsets: int) -> list[tuple[int, list[power_cut.Op]]]:
    """Each state of the disk once, with the last moment at which it may be: most was said then."""
    chance = random.Random(11)
    found = {}
    for moment in recording.moments():
        for state in recording.states(moment, subsets, chance):
            found[hash(tuple(map(id, state)))] = moment, state
    return list(found.values())


def try_states(recording: Recording, check: Check, place: Path, most: int | None) -> int:
    """Checks states of the disk, ``most`` of them at random or all. How many it were."""
    states = all_states(recording, 1 if most else 4)
    chosen = states if most is None else random.Random(5).sample(states, min(most, len(states)))
    for moment, state in chosen:
        recording.make(state, place)
        check(place, recording.said(moment))
        shutil.rmtree(place)
    return len(chosen)


def outbox_recording(tmp_path: Path, synchronous: str) -> Recording:
    directory = tmp_path / "recorded"
    directory.mkdir()
    recording = record(WRITER, directory, synchronous)
    assert last(recording.said(len(recording.ops)), "answered") > 30
    return recording


def test_what_was_answered_is_in_the_outbox_whenever_the_power_fails(tmp_path: Path) -> None:
    recording = outbox_recording(tmp_path, "FULL")
    assert try_states(recording, check_outbox, tmp_path / "disk", QUICK) == QUICK


@pytest.mark.long
def test_what_was_answered_is_in_the_outbox_in_every_state_of_the_disk(tmp_path: Path) -> None:
    recording = outbox_recording(tmp_path, "FULL")
    assert try_states(recording, check_outbox, tmp_path / "disk", None) > 500


@pytest.mark.long
def test_an_outbox_that_syncs_less_opens_in_every_state_of_the_disk(tmp_path: Path) -> None:
    recording = outbox_recording(tmp_path, "NORMAL")

    def check(directory: Path, said: list[str]) -> None:
        check_outbox(directory, said, lossless=False)

    assert try_states(recording, check, tmp_path / "disk", 3000) > 500


OPENER = """
import os, sys
from pathlib import Path
from patchbay.outbox import Journal
journal = Journal(Path(sys.argv[1]) / "outbox.sqlite")
assert journal.salvaged is not None
os.write(1, b"opened\\n")
journal.close()
"""


def test_a_power_cut_during_a_salvage_loses_nothing_that_could_be_read(tmp_path: Path) -> None:
    directory = tmp_path / "recorded"
    directory.mkdir()
    path = directory / "outbox.sqlite"
    journal = Journal(path)
    topic = "patchbay/tiny/d1/event/said"
    rows = [
        Row(seq, f"k{seq}", topic, "patchbay.tiny.said", "D1", "t", body(seq))
        for seq in range(1, 31)
    ]
    journal.commit(rows, [("n0", b"30")], 0)
    journal.close()
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    recording = record(OPENER, directory)

    def check(place: Path, _said: list[str]) -> None:
        check_outbox(place, ["answered 30"])

    assert try_states(recording, check, tmp_path / "disk", QUICK) == QUICK


SECRETS = """
import os, sys
from pathlib import Path
from patchbay.access.directory import Directory
from patchbay.durable import write_whole
directory = Directory(Path(sys.argv[1]))
for number in range(1, 4):
    directory.write("password", f"secret {number}\\n" * 400)
    write_whole(Path(sys.argv[1]) / "settings", b"port = %d\\n" % number * 400)
    os.write(1, b"written %d\\n" % number)
"""


def test_a_secret_and_a_settings_file_are_the_old_or_the_new_one_whenever_the_power_fails(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "recorded"
    directory.mkdir()
    recording = record(SECRETS, directory)

    def check(place: Path, said: list[str]) -> None:
        written = last(said, "written")
        for name, text in (("password", "secret {}\n"), ("settings", "port = {}\n")):
            whole = {text.format(number) * 400: number for number in range(1, 4)}
            if written:
                assert whole[(place / name).read_text()] >= written
            elif (place / name).exists():
                assert (place / name).read_text() in whole

    assert try_states(recording, check, tmp_path / "disk", None) > 30
    assert Directory(directory).read("password") == "secret 3\n" * 400
