"""What holds for a board whatever it reports, whatever is asked of it, and whenever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from patchbay_locker import rules
from patchbay_locker.messages import MAX_MINUTES, Alarm, Assign, Extend, Rejected, Report, Revoke
from patchbay_locker.reports import ALARMS, silence
from patchbay_locker.rules import Access, Board, Effect, Publish, SaveRental

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

cell_lists = st.lists(st.integers(1, 6), max_size=6)
reports = st.builds(
    Report,
    board=st.just("1953"),
    cols=st.just(3),
    rows=st.just(2),
    send=st.integers(0, 1000),
    boot=st.integers(0, 3),
    late=st.booleans(),
    rebooted=st.booleans(),
    reset=st.booleans(),
    maybe_repeat=st.booleans(),
    wifi_state=st.integers(0, 3),
    state=st.lists(st.integers(0, 5), max_size=3),
    act_con=st.lists(st.sampled_from(["111", "101", "1", ""]), max_size=3),
    box_eng=cell_lists,
    box_to=cell_lists,
    box_acc=cell_lists,
)

LONG_AGO = datetime.min.replace(tzinfo=UTC)
moments = st.integers(-100_000, 100_000).map(lambda s: NOW + timedelta(seconds=s))


@given(st.lists(st.tuples(reports, moments), min_size=1, max_size=30))
def test_any_reports_leave_a_board_that_adds_up(series: list[tuple[Report, datetime]]) -> None:
    board: Board | None = None
    facts = 0
    for one, at in series:
        before = [] if board is None else list(board.alarms)
        board, effects = rules.report(board, one, at)
        facts += sum(isinstance(effect, Access) for effect in effects)
        events = [effect.data for effect in effects if isinstance(effect, Publish)]
        raised = [event.alarm for event in events if isinstance(event, Alarm)]
        assert set(raised) == set(board.alarms) - set(before)
        assert set(board.alarms) <= ALARMS.keys()
        assert len(set(board.alarms)) == len(board.alarms)
        assert timedelta(seconds=30) <= silence(board, 0) <= timedelta(hours=6)
    assert board is not None
    assert board.reports == len(series)
    assert board.accesses == facts == sum(len(set(one.box_acc)) for one, _ in series)
    assert board.last_seen == max(at for _, at in series)
    assert (board.rev, board.online) == (1 if board.used else 0, True)


@given(reports, moments)
def test_a_reports_lists_are_never_changed(one: Report, at: datetime) -> None:
    before = structs.asdict(one)
    copies = {name: list(value) for name, value in before.items() if isinstance(value, list)}
    board, _ = rules.report(None, one, at)
    rules.report(board, Report(board="1953", boot=1, send=5), at)
    assert structs.asdict(one) == before | copies


class Lockers(RuleBasedStateMachine):
    """Any commands, reports and passing of time: what must hold after each of them."""

    @initialize(act_con=st.lists(st.text("01", max_size=4), min_size=1, max_size=3))
    def begin(self, act_con: list[str]) -> None:
        self.now = NOW
        self.ids = count()
        self.board = self.first(act_con)
        self.saved: dict[str, SaveRental] = {}
        self.wanted = rules.desired(self.board)

    def first(self, act_con: list[str]) -> Board:
        rows = len(act_con)
        report = Report(board="1953", boot=1, send=1, cols=3, rows=rows, act_con=act_con)
        return rules.report(None, report, NOW)[0]

    def keep(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SaveRental):
                known = self.saved.get(effect.rental.id)
                assert known is None or known.status == "active", "a rental ends once"
                self.saved[effect.rental.id] = effect

    def attempt(self, act: Callable[[], tuple[rules.Answer, list[Effect]]]) -> None:
        before = msgspec.json.encode(self.board)
        try:
            _, effects = act()
        except Rejected:
            assert msgspec.json.encode(self.board) == before
        else:
            self.keep(effects)

    @rule(
        cell=st.one_of(st.just("auto"), st.integers(-1, 10)),
        minutes=st.integers(0, 90),
        code=st.none() | st.text("01", max_size=2),
    )
    def assign(self, cell: int | str, minutes: int, code: str | None) -> None:
        command = msgspec.convert({"cell": cell, "minutes": minutes, "code": code}, Assign)
        self.attempt(
            lambda: rules.assign(
                self.board, command, self.now, lambda: f"id{next(self.ids)}", lambda _: "1", 1
            )
        )

    @rule(cell=st.integers(0, 10))
    def revoke(self, cell: int) -> None:
        self.attempt(lambda: rules.revoke(self.board, Revoke(cell), self.now))

    @rule(cell=st.integers(0, 10), minutes=st.integers(-1, 400_000))
    def extend(self, cell: int, minutes: int) -> None:
        self.attempt(lambda: rules.extend(self.board, Extend(cell, minutes), self.now))

    @rule(act=st.sampled_from([rules.block, rules.unblock, rules.reset]))
    def order(self, act: Callable[[Board], tuple[rules.Answer, list[Effect]]]) -> None:
        self.attempt(lambda: act(self.board))

    @rule(
        late=st.booleans(),
        rebooted=st.booleans(),
        reset=st.booleans(),
        box=st.lists(st.integers(1, 9), max_size=4),
    )
    def report(self, late: bool, rebooted: bool, reset: bool, box: list[int]) -> None:
        report = Report(
            board="1953",
            boot=1,
            send=self.board.send + 1,
            late=late,
            rebooted=rebooted,
            reset=reset,
            box_eng=box,
            box_acc=box,
        )
        self.keep(rules.report(self.board, report, self.now)[1])

    @rule(seconds=st.floats(0, 8000))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def tick(self) -> None:
        self.keep(rules.tick(self.board, self.now, 0, LONG_AGO))
        due = rules.due(self.board, 0, LONG_AGO)
        assert due is None or due > self.now

    @precondition(lambda self: rules.due(self.board, 0, LONG_AGO) is not None)
    @rule()
    def something_happens_when_it_is_due_and_not_before(self) -> None:
        due = rules.due(self.board, 0, LONG_AGO)
        assert due is not None
        before = msgspec.json.encode(self.board)
        assert rules.tick(self.board, due - timedelta(microseconds=1), 0, LONG_AGO) == []
        assert msgspec.json.encode(self.board) == before
        effects = rules.tick(self.board, due, 0, LONG_AGO)
        assert effects
        self.keep(effects)
        self.now = max(self.now, due)

    @invariant()
    def what_is_desired_changes_with_its_revision_only(self) -> None:
        wanted = rules.desired(self.board)
        assert wanted.rev >= self.wanted.rev
        if wanted.rev == self.wanted.rev:
            assert wanted == self.wanted
        else:
            is_used_now = self.board.used and not self.wanted.rev  # that is what revision 1 says
            another = msgspec.structs.replace(wanted, rev=self.wanted.rev)
            assert is_used_now or another != self.wanted
        self.wanted = wanted

    @invariant()
    def rentals_are_one_a_cell_with_a_code_each_and_all_saved(self) -> None:
        rentals = self.board.rentals
        codes = [rental.code for rental in rentals.values()]
        assert len(set(codes)) == len(codes)
        for cell, rental in rentals.items():
            assert cell == str(rental.cell)
            assert rules.has_lock(self.board, rental.cell)
            assert rental.expires_at - self.now <= timedelta(minutes=MAX_MINUTES)
        active = {one.rental.id: one.rental for one in self.saved.values() if not one.ended_at}
        assert active == {rental.id: rental for rental in rentals.values()}

    @invariant()
    def free_and_busy_cells_are_apart(self) -> None:
        seen = rules.state(self.board)
        assert not set(seen.free) & set(seen.busy)


TestLockers = Lockers.TestCase
