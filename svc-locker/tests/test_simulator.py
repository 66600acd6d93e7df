"""Simulated boards against a small server of this file, over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from patchbay.settings import Config, RuntimeSettings
from patchbay.testing import PATIENCE_S
from patchbay_locker import simulator
from patchbay_locker.settings import LockerSettings
from patchbay_locker.simulator import Behaviour, Board, Fleet, Unanswered
from patchbay_locker.wire import Answer, Code, Decoder, Request, WireError, encode

CODES = (Code(2, "1492", 4800), Code(5, "2001", 1))


def plain(request: Request) -> list[Answer]:
    return [Answer(request.header, request.id, request.send_text)]


def with_codes(request: Request) -> list[Answer]:
    return [Answer(request.header, request.id, request.send_text, codes=CODES)]


@dataclass
class Server:
    """Answers each report with what ``reply`` says: several answers, none, or None to close."""

    reply: Callable[[Request], list[Answer] | None] = plain
    requests: list[Request] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    connections: int = 0
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    peers: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.append(cast("asyncio.Task[None]", asyncio.current_task()))
        decoder = Decoder()
        try:
            while data := await reader.read(65_536):
                self.reads.append(data)
                for request in decoder.feed(data):
                    self.requests.append(request)
                    async with self.came:
                        self.came.notify_all()
                    answers = self.reply(request)
                    if answers is None:
                        return
                    writer.write(b"".join(map(encode, answers)))
        except ConnectionError:
            pass  # A board that loses answers does so in the middle of ours.
        finally:
            writer.close()

    async def wait_until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self.came:
            await self.came.wait_for(enough)


@dataclass
class Place:
    server: Server
    port: int

    def board(self, *, behaviour: Behaviour = Behaviour(), **more: Any) -> Board:  # noqa: B008
        chance = random.Random(7)
        return Board("1953", self.port, behaviour=behaviour, chance=chance, **more)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        yield Place(server, listening.sockets[0].getsockname()[1])
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*server.peers)


async def test_a_board_says_reset_until_it_is_answered(place: Place) -> None:
    place.server.reply = lambda request: None if request.send < 3 else plain(request)
    board = place.board()
    await board.report()
    await board.report()
    assert [(one.send, one.reset) for one in place.server.requests] == [
        (1, True),
        (2, True),
        (3, True),
        (4, False),
    ]
    assert (board.reports_sent, board.reports_answered) == (4, 2)
    board.disconnect()


async def test_a_board_reports_what_it_is(place: Place) -> None:
    board = place.board(cols=5, rows=6, act_con=("11111", "0"))
    await board.report(accessed=[3, 4])
    [request] = place.server.requests
    assert (request.cols, request.rows, request.act_con) == (5, 6, ("11111", "0"))
    assert request.box_acc == (3, 4)
    assert request.box_eng == request.box_to == ()
    board.disconnect()


async def test_a_board_takes_over_the_whole_list_of_codes(place: Place) -> None:
    place.server.reply = with_codes
    board = place.board()
    await board.report()
    assert board.codes == {2: CODES[0], 5: CODES[1]}
    place.server.reply = lambda request: [
        Answer(request.header, request.id, request.send_text, codes=CODES[:1])
    ]
    await board.report()
    assert board.codes == {2: CODES[0]}
    await board.report()
    assert [one.box_eng for one in place.server.requests] == [(), (2, 5), (2,)]
    assert board.empty_after_codes == 0
    board.disconnect()


async def test_an_empty_list_while_codes_stand_is_counted(place: Place) -> None:
    now = 0.0
    place.server.reply = with_codes
    board = place.board(now=lambda: now)
    await board.report()
    now = 60.0
    assert board.open_cells() == [2]
    place.server.reply = plain
    await board.report()
    assert (place.server.requests[-1].box_eng, place.server.requests[-1].box_to) == ((2,), (5,))
    assert board.empty_after_codes == 1
    assert board.codes == {}
    board.disconnect()


async def test_an_empty_list_after_all_codes_have_run_out_is_not_counted(place: Place) -> None:
    now = 0.0
    place.server.reply = with_codes
    board = place.board(now=lambda: now)
    await board.report()
    now = 4800 * 60.0
    place.server.reply = plain
    await board.report()
    assert board.empty_after_codes == 0
    board.disconnect()


async def test_a_blocked_board_opens_no_cell_and_says_so(place: Place) -> None:
    place.server.reply = lambda request: [
        Answer(request.header, request.id, request.send_text, blocked=True, codes=CODES)
    ]
    board = place.board()
    await board.report()
    assert board.blocked
    assert board.open_cells() == []
    await board.report()
    assert place.server.requests[-1].state == (3,)
    board.disconnect()


async def test_an_answer_to_another_report_is_dropped(place: Place) -> None:
    place.server.reply = lambda request: [
        Answer(request.header, request.id, "999", codes=CODES),
        Answer(request.header, "another", request.send_text, codes=CODES),
        *plain(request),
    ]
    board = place.board()
    assert (await board.report()).send_text == "1"
    assert board.answers_dropped == 2
    assert board.codes == {}
    board.disconnect()


async def test_a_board_that_got_no_answer_asks_again_with_the_next_number(place: Place) -> None:
    place.server.reply = lambda request: None if request.send < 3 else plain(request)
    board = place.board()
    await board.report(accessed=[7])
    await board.report()
    assert [(one.send, one.box_acc) for one in place.server.requests] == [
        (1, (7,)),
        (2, (7,)),
        (3, (7,)),
        (4, ()),
    ]
    assert board.accesses == [(0, 3, 7)]
    assert board.accesses_sent == {(0, 1, 7), (0, 2, 7), (0, 3, 7)}
    board.disconnect()


async def test_a_board_may_repeat_the_very_same_bytes(place: Place) -> None:
    refusals = iter([None, None])
    place.server.reply = lambda request: next(refusals, plain(request))
    board = place.board(behaviour=Behaviour(repeat="same"))
    await board.report(accessed=[7])
    assert len(place.server.requests) == 3
    assert len({request.digest for request in place.server.requests}) == 1
    assert (board.reports_sent, board.reports_answered) == (3, 1)
    assert board.accesses == [(0, 1, 7)]
    board.disconnect()


async def test_a_board_that_loses_answers_is_answered_in_the_end(place: Place) -> None:
    board = place.board(behaviour=Behaviour(loses_answer=0.5))
    for cell in range(1, 11):
        await board.report(accessed=[cell])
    assert board.reports_answered == 10 < board.reports_sent
    assert {cell for _, _, cell in board.accesses} == set(range(1, 11))
    board.disconnect()


@pytest.mark.parametrize("chunk", [1, 7])
async def test_a_board_may_send_in_pieces(place: Place, chunk: int) -> None:
    board = place.board(behaviour=Behaviour(chunk=chunk))
    await board.report()
    await board.report()
    assert len(place.server.requests) == 2
    assert len(place.server.reads) > 2
    board.disconnect()


async def test_a_board_may_send_many_reports_at_once(place: Place) -> None:
    board = place.board()
    answers = await board.pipeline(50)
    assert [answer.send_text for answer in answers] == [str(send) for send in range(1, 51)]
    assert board.reports_answered == 50
    assert place.server.connections == 1
    board.disconnect()


async def test_a_board_keeps_its_connection_or_opens_a_new_one_each_time(place: Place) -> None:
    keeping, opening = place.board(), place.board(behaviour=Behaviour(keeps_connection=False))
    for _ in range(3):
        await keeping.report()
    assert place.server.connections == 1
    for _ in range(3):
        await opening.report()
    assert place.server.connections == 4
    keeping.disconnect()


async def test_a_board_reboots_when_it_is_told_to(place: Place) -> None:
    orders = iter([False, True])
    place.server.reply = lambda request: [
        Answer(request.header, request.id, request.send_text, next(orders, False), codes=CODES)
    ]
    board = place.board()
    for _ in range(3):
        await board.report()
    assert [(one.send, one.reset) for one in place.server.requests] == [
        (1, True),
        (2, False),
        (1, True),
    ]
    assert (board.boot, board.reboots_ordered) == (1, 1)
    assert place.server.connections == 2
    board.disconnect()


async def test_an_order_to_reboot_ends_a_pipeline(place: Place) -> None:
    place.server.reply = lambda request: [
        Answer(request.header, request.id, request.send_text, reset=request.send == 3)
    ]
    board = place.board()
    assert len(await board.pipeline(10)) == 3
    assert (board.boot, board.send) == (1, 0)


async def test_a_board_may_reboot_in_the_middle_of_a_report(place: Place) -> None:
    place.server.reply = lambda request: plain(request) if request.reset else []
    board = place.board(behaviour=Behaviour(repeat="same"))
    await board.report()
    waiting = asyncio.create_task(board.report(accessed=[4]))
    await place.server.wait_until(lambda: len(place.server.requests) == 2)
    board.reboot()
    await waiting
    assert [(one.send, one.reset) for one in place.server.requests] == [
        (1, True),
        (2, False),
        (1, True),
    ]
    assert board.accesses == [(1, 1, 4)]
    board.disconnect()


async def test_accesses_that_were_never_answered_go_with_the_next_report(place: Place) -> None:
    place.server.reply = lambda request: []
    board = place.board()
    with pytest.raises(Unanswered, match="no answer up to SEND=1"):
        await board.report(accessed=[7], deadline_s=0.05)
    place.server.reply = plain
    await board.report(accessed=[8])
    assert place.server.requests[-1].box_acc == (7, 8)
    board.disconnect()


async def test_a_server_that_says_nothing_is_asked_again(place: Place) -> None:
    place.server.reply = lambda request: [] if request.send == 1 else plain(request)
    board = place.board(behaviour=Behaviour(answer_timeout_s=0.05))
    assert int((await board.report()).send_text) > 1
    board.disconnect()


async def test_one_try_says_that_the_server_is_not_there() -> None:
    listening = await asyncio.start_server(Server().serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    board = Board("1953", port)
    with pytest.raises(Unanswered):
        await board.exchange(board.next_request())


async def test_a_server_that_speaks_nonsense_is_no_lost_answer() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as listening:
        board = Board("1953", listening.sockets[0].getsockname()[1])
        with pytest.raises(WireError):
            await board.report()


async def test_a_fleet_reports_until_it_is_stopped_and_opens_cells_that_have_codes(
    place: Place,
) -> None:
    place.server.reply = with_codes
    boards = [Board(f"b{number}", place.port) for number in range(5)]
    stop = asyncio.Event()
    running = asyncio.create_task(Fleet(boards, interval_s=0.01, typing=0.9).run(stop))

    def enough() -> bool:
        opened = {one.id for one in place.server.requests if one.box_acc}
        return len(opened) == len(boards)

    await place.server.wait_until(enough)
    stop.set()
    await running
    assert {cell for one in place.server.requests for cell in one.box_acc} <= {2, 5}


class Settings:
    """What `simulator.run` reads of the configuration."""

    def __init__(self, port: int) -> None:
        self._locker = LockerSettings(port=port - 100, demo_boards=3, demo_interval_s=0.01)
        self.runtime = RuntimeSettings()

    def table(self, name: str, kind: type[LockerSettings]) -> LockerSettings:
        assert (name, kind) == ("locker", LockerSettings)
        return self._locker

    def port(self, number: int) -> int:
        return number + 100


async def test_the_demo_has_as_many_boards_as_the_settings_say(place: Place) -> None:
    stop = asyncio.Event()
    config = cast("Config", Settings(place.port))
    running = asyncio.create_task(simulator.run(config, stop))
    await place.server.wait_until(lambda: len({one.id for one in place.server.requests}) == 3)
    stop.set()
    await running
    assert {one.id for one in place.server.requests} == {"demo-1", "demo-2", "demo-3"}
