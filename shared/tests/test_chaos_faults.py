"""The faults of a run follow from its seed, and the figures from the tallies."""

from __future__ import annotations

from patchbay.chaos.faults import KINDS, schedule
from patchbay.chaos.load import Tally
from patchbay.cli.chaos import _report

UNITS = ["locker.edge", "locker.domain", "lantern.tlv", "lantern.domain"]


def test_a_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert schedule(7, 600, UNITS) == schedule(7, 600, UNITS)
    assert schedule(7, 600, UNITS) != schedule(8, 600, UNITS)


def test_faults_are_of_every_kind_in_order_and_end_with_the_run() -> None:
    faults = schedule(7, 600, UNITS)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(fault.at + fault.seconds <= 600.5 for fault in faults)
    assert {fault.target for fault in faults if fault.kind == "writes"} <= {
        "locker.domain",
        "lantern.domain",
    }


def test_a_target_has_one_fault_at_a_time() -> None:
    busy_until: dict[str, float] = {}
    for fault in schedule(7, 600, UNITS):
        assert fault.at >= busy_until.get(fault.target, 0.0)
        busy_until[fault.target] = fault.at + fault.seconds


def test_the_report_names_what_is_wrong() -> None:
    wrong = Tally(accepted=12, lost=[f"thing {number}" for number in range(7)], late=["a drink"])
    lines = _report({"locker": Tally(accepted=3, unknown=1), "bartender": wrong})
    assert lines[1].split() == ["locker", "3", "0", "1", "0", "0", "0", "0"]
    assert lines[2].split() == ["bartender", "12", "0", "0", "7", "0", "0", "1"]
    assert "bartender: late: a drink" in lines
    assert "bartender: lost: and 2 more" in lines
    assert not wrong.clean
    assert Tally(accepted=1, refused=2, unknown=3).clean
    assert not Tally(refused=2, unknown=3).clean
