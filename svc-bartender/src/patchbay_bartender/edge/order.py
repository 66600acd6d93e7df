"""Is an order one that the pumps may begin? Pure; the pumps' edge asks.

How old an order is cannot be read off two wall clocks. It carries a time on the scheduler's
monotonic clock, and the edge asks the scheduler what time it is there:

    scheduler   o ordered              . T read
                 \\                    / \\
    edge          run --- asked at t0       confirm(T) ... now

T was read after t0, so ``now`` there is at most ``T + (now - t0)``, and the order at most so old
less o. The way there and back counts as age: who is unsure refuses. An order and its confirmation
must name the same clock; each run of the scheduler's process has another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from patchbay_bartender.messages import Confirm, Run


def complaint(seconds: Mapping[str, float], pumps: int, max_run_s: float) -> str:
    """What is wrong with the times of an order; empty if nothing is."""
    if not seconds:
        return "no pump"
    known = {str(pump) for pump in range(pumps)}
    for pump, wanted in seconds.items():
        if pump not in known:
            return f"no pump {pump[:20]!r}"
        if not (math.isfinite(wanted) and 0 < wanted <= max_run_s):
            return f"pump {pump}: {wanted} s; more than 0 and at most {max_run_s:g}"
    return ""


def age_s(run: Run, confirm: Confirm, asked_at: float, now: float) -> float | None:
    """The most that can have passed since the order, in seconds; None if that cannot be said.

    ``asked_at`` and ``now`` are on the edge's own clock.
    """
    if confirm.clock != run.clock:
        return None
    age = confirm.now + (now - asked_at) - run.ordered_at
    return age if math.isfinite(age) and age >= 0 else None
