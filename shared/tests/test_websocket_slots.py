"""Who stays connected when there are not enough slots."""

from __future__ import annotations

from patchbay.websocket import ClientSlots, Place


def full(limit: int = 3, **options: float) -> ClientSlots[str]:
    """A server whose slots are taken by clients that have said nothing."""
    slots: ClientSlots[str] = ClientSlots(limit, **options)  # type: ignore[arg-type]
    for number in range(limit):
        assert slots.arrive(f"silent {number}", "", 0.0) == (Place.SLOT, None)
    return slots


def test_a_newcomer_that_says_nothing_takes_nobody_s_slot() -> None:
    slots = full(reserved=2)
    assert slots.arrive("new", "", 1.0) == (Place.RESERVED, None)
    assert [slots.place(f"silent {number}") for number in range(3)] == [Place.SLOT] * 3
    assert len(slots) == 3


def test_a_newcomer_that_identifies_itself_takes_the_slot_of_the_youngest_silent_client() -> None:
    slots = full(reserved=2)
    slots.identify("silent 2")
    slots.arrive("new", "", 1.0)
    assert slots.identify("new") == "silent 1"
    assert slots.place("new") is Place.SLOT
    assert slots.place("silent 1") is Place.NONE
    assert slots.identify("new") is None, "it is one of the others now"


def test_nobody_who_has_identified_himself_gives_way_to_a_newcomer() -> None:
    slots = full(reserved=1)
    for number in range(3):
        slots.identify(f"silent {number}")
    slots.arrive("new", "", 1.0)
    assert slots.identify("new") is None
    assert slots.place("new") is Place.RESERVED
    slots.leave("silent 1")
    assert slots.identify("new") is None
    assert slots.place("new") is Place.SLOT, "there was room by then"


def test_a_reserved_connection_that_stays_silent_gives_way_to_the_next_newcomer() -> None:
    slots = full(reserved=2, reserved_s=2.0)
    slots.arrive("one", "", 10.0)
    slots.arrive("two", "", 11.0)
    assert slots.arrive("early", "", 11.9) == (Place.NONE, None)
    assert slots.arrive("three", "", 12.0) == (Place.RESERVED, "one")
    assert slots.place("one") is Place.NONE


def test_an_address_with_many_connections_does_not_keep_others_from_the_reserved_ones() -> None:
    slots: ClientSlots[str] = ClientSlots(2, reserved=1)
    for name in ("a1", "a2", "a3"):
        slots.arrive(name, "10.0.0.66", 0.0)
    assert slots.place("a3") is Place.RESERVED
    assert slots.arrive("a4", "10.0.0.66", 0.1) == (Place.NONE, None)
    assert slots.arrive("b", "10.0.0.7", 0.1) == (Place.RESERVED, "a3")


def test_an_address_over_its_share_gives_way_its_youngest_silent_connection_first() -> None:
    slots: ClientSlots[str] = ClientSlots(4, share=2)
    for name in ("a1", "a2", "a3"):
        slots.arrive(name, "10.0.0.66", 0.0)
    slots.arrive("b", "10.0.0.7", 0.0)
    slots.identify("a3")
    assert slots.arrive("c", "10.0.0.8", 1.0) == (Place.SLOT, "a2")
    assert slots.arrive("d", "10.0.0.9", 1.0) == (Place.NONE, None), "two are its share"


def test_an_address_does_not_push_itself_out() -> None:
    slots: ClientSlots[str] = ClientSlots(2, share=1)
    slots.arrive("a1", "10.0.0.66", 0.0)
    slots.arrive("a2", "10.0.0.66", 0.0)
    assert slots.arrive("a3", "10.0.0.66", 0.0) == (Place.NONE, None)


def test_addresses_that_stand_for_many_have_no_share() -> None:
    slots = full(share=1)
    assert slots.arrive("new", "10.0.0.7", 0.0) == (Place.NONE, None)


def test_what_has_left_takes_no_room() -> None:
    slots = full(reserved=1)
    slots.arrive("new", "", 0.0)
    for peer in ("silent 0", "new", "unknown"):
        slots.leave(peer)
    assert slots.arrive("next", "", 0.0) == (Place.SLOT, None)
    assert slots._count.total() == 3
