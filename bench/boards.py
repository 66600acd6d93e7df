"""Boards as anybody would write them: the load of bench/locker.py.

    python bench/boards.py --port P --boards 25 --reports 25000 [--rate R] [--prefix g0] [--blind]

Each board is a coroutine on asyncio streams: it encodes a report from its fields, waits for the
answer under a timeout, decodes it whole and takes over its codes. One such generator answers for
some 20,000 reports a second on a core, so two are used. (`patchbay_locker.load` does a fraction of
that work for a report and so measures a floor that no board program comes to; bench/locker.py
shows both.) Prints a `LoadResult` as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, replace
from itertools import count

from patchbay_locker.load import LoadError, LoadResult, typical
from patchbay_locker.wire import Answer, AnswerDecoder, encode_request

ANSWER_TIMEOUT_S = 60.0


class Boards:
    """What the boards of one generator share."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.left = given.reports
        self.latencies: list[float] = []

    async def board(self, name: str) -> None:
        """One board, from its first report to the last that is left."""
        given = self.given
        interval_s = given.boards / given.rate if given.rate else 0.0
        reader, writer = await asyncio.open_connection(given.host, given.port)
        decoder = AnswerDecoder()
        codes: dict[int, str] = {}
        first = typical(name)
        for send in count(1):
            if self.left <= 0:
                break
            self.left -= 1
            request = replace(first, send=send, send_text=str(send), reset=send == 1)
            begin = time.perf_counter()
            writer.write(encode_request(request))
            await writer.drain()
            answers: list[Answer] = []
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not answers:
                    data = await reader.read(65_536)
                    if not data:
                        raise LoadError(f"{name}: the server closed the connection")
                    answers = decoder.feed(data)
            answer = answers[0]
            if not given.blind and (answer.id, answer.send_text) != (name, request.send_text):
                raise LoadError(f"a wrong answer to SEND={send}: {answer}")
            codes = {code.cell: code.code for code in answer.codes}
            self.latencies.append(time.perf_counter() - begin)
            if interval_s:
                await asyncio.sleep(max(0.0, begin + interval_s - time.perf_counter()))
        writer.close()
        if codes:
            raise LoadError(f"{name}: codes that nobody assigned")

    async def all(self) -> LoadResult:
        begin, cpu = time.perf_counter(), time.process_time()
        names = [f"{self.given.prefix}-{number}" for number in range(self.given.boards)]
        await asyncio.gather(*(self.board(name) for name in names))
        seconds = time.perf_counter() - begin
        taken = sorted(self.latencies)
        return LoadResult(
            reports=len(taken),
            lost=0,
            seconds=seconds,
            rate=len(taken) / seconds,
            p50_ms=taken[len(taken) // 2] * 1e3,
            p99_ms=taken[len(taken) * 99 // 100] * 1e3,
            max_ms=taken[-1] * 1e3,
            cpu_seconds=time.process_time() - cpu,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--boards", type=int, default=25)
    parser.add_argument("--reports", type=int, default=25_000, help="of all boards together")
    parser.add_argument("--rate", type=float, help="at most so many reports a second")
    parser.add_argument("--prefix", default="load", help="of the boards' ids")
    parser.add_argument("--blind", action="store_true", help="take any answer that ends")
    print(json.dumps(asdict(asyncio.run(Boards(parser.parse_args()).all()))))


if __name__ == "__main__":
    main()
