"""A colour combinator's server: the program that the seed left unfinished.

It takes one job at a time, mixes it, and answers on the connection that brought it. Mixing is
waiting, or asking whoever is at a serial port:

    to the port      696969\\n
    from the port    done\\n or error\\n
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Literal, Self

import structlog

from patchbay.sockets import notice_power_cuts
from patchbay_allocator.wire.combinator import Answer, Mix, MixDecoder, Refused, encode_answer
from patchbay_allocator.wire.json_objects import WireError

Outcome = Literal["done", "error"]
Mixing = Callable[[Mix], Awaitable[Outcome]]

SERIAL_BAUD = 9600
SERIAL_TIMEOUT_S = 120.0
"""A machine that has said nothing for so long has failed."""

READ_SIZE = 65_536


def waits(seconds: float, fail_rate: float, chance: random.Random) -> Mixing:
    """Mixing that takes so long and fails so often (0 to 1)."""

    async def mix(_job: Mix) -> Outcome:
        await asyncio.sleep(seconds)
        return "error" if chance.random() < fail_rate else "done"

    return mix


def serial_port(url: str) -> Mixing:
    """Mixing by whoever is at this port (a device or pyserial URL). A fault there is an error."""
    import serial

    def ask(job: Mix) -> Outcome:
        with serial.serial_for_url(url, baudrate=SERIAL_BAUD, timeout=SERIAL_TIMEOUT_S) as port:
            port.reset_input_buffer()
            port.write(f"{job.code}\n".encode())
            said = port.readline().decode("ascii", "replace").strip()
            return "done" if said == "done" else "error"

    async def mix(job: Mix) -> Outcome:
        try:
            return await asyncio.to_thread(ask, job)
        except (serial.SerialException, OSError) as error:
            structlog.get_logger("combinator").error("serial port", url=url, error=str(error))
            return "error"

    return mix


class Mixer:
    """Listens, mixes, answers. ``async with``, or `start` and `stop`.

    The counts are for tests to compare with what the server says.
    """

    def __init__(self, device: int, mixing: Mixing, *, keeps_answers: bool = False) -> None:
        self.device = device
        self.mixed: list[str] = []
        """The ids of jobs, each time one was mixed."""
        self.most_at_once = 0
        """Jobs that it had in hand at once: more than one is the server's mistake."""
        self._mixing = mixing
        self._keeps_answers = keeps_answers
        self._kept: list[Answer] = []
        self._in_hand = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("combinator").bind(device=device)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def stop(self) -> None:
        """Close everything, and end what is being mixed."""
        if self._server is not None:
            self._server.close()
        self._keeps_answers = False
        self.hang_up()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hang_up(self) -> None:
        """Lose all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        notice_power_cuts(writer.get_extra_info("socket"))
        decoder = MixDecoder()
        jobs: asyncio.Queue[Mix] = asyncio.Queue()
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        kept, self._kept = self._kept, []
        for answer in kept:
            writer.write(encode_answer(answer))
        worker = asyncio.create_task(self._work(jobs, writer))
        self._tasks.add(worker)
        worker.add_done_callback(self._tasks.discard)
        try:
            while data := await reader.read(READ_SIZE):
                for frame in decoder.feed(data):
                    if isinstance(frame, Refused):
                        self._log.warning("no job", reason=frame.reason)
                        continue
                    self._in_hand += 1
                    self.most_at_once = max(self.most_at_once, self._in_hand)
                    jobs.put_nowait(frame)
        except (WireError, OSError) as error:
            self._log.warning("connection ends", why=str(error))
        finally:
            self._writers.discard(writer)
            writer.close()
            while not jobs.empty():  # what was not begun is nobody's any more
                jobs.get_nowait()
                self._in_hand -= 1
            if self._keeps_answers:
                jobs.put_nowait(_END)
            else:
                worker.cancel()

    async def _work(self, jobs: asyncio.Queue[Mix], writer: asyncio.StreamWriter) -> None:
        while (job := await jobs.get()) is not _END:
            try:
                outcome = await self._mixing(job)
            finally:
                self._in_hand -= 1
            if outcome == "done":
                self.mixed.append(job.id)
            answer = Answer(job.id, outcome, self.device)
            if writer in self._writers and not writer.is_closing():
                writer.write(encode_answer(answer))
            elif self._keeps_answers:
                self._answer_late(answer)

    def _answer_late(self, answer: Answer) -> None:
        """The connection is gone: the next one, which may be there already, gets the answer."""
        for writer in self._writers:
            writer.write(encode_answer(answer))
            return
        self._kept.append(answer)


_END = Mix("", "")
"""What a worker stops at."""
