"""How the command line pours: it orders, shows a bar that fills, and says how it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from patchbay.bus import Message
from patchbay.cli.bus import make_bus
from patchbay.cli.client import System, connected, request_on
from patchbay.errors import OutcomeUnknown
from patchbay.messages import Event, decode, encode
from patchbay_bartender.messages import SERVICE, Blend, Refill, Stop

GRACE_S: Final = 30.0
"""So long after its time we wait to hear how it has ended: a killed scheduler comes back."""

TURN_S: Final = 0.1

_event = msgspec.json.Decoder(Event)


class Shown:
    """A bar on the terminal that fills. ``with`` it."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]:>4} s"),
            disable=quiet,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, name: str, done_s: float, total_s: float) -> None:
        """So much of so much is done."""
        left = math.ceil(total_s - done_s)
        if self._task is None:
            self._task = self._progress.add_task(name, total=total_s, left=left)
        self._progress.update(self._task, completed=done_s, left=left)


async def pour(
    system: System, bar: str, name: str, body: Blend | Refill, shown: Shown
) -> dict[str, Any]:
    """Order a blend or refill and wait for its end: the data of its last event, and ``ended``, the
    name of that. Raises Rejected, Unavailable if nobody answers, OutcomeUnknown if it was confirmed
    and nobody says how it ended."""
    ends: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def ended(message: Message) -> None:
        message.ack()
        with contextlib.suppress(msgspec.DecodeError):
            event = decode(_event, message.payload)
            ends.put_nowait(
                {"ended": event.type.rpartition(".")[2], **msgspec.json.decode(event.data)}
            )

    async with make_bus(SERVICE, system.state, system.config) as bus:
        for how in ("finished", "failed"):
            bus.listen(bus.topics.event(SERVICE, bar, how), ended)
        answer = await request_on(bus, SERVICE, bar, name, body, system.timeout_s, actuates=True)
        with shown:
            return await _follow(ends, name, answer["run_id"], answer["seconds"], shown)


async def stop_pumps(system: System, device: str, body: Stop) -> None:
    """Tell the pumps themselves to stop. Raises Unavailable without a broker."""
    async with make_bus(SERVICE, system.state, system.config) as bus:
        await connected(bus, system.timeout_s)
        await bus.publish(bus.topics.command(SERVICE, device, "stop"), encode(body))


async def _follow(
    ends: asyncio.Queue[dict[str, Any]], name: str, run: str, total_s: float, shown: Shown
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (done_s := loop.time() - began) < total_s + GRACE_S:
        shown.show(name, min(done_s, total_s), total_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                end = await ends.get()
                if end["run_id"] == run:
                    if end["ended"] == "finished":
                        shown.show(name, total_s, total_s)
                    return end
    raise OutcomeUnknown(run, "nobody says how it has ended; see `patchbay bartender history`")
