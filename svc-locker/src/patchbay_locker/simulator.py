"""Locker boards that speak real bytes: one `Board` for tests, a `Fleet` of them for the demo.

A board keeps to the protocol where the protocol speaks (README of tcp_async_server): it counts
SEND from its start, says RESET=1 until it is answered, takes over the codes of the answer to the
report it has just sent, whole, drops every other answer, and after no answer asks again with
SEND + 1. What boards may do beyond that, and networks do to them, is `Behaviour`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, Literal

from patchbay_locker.settings import LockerSettings
from patchbay_locker.wire import (
    HEADER,
    Answer,
    AnswerDecoder,
    Code,
    LockerError,
    Request,
    encode_request,
)

if TYPE_CHECKING:
    from patchbay.settings import Config

READ_SIZE: Final = 65_536
BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Pauses between tries, the last one for ever: shorter than a real board's, for quick tests."""


class Unanswered(LockerError):
    """The server was not there, closed the connection, or said nothing for too long."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a board does that the protocol leaves open, or that happens to it."""

    answer_timeout_s: float = 5.0
    """How long it waits for an answer before it asks again."""
    keeps_connection: bool = True
    """One connection for all reports, or a new one for each."""
    loses_answer: float = 0.0
    """The probability that it closes the connection before it has read an answer."""
    chunk: int = READ_SIZE
    """Bytes of one write: 1 sends byte by byte."""
    repeat: Literal["next", "same"] = "next"
    """After no answer: the next SEND (the protocol's way), or the very same bytes."""


@dataclass(slots=True)
class Board:
    """One board. The counts are for tests to compare with what the server says."""

    id: str
    port: int
    host: str = "127.0.0.1"
    cols: int = 8
    rows: int = 8
    act_con: tuple[str, ...] = ("11111111",) * 8
    behaviour: Behaviour = Behaviour()
    now: Callable[[], float] = time.monotonic
    """Seconds; what the minutes of codes are measured by."""
    chance: random.Random = field(default_factory=random.Random)

    codes: dict[int, Code] = field(default_factory=dict, init=False)
    """Cell -> code of the last answer that was taken over, run out or not. Outlives a reboot."""
    blocked: bool = field(default=False, init=False)
    send: int = field(default=0, init=False)
    """The SEND of the last report."""
    boot: int = field(default=0, init=False)
    """How often it has rebooted."""

    reports_sent: int = field(default=0, init=False)
    reports_answered: int = field(default=0, init=False)
    answers_dropped: int = field(default=0, init=False)
    """Answers to another SEND than that of its last report."""
    reboots_ordered: int = field(default=0, init=False)
    """Reboots that the server asked for."""
    empty_after_codes: int = field(default=0, init=False)
    """Empty lists taken over while a code had not run out: 0 unless all of them were revoked."""
    accesses: list[tuple[int, int, int]] = field(default_factory=list, init=False)
    """(boot, send, cell) of each access in an answered report: the server must know them all."""
    accesses_sent: set[tuple[int, int, int]] = field(default_factory=set, init=False)
    """(boot, send, cell) of each access in any report: the server may know no other."""

    _resets: bool = field(default=True, init=False)
    _accessed: tuple[int, ...] = field(default=(), init=False)
    _expires: dict[int, float] = field(default_factory=dict, init=False)
    _connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(
        default=None, init=False
    )
    _answers: AnswerDecoder = field(default_factory=AnswerDecoder, init=False)

    async def report(self, *, accessed: Iterable[int] = (), deadline_s: float = 30.0) -> Answer:
        """Report until it is answered, and do what the answer says.

        ``accessed``: cells that were opened since. They stay in BOX_ACC until they are answered.
        Raises `Unanswered` after ``deadline_s``.
        """
        self._accessed = tuple(dict.fromkeys((*self._accessed, *accessed)))
        try:
            async with asyncio.timeout(deadline_s):
                return await self._until_answered()
        except TimeoutError:
            raise Unanswered(f"{self.id}: no answer up to SEND={self.send}") from None

    async def exchange(self, request: Request) -> Answer:
        """One try: send one report, take in its answer. Raises `Unanswered`."""
        [answer] = await self._exchange([request])
        return answer

    async def pipeline(self, reports: int) -> list[Answer]:
        """Send so many reports in one go, then take in their answers. Raises `Unanswered`.

        An answer that orders a reboot is the last one taken in.
        """
        return await self._exchange([self.next_request() for _ in range(reports)])

    def next_request(self) -> Request:
        """The next report, counted as sent by whoever sends it."""
        self.send += 1
        now = self.now()
        return Request(
            HEADER,
            self.id,
            self.send,
            str(self.send),
            connection=1,
            reset=self._resets,
            state=(3,) if self.blocked else (0,),
            cols=self.cols,
            rows=self.rows,
            act_con=self.act_con,
            box_eng=tuple(cell for cell, end in self._expires.items() if end > now),
            box_to=tuple(cell for cell, end in self._expires.items() if end <= now),
            box_acc=self._accessed,
        )

    def open_cells(self) -> list[int]:
        """The cells that a person who knows the code can open now."""
        now = self.now()
        return [] if self.blocked else [c for c, end in self._expires.items() if end > now]

    def reboot(self) -> None:
        """Lose the connection and count from 1 again. Codes and unsent accesses are kept."""
        self.boot += 1
        self.send = 0
        self._resets = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection, if there is one, without waiting."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _until_answered(self) -> Answer:
        pauses = chain(BACKOFF_S, repeat(BACKOFF_S[-1]))
        boot, request = self.boot, self.next_request()
        while True:
            try:
                return await self.exchange(request)
            except Unanswered:
                await asyncio.sleep(next(pauses) * self.chance.uniform(0.5, 1))
            if self.behaviour.repeat == "next" or self.boot != boot:
                boot, request = self.boot, self.next_request()

    async def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        try:
            async with asyncio.timeout(self.behaviour.answer_timeout_s):
                answers = await self._ask(requests)
        except (OSError, TimeoutError) as error:
            self.disconnect()
            raise Unanswered(f"{self.id}: {str(error) or 'no answer in time'}") from None
        except BaseException:
            self.disconnect()
            raise
        if not self.behaviour.keeps_connection:
            self.disconnect()
        return answers

    async def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        boot = self.boot
        reader, writer = await self._connected()
        for request in requests:
            self.reports_sent += 1
            self.accesses_sent.update((boot, request.send, cell) for cell in request.box_acc)
        await self._write(writer, b"".join(map(encode_request, requests)))
        if self.chance.random() < self.behaviour.loses_answer:
            raise Unanswered(f"{self.id}: closed before reading, as told")
        waiting = {request.send_text: request for request in requests}
        answers: list[Answer] = []
        while waiting and self.boot == boot:
            data = await reader.read(READ_SIZE)
            if not data:
                raise Unanswered(f"{self.id}: the server closed the connection")
            for answer in self._answers.feed(data):
                mine = answer.id == self.id and self.boot == boot
                if mine and (asked := waiting.pop(answer.send_text, None)):
                    self._take_over(asked, answer)
                    answers.append(answer)
                else:
                    self.answers_dropped += 1
        return answers

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is None:
            self._connection = await asyncio.open_connection(self.host, self.port)
            self._answers = AnswerDecoder()
        return self._connection

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for start in range(0, len(data), self.behaviour.chunk):
            writer.write(data[start : start + self.behaviour.chunk])
            await writer.drain()
            # Lets the other side run, so that it sees the pieces and not their sum.
            await asyncio.sleep(0)

    def _take_over(self, request: Request, answer: Answer) -> None:
        self.reports_answered += 1
        self.accesses += [(self.boot, request.send, cell) for cell in request.box_acc]
        self._accessed = tuple(cell for cell in self._accessed if cell not in request.box_acc)
        self._resets = False
        now = self.now()
        if not answer.codes and any(end > now for end in self._expires.values()):
            self.empty_after_codes += 1
        self.codes = {code.cell: code for code in answer.codes}
        self._expires = {code.cell: now + code.minutes * 60 for code in answer.codes}
        self.blocked = answer.blocked
        if answer.reset:
            self.reboots_ordered += 1
            self.reboot()


class Fleet:
    """Many boards at once, and the people who come and type codes on them."""

    def __init__(self, boards: Sequence[Board], *, interval_s: float, typing: float = 0.3) -> None:
        self.boards = boards
        self._interval_s = interval_s
        self._typing = typing

    async def run(self, stop: asyncio.Event) -> None:
        """Every board reports each ``interval_s`` until ``stop``.

        Before a report, with probability ``typing``, somebody has opened one of its cells.
        """
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(self._live(board)) for board in self.boards]
            await stop.wait()
            for life in lives:
                life.cancel()
        for board in self.boards:
            board.disconnect()

    async def _live(self, board: Board) -> None:
        await asyncio.sleep(board.chance.random() * self._interval_s)
        while True:
            cells = board.open_cells() if board.chance.random() < self._typing else []
            accessed = [board.chance.choice(cells)] if cells else []
            try:
                await board.report(accessed=accessed)
            except Unanswered:
                continue  # It has tried for long, and goes on trying.
            await asyncio.sleep(self._interval_s * board.chance.uniform(0.9, 1.1))


async def run(config: Config, stop: asyncio.Event) -> None:
    """The boards of ``up --demo``: they report to the locker's port."""
    settings = config.table("locker", LockerSettings)
    boards = [
        Board(f"demo-{number}", config.port(settings.port), config.runtime.demo_host)
        for number in range(1, settings.demo_boards + 1)
    ]
    await Fleet(boards, interval_s=settings.demo_interval_s).run(stop)
