"""Are the times of an order such that the pumps may begin it? Pure; the pumps' edge asks."""

from __future__ import annotations

import math
from collections.abc import Mapping


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
