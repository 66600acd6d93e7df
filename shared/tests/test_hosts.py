"""The names that a server answers to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.hosts import ANY, NAME_PATTERN, Hosts

OURS = Hosts(["lights.example", "Studio.Example"], machine="Pi1.lan.example")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9000",
        "192.0.2.7:80",
        "127.1",
        "[::1]",
        "[::1]:9000",
        "[FE80::1]:9000",
        "[::ffff:192.0.2.7]",
        "localhost",
        "LocalHost:9000",
        "localhost.:9000",
        "lantern-api:9000",
        "pi1",
        "PI1.local:8888",
        "pi1.lan.example",
        "pi1.lan.example.",
        "lights.example",
        "LIGHTS.EXAMPLE:443",
        "studio.example",
        "",
    ],
)
def test_addresses_and_names_of_ours_are_known(host: str) -> None:
    assert OURS.know([host])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9000",
        "EVIL.EXAMPLE.",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "pi1.local.evil.example",
        "other.local",
        "sub.lights.example",
        "lights.example.evil.example",
        "[evil.example]",
        "[::1].evil.example",
        "[::1]evil.example:9000",
        "x:9000.evil.example",
        "evil.example:",
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not OURS.know([host])


def test_who_says_no_name_is_no_browser_and_of_several_all_must_be_known() -> None:
    assert OURS.know([])
    assert OURS.know(["localhost", "pi1"])
    assert not OURS.know(["localhost", "evil.example"])


def test_any_name_can_be_allowed() -> None:
    assert Hosts([ANY], machine="pi1").know(["evil.example"])


@given(st.text(alphabet="abc019.-:[]"))
def test_whatever_is_said_leads_to_yes_or_no_and_never_to_a_foreign_yes(said: str) -> None:
    assert OURS.know([said]) in (True, False)
    assert not OURS.know([f"{said}.evil.example"])


def test_a_setting_takes_names_and_nothing_else() -> None:
    for name in ("*", "lights.example", "Pi1", "xn--bcher-kva.example", "a_b"):
        assert re.search(NAME_PATTERN, name)
    for name in ("", "lights.example:80", "http://lights.example", "*.example", ".example", "a b"):
        assert not re.search(NAME_PATTERN, name)
