"""The load of bench/lantern.py: many lanterns in a process of their own.

python bench/lanterns.py PORT COUNT

Prints ``ready`` when all are connected, and, for each command that all have got, when the first and
the last had it: seconds on the clock of `time.monotonic`, which all processes share. The present
state, which they get when they connect, may come before ``ready``.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from patchbay.log import get_logger
from patchbay.sockets import allow_connections
from patchbay_lantern.messages import Order
from patchbay_lantern.simulator import Fleet

POLL_S = 0.02


def obeyed(order: Order, first: float, last: float) -> None:
    print(order.value, first, last, flush=True)


async def main(port: int, count: int) -> None:
    async with Fleet("127.0.0.1", port, count, all_obeyed=obeyed) as fleet:
        while fleet.connected < count:  # noqa: ASYNC110  a fleet tells nobody
            await asyncio.sleep(POLL_S)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    allow_connections(int(sys.argv[2]), get_logger("lanterns"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
