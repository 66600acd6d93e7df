"""The settings of the service, and what follows from them."""

from __future__ import annotations

import asyncio

import pytest

from patchbay.errors import SettingsError
from patchbay.runtime import Unit
from patchbay.services import discover
from patchbay.settings import Config
from patchbay_allocator import SERVICE
from patchbay_allocator.settings import combinators


def read(**environ: str) -> Config:
    named = {f"PATCHBAY_{key}": value for key, value in environ.items()}
    return Config.read(None, named, discover())


def test_combinators_are_numbered_as_they_are_listed() -> None:
    listed = '["mixer-1:5000", "10.0.0.2:5001", "[fe80::1]:5002"]'
    assert combinators(read(ALLOCATOR__COMBINATORS=listed)) == {
        1: ("mixer-1", 5000),
        2: ("10.0.0.2", 5001),
        3: ("fe80::1", 5002),
    }


def test_without_a_list_there_are_those_of_the_demo_or_none() -> None:
    assert combinators(read()) == {}
    demo = read(RUNTIME__DEMO="true", RUNTIME__PORT_OFFSET="10")
    assert combinators(demo) == {1: ("127.0.0.1", 8383), 2: ("127.0.0.1", 8384)}


@pytest.mark.parametrize("wrong", ["mixer", "mixer:", ":5000", "a b:5000", "fe80::1:5000"])
def test_what_is_no_address_is_refused_by_its_name(wrong: str) -> None:
    with pytest.raises(SettingsError, match="PATCHBAY_ALLOCATOR__COMBINATORS"):
        read(ALLOCATOR__COMBINATORS=f'["{wrong}"]')


@pytest.mark.parametrize(
    ("role", "group", "durable"),
    [("domain", "", True), ("domain", "g", False), ("intake", "", False)],
)
async def test_a_replica_leaves_no_session_behind_that_goes_on_drawing(
    role: str, group: str, durable: bool
) -> None:
    config = read(ALLOCATOR__SHARE_GROUP=group)
    unit = Unit(SERVICE, role, config, f"allocator-{role}-test", asyncio.Event())
    assert unit.bus.durable is durable
