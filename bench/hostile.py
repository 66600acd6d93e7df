"""How long honest clients wait while somebody attacks, and what memory each unit takes then.

    .venv/bin/python bench/hostile.py [--quick] [--only WORDS] [--list]

All units, a real broker and a real store run as in `./patchbay up`, each attack is a process of its
own (tests/hostile_attacks.py), and the honest clients are those of tests/hostile_served.py. Before
each attack the same clients are measured without one: that is the floor. A time is missed if the
longest wait of a kind of client is over two seconds, or somebody was not served at all.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import testbed
from tests.hostile_attacks import ATTACKS, Attack
from tests.hostile_served import Guests, Served
from tests.hostile_system import Attacked, Seen, served_under

WANTED_S: Final = 2.0
PATIENCE_S: Final = 60.0
FLOOR_S: Final = 10.0
QUICK_SHARE: Final = 0.05
QUICK_S: Final = 3.0


async def measured(given: argparse.Namespace, directory: Path) -> bool:
    """Measure each attack on a system of its own."""
    chosen = [one for name, one in ATTACKS.items() if given.only.lower() in name.lower()]
    reached = {}
    for number, attack in enumerate(chosen):
        place = directory / str(number)
        place.mkdir()
        system = Attacked(place)
        try:
            system.start()
            reached[attack.name] = await _measure(attack, system, quick=given.quick)
        finally:
            system.clean_up()
    return testbed.verdict(reached)


async def _measure(attack: Attack, system: Attacked, *, quick: bool) -> bool:
    async with Guests(system.ports, PATIENCE_S) as guests:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(QUICK_S if quick else FLOOR_S, over.set)
        floor = await guests.serve(over)
        share, seconds = (QUICK_SHARE, QUICK_S) if quick else (1.0, 0.0)
        served, seen = await served_under(attack, system, guests, share=share, seconds=seconds)
    return _shown(attack, floor, served, seen)


def _shown(attack: Attack, floor: dict[str, Served], served: dict[str, Served], seen: Seen) -> bool:
    did = ", ".join(f"{count:,} {what}" for what, count in sorted(seen.did.items()))
    print(f"\n## {attack.name}\n\nIt did: {did}.\n")
    print(
        "| served | times | p50 | p99 | longest | floor p50 | p99 | longest | p99, of the floor |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, one in served.items():
        base = floor.get(kind, Served())
        ratio = one.percentile(0.99) / base.percentile(0.99)
        figures = [_s(each.percentile(share)) for each in (one, base) for share in (0.5, 0.99, 1)]
        print(f"| {kind} | {len(one.seconds)} | {' | '.join(figures)} | {ratio:.1f} |")
    print("\n| unit | MiB at most | limit |\n|---|---|---|")
    for name, memory in seen.memory.items():
        print(f"| {name} | {memory.peak:.1f} | {memory.limit:.0f} |")
    wrong = [*seen.wrong]
    for kind, one in served.items():
        wrong += (
            [f"{kind}: {len(one.failures)} failures, {one.failures[0]}"] if one.failures else []
        )
    print()
    for text in wrong:
        print(f"- WRONG: {text}")
    sys.stdout.flush()
    for kind, one in served.items():
        if one.repeated:
            print(f"- {kind}: told of an error and asked again {one.repeated} times")
    slow = [kind for kind, one in served.items() if one.percentile(1) > WANTED_S]
    if slow:
        print(f"- over {WANTED_S:.0f} s: {', '.join(slow)}")
    return not wrong and not slow


def _s(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds * 1000:,.0f} ms"


def main() -> int:
    parser = testbed.arguments(__doc__, "a share of each attack, for some seconds")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--list", action="store_true", help="name the attacks")
    given = parser.parse_args()
    if given.list:
        print("\n".join(ATTACKS))
        return 0
    return testbed.run(measured, given)


if __name__ == "__main__":
    sys.exit(main())
