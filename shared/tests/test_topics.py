"""The topic grammar, spelled out, and the filters that match it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.topics import MAX_DEVICE, Address, Topics, device_id, matches

TOPICS = Topics()

SPELLED = [
    (TOPICS.event("locker", "1953", "report"), "patchbay/locker/1953/event/report"),
    (TOPICS.command("locker", "1953", "open"), "patchbay/locker/1953/cmd/open"),
    (TOPICS.state("locker", "1953"), "patchbay/locker/1953/state"),
    (TOPICS.desired("locker", "1953"), "patchbay/locker/1953/desired"),
    (TOPICS.status("locker", "1953"), "patchbay/locker/1953/status"),
    (TOPICS.batch("locker", "locker-edge-pi1"), "patchbay/locker/locker-edge-pi1/event/batch"),
    (TOPICS.unit_status("locker-edge-pi1"), "patchbay/status/locker-edge-pi1"),
    (TOPICS.unit_info("locker-edge-pi1"), "patchbay/status/locker-edge-pi1/info"),
    (TOPICS.ack("locker-edge-pi1"), "patchbay/ack/locker-edge-pi1"),
    (TOPICS.reply("cli-1"), "patchbay/reply/cli-1"),
    (TOPICS.fence("locker-domain-pi1"), "patchbay/fence/locker-domain-pi1"),
    (TOPICS.dead("locker"), "patchbay/dead/locker"),
    (TOPICS.everything(), "patchbay/#"),
    (TOPICS.command("locker", "+", "+"), "patchbay/locker/+/cmd/+"),
    (Topics("house/east").state("mesh", "n1"), "house/east/mesh/n1/state"),
]


@pytest.mark.parametrize(("topic", "spelled"), SPELLED)
def test_every_topic_is_spelled_as_the_grammar_says(topic: str, spelled: str) -> None:
    assert topic == spelled


@pytest.mark.parametrize("original", ["1953", "board-7", "a_b", "0", "-", "_"])
def test_an_id_that_is_allowed_stays_as_it_is(original: str) -> None:
    assert device_id(original) == original


def test_an_endless_id_is_cut_and_two_of_them_stay_apart() -> None:
    one, other = device_id("a" * 70_000), device_id("a" * 70_001)
    assert len(one) == len(other) == MAX_DEVICE
    assert one != other
    assert device_id("a" * MAX_DEVICE) == "a" * MAX_DEVICE


def test_an_id_that_is_not_unicode_has_a_device_id() -> None:
    assert device_id("\ud800").startswith("_-")


def test_an_id_of_which_only_the_case_changes_gets_no_digest() -> None:
    assert device_id("Board-A7") == "board-a7"


@pytest.mark.parametrize(
    ("original", "clean"),
    [
        ("board 7", "board_7-2d0099bf"),
        ("Board 7", "board_7-c2e3b8b8"),
        ("a/b", "a_b-c14cddc0"),
        ("a#b", "a_b-8187fc8f"),
        ("AA:BB:CC:DD:EE:FF", "aa_bb_cc_dd_ee_ff-261900fb"),
        ("램프", "__-c2373180"),
        ("lámpa", "l_mpa-96fa350b"),
        ("x\n", "x_-73cb3858"),
        ("", "_-e3b0c442"),
    ],
)
def test_what_is_not_allowed_becomes_an_underscore_and_a_digest_follows(
    original: str, clean: str
) -> None:
    assert device_id(original) == clean


def test_two_ids_that_look_alike_in_a_topic_stay_two() -> None:
    alike = ["a b", "a/b", "a.b", "A b", "a_b", "등 하나", "등 둘둘"]
    assert len({device_id(one) for one in alike}) == len(alike)


@given(st.text())
def test_every_id_is_one_level_of_a_topic_and_says_the_same_again(original: str) -> None:
    clean = device_id(original)
    assert re.fullmatch(r"[a-z0-9_-]+", clean)
    assert device_id(clean) == clean


@pytest.mark.parametrize(
    ("topic", "address"),
    [
        ("patchbay/locker/7/event/report", Address("locker", "7", "event", "report")),
        ("patchbay/locker/7/cmd/open", Address("locker", "7", "cmd", "open")),
        ("patchbay/locker/7/state", Address("locker", "7", "state")),
        ("patchbay/locker/7/desired", Address("locker", "7", "desired")),
        ("patchbay/locker/7/status", Address("locker", "7", "status")),
        ("patchbay/locker/7", None),
        ("patchbay/locker/7/event", None),
        ("patchbay/locker/7/event/report/more", None),
        ("patchbay/locker/7/state/more", None),
        ("patchbay/locker/7/other", None),
        ("patchbay/status/locker-edge-pi1", None),
        ("patchbay/status/locker-edge-pi1/info", None),
        ("patchbay/ack/locker-edge-pi1", None),
        ("patchbay/dead/locker", None),
        ("patchbay", None),
        ("patchbay2/locker/7/state", None),
        ("/patchbay/locker/7/state", None),
        ("", None),
    ],
)
def test_a_devices_topic_is_taken_apart_and_any_other_is_none(
    topic: str, address: Address | None
) -> None:
    assert TOPICS.address(topic) == address


def test_a_topic_below_a_root_of_two_levels_is_taken_apart() -> None:
    topics = Topics("house/east")
    assert topics.address("house/east/mesh/n1/state") == Address("mesh", "n1", "state")
    assert topics.address("house/mesh/n1/state") is None


@pytest.mark.parametrize(
    ("pattern", "topic"),
    [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("+/b", "a/b"),
        ("+/+", "a/b"),
        ("a/+", "a/"),
        ("+", "a"),
        ("#", "a"),
        ("#", "a/b/c"),
        ("a/#", "a/b/c"),
        ("a/#", "a"),
        ("a/+/#", "a/b"),
        ("+/b/#", "a/b/c/d"),
    ],
)
def test_a_filter_matches(pattern: str, topic: str) -> None:
    assert matches(pattern, topic)


@pytest.mark.parametrize(
    ("pattern", "topic"),
    [
        ("a/b", "a"),
        ("a", "a/b"),
        ("a/b", "a/c"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("+", "a/b"),
        ("+/b", "a/c"),
        ("a/+/#", "a"),
        ("b/#", "a/b"),
        ("a/b", "A/b"),
        ("", "a"),
    ],
)
def test_a_filter_does_not_match(pattern: str, topic: str) -> None:
    assert not matches(pattern, topic)


levels = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="+#/\0"), max_size=5),
    min_size=1,
    max_size=6,
)


@given(levels, st.data())
def test_a_topic_matches_itself_and_with_a_plus_for_any_of_its_levels(
    topic: list[str], data: st.DataObject
) -> None:
    whole = "/".join(topic)
    assert matches(whole, whole)
    plus = data.draw(st.sets(st.integers(0, len(topic) - 1)))
    pattern = ["+" if at in plus else level for at, level in enumerate(topic)]
    assert matches("/".join(pattern), whole)
    assert not matches("/".join([*pattern, "+"]), whole)


@given(levels, st.integers(0, 6))
def test_a_topic_matches_with_a_hash_for_any_end_of_it(topic: list[str], cut: int) -> None:
    assert matches("/".join([*topic[:cut], "#"]), "/".join(topic))
