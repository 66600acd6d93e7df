"""No step of the wall clock moves a process's time, but the first one that NTP makes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from patchbay.clock import LATENCY_S, RELEASE, Clock, DomainTime, Machine, Moved, clock_of
from patchbay.clock_guard import SETTLED_S, Guard
from patchbay.errors import Unavailable
from patchbay.messages import capture_time, now, rfc3339

TODAY = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
WAIT_S = 600.0
YEARS_S = 54 * 365 * 86_400.0


class Hands:
    """A machine whose clocks the test sets."""

    def __init__(self, wall: float = TODAY, *, synchronized: bool = True) -> None:
        self.wall_s = wall
        self.boot_s = 100.0
        self.id = "a-boot"
        self.is_synchronized = synchronized

    def wall(self) -> float:
        return self.wall_s

    def boot(self) -> float:
        return self.boot_s

    def boot_id(self) -> str:
        return self.id

    def synchronized(self) -> bool:
        return self.is_synchronized

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds

    def steps(self, seconds: float) -> None:
        self.wall_s += seconds

    def reboots(self) -> None:
        self.boot_s = 5.0
        self.id += "+"


def started(hands: Hands, file: Path) -> Guard:
    guard = Guard(file, WAIT_S, Clock(hands))
    guard.start()
    return guard


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clock.json"


# The clock


def test_time_passes_as_the_machine_counts_it() -> None:
    hands = Hands()
    clock = Clock(hands)
    hands.passes(60)
    assert clock.time() == TODAY + 60
    assert clock.now() == datetime.fromtimestamp(TODAY + 60, UTC)


@pytest.mark.parametrize("step_s", [YEARS_S, -YEARS_S, 3600.0, -3600.0, 0.5])
def test_a_step_of_the_wall_clock_moves_nothing_however_long_it_holds(step_s: float) -> None:
    hands = Hands()
    clock = Clock(hands)
    hands.steps(step_s)
    for _ in range(100):
        hands.passes(3600)
    assert clock.time() == TODAY + 360_000


def test_a_process_is_never_older_than_its_program() -> None:
    assert Clock(Hands(0.0)).now() == RELEASE


def test_the_machine_has_a_boot_and_a_time() -> None:
    machine = Machine()
    assert machine.boot() > 0
    assert machine.boot_id() == Machine().boot_id()
    assert isinstance(machine.synchronized(), bool)
    assert abs(machine.wall() - now().timestamp()) < 3600


def test_a_file_may_say_that_the_clock_is_synchronized(file: Path) -> None:
    machine = Machine(str(file))
    assert not machine.synchronized()
    file.touch()
    assert machine.synchronized()


def test_the_clock_of_a_process_may_be_told_where_to_look(file: Path) -> None:
    clock = clock_of(None)
    source = clock.source
    try:
        assert clock_of(str(file)) is clock
        assert not clock.source.synchronized()
    finally:
        clock.source = source


def test_a_capture_time_is_never_in_the_future_nor_before_the_program() -> None:
    moment = datetime(2026, 11, 26, 12, tzinfo=UTC)
    earlier = moment - timedelta(days=3)
    assert capture_time(rfc3339(earlier), moment) == earlier
    assert capture_time("2080-01-01T00:00:00.000Z", moment) == moment
    assert capture_time("1970-01-01T00:10:00.000Z", moment) == moment


# A unit that starts


def test_a_synchronized_clock_is_taken_at_once(file: Path) -> None:
    guard = started(Hands(), file)
    assert (guard.holding, guard.unsure, guard.mark) == (False, False, "")


def test_after_a_boot_with_a_clock_that_is_not_synchronized_deadlines_are_held(
    file: Path,
) -> None:
    hands = Hands(synchronized=False)
    guard = started(hands, file)
    assert guard.holding
    assert guard.held_until == datetime.fromtimestamp(TODAY + WAIT_S, UTC)
    hands.passes(WAIT_S)
    assert not guard.holding
    assert guard.held_until is None


def test_a_restart_in_the_same_boot_neither_holds_longer_nor_anew(file: Path) -> None:
    hands = Hands(synchronized=False)
    started(hands, file)
    hands.passes(WAIT_S - 10)
    assert started(hands, file).holding
    hands.passes(10)
    assert not started(hands, file).holding


async def test_a_restart_while_the_clock_is_wrong_goes_on_with_the_right_time(file: Path) -> None:
    hands = Hands()
    started(hands, file)
    hands.steps(YEARS_S)
    hands.passes(12)
    guard = started(hands, file)
    await guard.look()
    assert guard.clock.time() == TODAY + 12
    hands.steps(-YEARS_S)
    await guard.look()
    hands.passes(10 * WAIT_S)
    await guard.look()
    assert guard.clock.time() == TODAY + 12 + 10 * WAIT_S


async def test_a_clock_that_was_set_while_nobody_ran_counts_if_it_stays(file: Path) -> None:
    hands = Hands()
    started(hands, file)
    hands.steps(3600)
    guard = started(hands, file)
    hands.passes(WAIT_S - 1)
    await guard.look()
    assert guard.clock.time() == TODAY + WAIT_S - 1
    hands.passes(1)
    await guard.look()
    assert guard.clock.time() == TODAY + WAIT_S + 3600


def test_another_boot_begins_with_the_wall_clock(file: Path) -> None:
    hands = Hands()
    started(hands, file)
    hands.steps(86_400)
    hands.reboots()
    assert started(hands, file).clock.time() == TODAY + 86_400


NOTE = '{"boot_id": "a-boot", "offset": %s, "synced": true, "blind": false, "hold_until": 0}'


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'{"boot_id": 1}', b"\xff"]
    + [(NOTE % offset).encode() for offset in ("NaN", "Infinity", "1e300", "0", "-1e12", '"x"')],
)
def test_a_damaged_note_is_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert started(Hands(), file).clock.time() == TODAY


def test_a_note_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    assert not started(Hands(), tmp_path / "nowhere" / "clock.json").holding


# NTP answers


async def test_the_first_synchronization_sets_the_time_after_what_was_stored_is_moved(
    file: Path,
) -> None:
    hands = Hands(0.0, synchronized=False)
    guard = started(hands, file)
    steps: list[timedelta] = []

    async def move(step: timedelta) -> None:
        assert guard.clock.now() == RELEASE + timedelta(minutes=10)  # not set yet
        steps.append(step)

    guard.clock.before_step(move)
    hands.passes(600)
    await guard.look()
    assert not steps
    hands.wall_s, hands.is_synchronized = TODAY, True
    await guard.look()
    assert steps == [
        timedelta(seconds=TODAY)
        - (RELEASE - datetime.fromtimestamp(0, UTC))
        - timedelta(minutes=10)
    ]
    assert guard.clock.time() == TODAY
    assert (guard.unsure, guard.mark) == (False, "")


async def test_the_time_is_not_set_while_what_was_stored_cannot_be_moved(file: Path) -> None:
    hands = Hands(synchronized=False)
    guard = started(hands, file)
    away = True

    async def move(_step: timedelta) -> None:
        if away:
            raise Unavailable("the store is away")

    guard.clock.before_step(move)
    hands.steps(60)
    hands.is_synchronized = True
    with pytest.raises(Unavailable):
        await guard.look()
    assert guard.clock.time() == TODAY
    away = False
    await guard.look()
    assert guard.clock.time() == TODAY + 60


async def test_later_steps_are_not_followed(file: Path) -> None:
    hands = Hands(synchronized=False)
    guard = started(hands, file)
    hands.is_synchronized = True
    await guard.look()
    hands.steps(YEARS_S)
    for _ in range(5):
        hands.passes(WAIT_S)
        await guard.look()
    assert guard.clock.time() == TODAY + 5 * WAIT_S
    assert guard.step_s == YEARS_S


async def test_an_impossible_clock_that_becomes_possible_is_followed_without_a_word_of_the_kernel(
    file: Path,
) -> None:
    hands = Hands(0.0, synchronized=False)
    guard = started(hands, file)
    assert guard.unsure
    await guard.look()
    hands.wall_s = TODAY
    await guard.look()
    assert guard.clock.now() == RELEASE
    hands.passes(SETTLED_S)
    await guard.look()
    assert guard.clock.time() == TODAY + SETTLED_S
    assert not guard.unsure


async def test_ntp_that_came_while_nobody_ran_moves_what_was_stored(file: Path) -> None:
    hands = Hands(0.0, synchronized=False)
    mark = started(hands, file).mark
    hands.passes(300)
    hands.wall_s, hands.is_synchronized = TODAY, True
    guard = started(hands, file)
    assert guard.moves(mark)
    assert guard.clock.now() == RELEASE + timedelta(minutes=5)
    await guard.look()
    assert guard.clock.time() == TODAY
    assert not guard.moves("")


def test_a_blind_clock_goes_on_from_the_newest_time_in_the_store(file: Path) -> None:
    guard = started(Hands(0.0, synchronized=False), file)
    newest = datetime.fromtimestamp(TODAY, UTC)
    guard.not_before(newest)
    assert guard.clock.now() == newest
    guard.not_before(datetime(2080, 1, 1, tzinfo=UTC))
    assert guard.clock.now() == newest


async def test_how_long_ago_something_was_does_not_change_when_the_clock_is_set() -> None:
    hands = Hands(0.0)
    clock = Clock(hands)
    before = clock.now() - timedelta(seconds=1)
    moved = Moved(clock)
    noted = clock.now()
    hands.passes(60)
    hands.wall_s = TODAY
    await clock.follow_wall()
    assert clock.now() - moved(noted) == timedelta(seconds=60)
    assert moved(clock.now()) == clock.now()
    assert moved(before) == before


# What an edge knows of the domain's time


def test_an_edge_reads_its_own_clock_until_it_is_told() -> None:
    hands = Hands()
    time = DomainTime(None, Clock(hands))
    assert (time.known, time.time()) == (False, TODAY)
    time.learn(TODAY + 7200)
    hands.passes(60)
    assert (time.known, time.time()) == (True, TODAY + 7260)


async def test_an_edge_that_was_never_told_follows_its_own_clock_when_ntp_sets_it() -> None:
    hands = Hands(0.0)
    clock = Clock(hands)
    time = DomainTime(None, clock)
    hands.wall_s = TODAY
    await clock.follow_wall()
    assert time.time() == TODAY


def test_of_messages_that_nearly_agree_the_quickest_is_right() -> None:
    hands = Hands()
    time = DomainTime(None, Clock(hands))
    time.learn(TODAY)
    hands.passes(3)
    time.learn(TODAY)  # it was on its way for three seconds
    assert time.time() == pytest.approx(TODAY + 3, abs=0.01)
    time.learn(TODAY + 3 + LATENCY_S)
    assert time.time() == TODAY + 3 + LATENCY_S


@pytest.mark.parametrize("step_s", [YEARS_S, -YEARS_S])
def test_an_edge_goes_on_with_the_last_offset_whatever_its_own_clock_does(step_s: float) -> None:
    hands = Hands()
    note = DomainTime(None, Clock(hands)).learn(TODAY + 7200)
    assert note is not None
    hands.steps(step_s)
    hands.passes(60)
    time = DomainTime(note, Clock(hands))
    assert (time.known, time.time()) == (True, TODAY + 7260)


def test_after_a_reboot_an_edge_moves_its_own_clock_as_before() -> None:
    hands = Hands()
    note = DomainTime(None, Clock(hands)).learn(TODAY + 7200)
    hands.passes(60)
    hands.reboots()
    time = DomainTime(note, Clock(hands))
    assert (time.known, time.time()) == (False, TODAY + 7260)


def test_an_edge_notes_only_what_has_changed() -> None:
    hands = Hands()
    time = DomainTime(None, Clock(hands))
    note = time.learn(TODAY + 1)
    assert note is not None
    assert json.loads(note)["boot_id"] == "a-boot"
    hands.passes(60)
    assert time.learn(TODAY + 61) is None
    assert time.learn(TODAY + 600) is not None


@pytest.mark.parametrize(
    "note",
    [b"", b"{}", b"[]", b'{"offset": 1, "ahead_s": 1}']
    + [
        f'{{"boot_id": "a-boot", "offset": {offset}, "ahead_s": {ahead_s}}}'.encode()
        for offset, ahead_s in [('"x"', 1), ("NaN", 1), ("1e300", 1), ("-1", 1), (1, "Infinity")]
    ],
)
def test_a_damaged_note_of_the_domain_s_time_is_none(note: bytes) -> None:
    assert not DomainTime(note, Clock(Hands())).known
