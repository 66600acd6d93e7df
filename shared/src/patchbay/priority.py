"""Who goes first when a small machine has more to do than it can.

A device waits for its edge, and goes on or gives up within seconds. Nobody waits for the store or
for most domain services, like that: what they have not done yet is safe in an outbox. So they are
nicer than edges and broker, which keeps answers quick while a backlog is worked off.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

BACKGROUND_NICE: Final = 19
"""A fiftieth of an edge's share where both want the whole machine, all of it while the edge waits.
(Measured: at 10, domain and store took half of two cores from a burst that the edge could have
answered.)"""


def step_back() -> None:
    """Let this process, and what it becomes, run after those that devices wait for."""
    with contextlib.suppress(OSError):  # forbidden by a container: then all are equal
        os.setpriority(os.PRIO_PROCESS, 0, BACKGROUND_NICE)
