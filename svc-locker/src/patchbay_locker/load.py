"""Load for a locker server: boards that report as fast as they are answered, and what that took.

    python -m patchbay_locker.load --port 5000 --boards 50 --reports 50000

Every board has one report under way. Its bytes are prepared and only SEND is put in; each answer is
decoded whole, as a board does, and must be to the right report. A generator in Python saturates a
core: run two for more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast

from patchbay_locker.wire import (
    HEADER,
    AnswerDecoder,
    LockerError,
    Request,
    WireError,
    encode_request,
)

RECONNECT_S: Final = 0.1
"""The pause before a board whose connection was closed comes back."""


class LoadError(LockerError):
    """The load could not be put on: the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load took. Latencies are from the write of a report to the end of its answer."""

    reports: int
    """Reports answered."""
    lost: int
    """Reports that the server closed the connection on."""
    seconds: float
    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float
    """Of this process."""


def typical(board: str) -> Request:
    """A full report with 64 locks and three accesses, as in the protocol's description."""
    return Request(
        HEADER,
        board,
        1,
        "1",
        connection=1,
        state=(0,),
        cols=8,
        rows=8,
        act_con=("01011011", "11111111", "10110111", "11111111") * 2,
        box_eng=(2, 5, 8, 23, 24, 25),
        box_to=(33, 34),
        box_acc=(1, 54, 43),
    )


async def load(
    host: str,
    port: int,
    boards: int,
    reports: int,
    *,
    rate: float | None = None,
    prefix: str = "load",
    checks: bool = True,
    deadline_s: float = 600.0,
) -> LoadResult:
    """Have ``boards`` report ``reports`` times together; RESET=1 in the first of each, SEND from 1.

    ``rate``: at most so many reports a second. ``prefix``: of the boards' ids, so that several
    generators are different boards. ``checks``: an answer must be to the right report; a server
    that is only a floor to measure against always says the same. Raises `LoadError` if an answer is
    wrong, if the server is not there at the start, or after ``deadline_s``.
    """
    run = _Run(host, port, reports, boards / rate if rate else 0.0, checks)
    try:
        async with asyncio.timeout(deadline_s):
            return await run.measure([f"{prefix}-{number}" for number in range(boards)])
    except OSError as error:  # TimeoutError, which says nothing, is one too.
        why = str(error) or "the deadline is over"
        raise LoadError(f"{why}: {run.answered} answered") from error


class _Run:
    """What the boards of one load share."""

    def __init__(self, host: str, port: int, reports: int, interval_s: float, checks: bool) -> None:
        self.checks = checks
        self.host = host
        self.port = port
        self.interval_s = interval_s
        self.left = reports
        """Reports that no board has begun."""
        self.outstanding = 0
        self.answered = 0
        self.lost = 0
        self.latencies = array("d")
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def measure(self, ids: Sequence[str]) -> LoadResult:
        boards = [_Board(self, name) for name in ids]
        await asyncio.gather(*(board.connect() for board in boards))
        cpu, start = time.process_time(), time.perf_counter()
        try:
            for board in boards:
                board.say()
            await self.done
        finally:
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            for board in boards:
                board.leave()
        return self._result(seconds, cpu)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def finish_if_done(self) -> None:
        if not self.left and not self.outstanding and not self.done.done():
            self.done.set_result(None)

    def _result(self, seconds: float, cpu_seconds: float) -> LoadResult:
        taken = sorted(self.latencies) or [0.0]
        return LoadResult(
            reports=self.answered,
            lost=self.lost,
            seconds=seconds,
            rate=self.answered / seconds,
            p50_ms=taken[len(taken) // 2] * 1e3,
            p99_ms=taken[len(taken) * 99 // 100] * 1e3,
            max_ms=taken[-1] * 1e3,
            cpu_seconds=cpu_seconds,
        )


class _Board(asyncio.Protocol):
    """One board: one report under way, the next with the answer to it."""

    def __init__(self, run: _Run, board: str) -> None:
        self._run = run
        request = typical(board)
        before, after = encode_request(request).split(b"SEND=1")
        self._before = before + b"SEND="
        self._after = after
        self._reset_after = after.replace(b"RESET=0", b"RESET=1")
        self._id = board
        self._decoder = AnswerDecoder()
        self._send = 0
        self._resets = True
        self._waiting = False
        self._leaving = False
        self._said_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._again: asyncio.Task[None] | asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._run.host, self._run.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def say(self) -> None:
        """Send the next report, if there is one to send and somebody to send it to."""
        run = self._run
        if not run.left or self._transport is None or self._waiting:
            run.finish_if_done()
            return
        run.left -= 1
        run.outstanding += 1
        self._send += 1
        self._waiting = True
        after = self._reset_after if self._resets else self._after
        self._said_at = time.perf_counter()
        self._transport.write(b"%b%d%b" % (self._before, self._send, after))

    def data_received(self, data: bytes) -> None:
        run = self._run
        try:
            answers = self._decoder.feed(data)
        except WireError as error:
            run.fail(error)
            return
        if not answers:
            return
        now = time.perf_counter()
        answer = answers[0]
        right = self._waiting and answer.id == self._id and answer.send_text == str(self._send)
        if len(answers) > 1 or (run.checks and not right):
            run.fail(LoadError(f"a wrong answer to SEND={self._send}: {data[:200]!r}"))
            return
        run.latencies.append(now - self._said_at)
        run.answered += 1
        run.outstanding -= 1
        self._waiting = self._resets = False
        if run.interval_s:
            self._again = asyncio.get_running_loop().call_later(
                self._said_at + run.interval_s - now, self.say
            )
        else:
            self.say()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._decoder = AnswerDecoder()
        if self._again is not None:
            self._again.cancel()
        if self._leaving:
            return
        if self._waiting:
            self._waiting = False
            self._run.lost += 1
            self._run.outstanding -= 1
            self._run.left += 1
        self._again = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        """Connect again until the server is there; the load's deadline ends it."""
        while self._transport is None:
            await asyncio.sleep(RECONNECT_S)
            try:
                await self.connect()
            except OSError:
                continue
        self.say()

    def leave(self) -> None:
        self._leaving = True
        if self._again is not None:
            self._again.cancel()
        if self._transport is not None:
            self._transport.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Put load on a server, print the `LoadResult` as a line of JSON."""
    parser = argparse.ArgumentParser(prog="patchbay_locker.load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--boards", type=int, default=50)
    parser.add_argument("--reports", type=int, default=50_000, help="of all boards together")
    parser.add_argument("--rate", type=float, help="at most so many reports a second")
    parser.add_argument("--prefix", default="load", help="of the boards' ids")
    parser.add_argument("--blind", action="store_true", help="take any answer that ends")
    given = parser.parse_args(arguments)
    loop_factory = None
    if sys.platform == "linux":
        import uvloop

        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            result = runner.run(
                load(
                    given.host,
                    given.port,
                    given.boards,
                    given.reports,
                    rate=given.rate,
                    prefix=given.prefix,
                    checks=not given.blind,
                )
            )
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
