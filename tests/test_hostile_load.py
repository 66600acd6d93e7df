"""Honest clients of the whole system are served while somebody attacks it, each attack by itself.

What attackers do is in `tests.hostile_attacks`, who is served in `tests.hostile_served`, and what
must not be seen of the system in `tests.hostile_system`. How long clients wait is not tested here:
`bench/hostile.py` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile_attacks import ATTACKS
from tests.hostile_served import Guests
from tests.hostile_system import HOUR_S, Attacked, served_under

QUICK = ("5 MB of {}", "64 KiB byte by byte")
QUICK_SHARE = 0.1
QUICK_S = 1.0
QUICK_PACE = 5.0

LONGEST_LOGS = ("1 MB of {}", "36,000 times garbage at locker", "a flood of bad events")
"""Attacks of which each piece is worth a line of the log."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One system for all short attacks."""
    yield from _running(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Attacked]:
    """A system of this test's own."""
    yield from _running(tmp_path)


def _running(directory: Path) -> Iterator[Attacked]:
    system = Attacked(directory)
    try:
        system.start()
        yield system
    finally:
        system.clean_up()


@pytest.mark.parametrize("name", QUICK)
async def test_honest_clients_are_served_during_a_short_attack(shared: Attacked, name: str) -> None:
    async with Guests(shared.ports, pace=QUICK_PACE) as guests:
        served, seen = await served_under(
            ATTACKS[name], shared, guests, share=QUICK_SHARE, seconds=QUICK_S
        )
    assert {kind: one.failures for kind, one in served.items() if one.failures} == {}
    assert seen.wrong == []


@pytest.mark.long
@pytest.mark.parametrize("name", ATTACKS)
async def test_honest_clients_are_served_during_an_attack(system: Attacked, name: str) -> None:
    async with Guests(system.ports) as guests:
        served, seen = await served_under(ATTACKS[name], system, guests)
    assert {kind: one.failures for kind, one in served.items() if one.failures} == {}
    assert seen.wrong == []


@pytest.mark.long
async def test_after_an_hour_of_attacks_each_log_still_holds_the_hour_before(
    system: Attacked,
) -> None:
    """The hour is scaled, and so are the logs."""
    wrong = []
    async with Guests(system.ports) as guests:
        for name in LONGEST_LOGS:
            _, seen = await served_under(ATTACKS[name], system, guests, seconds=HOUR_S)
            wrong += [text for text in seen.wrong if "log" in text]
    assert wrong == []
