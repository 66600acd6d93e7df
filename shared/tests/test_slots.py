"""Who has a connection when there are not enough for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchbay.net.slots import Slots, Verdict


def a_full_house(count: int, **options: int | bool) -> Slots[str]:
    slots: Slots[str] = Slots(count, max_waiting=1, **options)  # type: ignore[arg-type]
    for number in range(count):
        assert slots.arrive(f"p{number}", "10.0.0.1") == (Verdict.ADMIT, None)
    return slots


def test_the_oldest_that_has_sent_nothing_valid_makes_room() -> None:
    slots = a_full_house(3)
    slots.identify("p0")
    assert slots.arrive("new", "") == (Verdict.ADMIT, "p1")
    assert slots.arrive("newer", "") == (Verdict.ADMIT, "p2")
    assert len(slots) == 3


def test_who_only_listens_is_a_device_from_the_start() -> None:
    assert a_full_house(3, speakers=False).arrive("new", "") == (Verdict.WAIT, None)


def test_devices_are_not_closed_for_a_newcomer_which_waits_and_too_many_are_refused() -> None:
    slots = a_full_house(2)
    for peer in ("p0", "p1"):
        slots.identify(peer)
    assert slots.arrive("new", "") == (Verdict.WAIT, None)
    assert slots.arrive("newer", "") == (Verdict.REFUSE, None)
    assert slots.next() is None
    slots.leave("p0")
    assert slots.next() == "new"
    assert slots.next() is None
    assert slots.arrive("newest", "") == (Verdict.ADMIT, "new")  # it has sent nothing yet


def test_an_address_with_more_than_its_share_gives_way_longest_silent_first() -> None:
    slots = a_full_house(3, share=2)
    for peer in ("p2", "p0", "p1"):
        slots.identify(peer)
    assert slots.arrive("new", "10.0.0.2") == (Verdict.ADMIT, "p2")
    slots.identify("new")
    assert slots.arrive("newer", "10.0.0.2") == (Verdict.WAIT, None)  # two of one, one of the other


def test_addresses_that_stand_for_many_have_no_share() -> None:
    slots: Slots[str] = Slots(1, share=0)
    slots.arrive("a", "")
    slots.identify("a")
    assert slots.arrive("b", "") == (Verdict.WAIT, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "leave", "identify", "next"]), st.integers(0, 12)),
        max_size=80,
    )
)
def test_a_device_never_leaves_for_one_that_has_not_identified(
    steps: list[tuple[str, int]],
) -> None:
    slots: Slots[int] = Slots(3, max_waiting=2)
    devices: set[int] = set()
    here: set[int] = set()
    for what, peer in steps:
        if what == "arrive" and peer not in here:
            verdict, victim = slots.arrive(peer, "10.0.0.1")
            assert victim not in devices
            here.discard(victim)  # type: ignore[arg-type]
            if verdict is not Verdict.REFUSE:
                here.add(peer)
        elif what == "leave":
            slots.leave(peer)
            here.discard(peer)
            devices.discard(peer)
        elif what == "identify" and peer in here and not slots.is_waiting(peer):
            slots.identify(peer)
            devices.add(peer)
        elif what == "next":
            slots.next()
        assert len(slots) <= 3
        assert slots.waiting <= 2
        assert len(slots) + slots.waiting == len(here)
