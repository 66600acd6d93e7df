"""The load generator against small servers of this file."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from patchbay.testing import PATIENCE_S
from patchbay_locker.load import LoadError, load, main, typical
from patchbay_locker.wire import Answer, Decoder, Request, encode

Reply = Callable[[Request], bytes | None]


def answer(request: Request) -> bytes:
    return encode(Answer(request.header, request.id, request.send_text))


@asynccontextmanager
async def serving(reply: Reply, seen: list[Request]) -> AsyncIterator[int]:
    """A server that answers with what ``reply`` says, or closes at None. Yields its port."""

    peers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(cast("asyncio.Task[None]", asyncio.current_task()))
        decoder = Decoder()
        try:
            while data := await reader.read(65_536):
                for request in decoder.feed(data):
                    seen.append(request)
                    said = reply(request)
                    if said is None:
                        return
                    for piece in in_pieces(said) if request.send % 3 == 0 else [said]:
                        writer.write(piece)
                        await asyncio.sleep(0)
        except ConnectionError:
            pass  # The load is over.
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*peers)


def in_pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 5] for at in range(0, len(data), 5)]


async def test_every_report_is_answered_and_measured() -> None:
    seen: list[Request] = []
    async with serving(answer, seen) as port:
        result = await load("127.0.0.1", port, 5, 200)
    assert (result.reports, result.lost, len(seen)) == (200, 0, 200)
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms
    assert result.rate == pytest.approx(200 / result.seconds)
    assert result.cpu_seconds > 0


async def test_boards_report_as_the_protocol_describes() -> None:
    seen: list[Request] = []
    async with serving(answer, seen) as port:
        await load("127.0.0.1", port, 3, 30, prefix="x")
    assert {one.id for one in seen} == {"x-0", "x-1", "x-2"}
    for name in ("x-0", "x-1", "x-2"):
        mine = [one for one in seen if one.id == name]
        assert [one.send for one in mine] == list(range(1, len(mine) + 1))
        assert [one.reset for one in mine] == [True] + [False] * (len(mine) - 1)
        assert mine[0].box_acc == typical(name).box_acc == (1, 54, 43)


async def test_the_rate_is_a_limit() -> None:
    async with serving(answer, []) as port:
        result = await load("127.0.0.1", port, 2, 20, rate=100)
    # Two boards begin at once, the last of the other 18 reports is due after 9 intervals of 20 ms.
    assert result.seconds >= 0.17


async def test_a_report_whose_connection_was_closed_counts_as_lost_and_is_made_up_for() -> None:
    drops: Iterator[None] = iter([None] * 3)
    seen: list[Request] = []

    def sometimes(request: Request) -> bytes | None:
        return next(drops, answer(request)) if request.send % 5 == 0 else answer(request)

    async with serving(sometimes, seen) as port:
        result = await load("127.0.0.1", port, 2, 60)
    assert (result.reports, result.lost, len(seen)) == (60, 3, 63)


async def test_a_wrong_answer_ends_the_load() -> None:
    def wrong(request: Request) -> bytes:
        return encode(Answer(request.header, request.id, "999"))

    async with serving(wrong, []) as port:
        with pytest.raises(LoadError, match="a wrong answer to SEND=1"):
            await load("127.0.0.1", port, 1, 10)


async def test_a_server_that_never_answers_is_given_up() -> None:
    async with serving(lambda request: b"", []) as port:
        with pytest.raises(LoadError, match="the deadline is over: 0 answered"):
            await load("127.0.0.1", port, 1, 10, deadline_s=0.1)


async def test_the_command_prints_its_result_as_json() -> None:
    command = [sys.executable, "-m", "patchbay_locker.load", "--boards", "2", "--reports", "40"]
    async with serving(answer, []) as port:
        process = await asyncio.create_subprocess_exec(
            *command, "--port", str(port), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(printed)["reports"] == 40


async def unused_port() -> int:
    async with serving(answer, []) as port:
        return port


def test_the_command_says_that_the_server_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = asyncio.run(unused_port())
    assert main(["--port", str(port), "--boards", "1"]) == 1
    assert "0 answered" in capsys.readouterr().err
