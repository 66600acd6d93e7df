"""After an error nothing is poured: whichever process is frozen, and whichever link stands still.

The quick round has scaled-down deadlines and short stalls; the long one those that are shipped, and
each fault for 3, 8 and 30 s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from patchbay.testing import until
from tests.late_pours import BROKER, OPERATOR, STORE, UNITS, OrderedBar

QUICK: Final = {
    "BARTENDER__ANSWER_S": 0.6,
    "BARTENDER__START_DEADLINE_S": 0.4,
    "BARTENDER__LOST_AFTER_S": 1,
    "STORE__TIMEOUT_S": 2,
}
QUICK_STALL_S: Final = 1.2
QUICK_CALM_S: Final = 0.8
CALM_S: Final = 12.0
BEFORE_S: Final = 0.5

GUI, DOMAIN, PUMPS = UNITS

Fault = Callable[[OrderedBar], AbstractContextManager[None]]

FROZEN: Final[dict[str, Fault]] = {
    f"frozen {name}": lambda bar, name=name: bar.frozen(name)  # type: ignore[misc]
    for name in (GUI, DOMAIN, PUMPS, BROKER, STORE)
}
STALLED: Final[dict[str, Fault]] = {
    f"stalled {' and '.join(names)} {way}": lambda bar, names=names, way=way: (  # type: ignore[misc]
        bar.stalled(names, way)
    )
    for names in ((GUI, OPERATOR), (DOMAIN,), (PUMPS,), (STORE,))
    for way in ("both", "up", "down")
}


async def hold(bar: OrderedBar, name: str, fault: Fault, stall_s: float, calm_s: float) -> None:
    """The fault under load, for so long, and then a calm in which what is late would show."""
    first, stop = len(bar.orders), asyncio.Event()
    loading = asyncio.create_task(bar.load(stop))
    await asyncio.sleep(BEFORE_S)
    with fault(bar):
        await asyncio.sleep(stall_s)
    await asyncio.sleep(BEFORE_S)
    stop.set()
    await loading
    await asyncio.sleep(calm_s)
    print(name, Counter(one.told for one in bar.orders[first:]))
    assert bar.late() == [], name


async def test_nothing_is_poured_after_an_error_whoever_stands_still(tmp_path: Path) -> None:
    async with OrderedBar(tmp_path, **QUICK) as bar:
        bar.patience_s = bar.gui_patience_s = 0.8
        for name, fault in {**FROZEN, **STALLED}.items():
            await hold(bar, name, fault, QUICK_STALL_S, QUICK_CALM_S)
        told = Counter(one.told for one in bar.orders)
        assert told["accepted"]
        assert told["error"]
        await until(bar.is_open)


@pytest.mark.long
@pytest.mark.parametrize("stall_s", [3.0, 8.0, 30.0])
@pytest.mark.parametrize("name", [*FROZEN, *STALLED])
async def test_nothing_is_poured_after_an_error_for_as_long_as_one_can_wait(
    tmp_path: Path, name: str, stall_s: float
) -> None:
    async with OrderedBar(tmp_path) as bar:
        for _ in range(3):  # another phase each time
            await hold(bar, name, {**FROZEN, **STALLED}[name], stall_s, CALM_S)
        await until(bar.is_open)
