"""Whatever other connections do at the board's port, boards are served, and right.

The quick runs are small; the long ones have the numbers of an attack.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patchbay.testing import PATIENCE_S, MakeBus, until
from patchbay_locker.settings import LockerSettings
from tests.locker_edge import EDGE, Domain, Running, report, running, worked, worked_answer

INTERVAL_S = 0.3


@pytest.fixture(autouse=True)
def many_files() -> None:
    """Both ends of every connection are here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))


class Honest:
    """Boards that report all the time, each on a connection that it keeps."""

    def __init__(self, here: Running, number: int) -> None:
        self.here = here
        self.answers = [0] * number

    async def live(self, index: int) -> None:
        id = f"honest-{index}"
        async with self.here.line() as line:
            send = 0
            while True:
                send += 1
                assert await line.ask(worked(send, id=id)) == worked_answer(send, id=id)
                self.answers[index] += 1
                await asyncio.sleep(INTERVAL_S)

    async def are_served(self) -> None:
        """Wait until each has had two more answers."""
        before = list(self.answers)
        await until(lambda: all(now >= was + 2 for now, was in zip(self.answers, before)))  # noqa: B905


@contextlib.asynccontextmanager
async def besieged(
    make_bus: MakeBus, domain: Domain, file: Path, *, boards: int, connections: int = 10_000
) -> AsyncIterator[tuple[Running, Honest]]:
    """An edge whose boards are served; all of them still are at the end."""
    async with running(
        make_bus(EDGE), file, connections=connections, settings=LockerSettings(max_boards=500)
    ) as here:
        await here.bus.wait_connected(PATIENCE_S)
        await domain.say()
        await until(lambda: here.edge.domain_seen)
        honest = Honest(here, boards)
        tasks = [asyncio.create_task(honest.live(index)) for index in range(boards)]
        await honest.are_served()
        try:
            yield here, honest
            await honest.are_served()
            assert not [task for task in tasks if task.done()], "a board was closed"
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in results} == {asyncio.CancelledError}


async def connect(here: Running) -> socket.socket:
    """A connection that nobody reads from."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", here.server.port))
    return sock


@pytest.mark.parametrize(
    ("silent", "boards"),
    [
        pytest.param(60, 10, id="quick"),
        pytest.param(1000, 50, id="long", marks=pytest.mark.long),
    ],
)
async def test_boards_are_served_while_silent_and_slow_connections_take_all_places(
    make_bus: MakeBus, domain: Domain, file: Path, silent: int, boards: int
) -> None:
    async with besieged(
        make_bus, domain, file, boards=boards, connections=silent // 2 + boards
    ) as (here, honest):
        socks = [await connect(here) for _ in range(silent)]
        try:
            for byte in worked(1, id="slow")[:5]:  # a byte now and then
                for sock in socks[::2]:
                    with contextlib.suppress(OSError):
                        sock.send(bytes([byte]))
                await honest.are_served()
            assert await here.ask(worked(1, id="newcomer")) == worked_answer(1, id="newcomer")
        finally:
            for sock in socks:
                sock.close()


@pytest.mark.parametrize(
    ("connections", "boards"),
    [
        pytest.param(400, 10, id="quick"),
        pytest.param(36_000, 50, id="long", marks=pytest.mark.long),
    ],
)
async def test_boards_are_served_while_connections_bring_garbage(
    make_bus: MakeBus, domain: Domain, file: Path, connections: int, boards: int
) -> None:
    async with besieged(make_bus, domain, file, boards=boards) as (here, honest):
        for start in range(0, connections, 100):
            socks = [await connect(here) for _ in range(100)]
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"GET / HTTP/1.1\r\nHost: lockers\r\n\r\n" * 20)
            await until(lambda n=start: here.edge.bad_input >= n)  # type: ignore[misc]
            for sock in socks:
                sock.close()
        await until(lambda: here.edge.bad_input >= connections)
        await until(lambda: here.server.connections <= boards)
        await honest.are_served()
    assert 0 < len(domain.letters) < connections / 4 + 50


@pytest.mark.parametrize(
    ("pipeliners", "boards", "reports"),
    [
        pytest.param(5, 10, 1000, id="quick"),
        pytest.param(50, 50, 20_000, id="long", marks=pytest.mark.long),
    ],
)
async def test_boards_are_served_while_others_pipeline_and_never_read(
    make_bus: MakeBus, domain: Domain, file: Path, pipeliners: int, boards: int, reports: int
) -> None:
    async with besieged(make_bus, domain, file, boards=boards) as (here, honest):
        await domain.want(1, id="deaf", codes=dict.fromkeys(range(1, 65), "1492"))
        await here.holds("deaf", 1)
        loop = asyncio.get_running_loop()

        async def pipeline(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):  # it is dropped, since it does not read
                for send in range(reports):
                    await loop.sock_sendall(sock, report(send, id="deaf"))

        socks = [await connect(here) for _ in range(pipeliners)]
        tasks = [asyncio.create_task(pipeline(sock)) for sock in socks]
        try:
            await honest.are_served()
            await asyncio.wait(tasks, timeout=PATIENCE_S)
            assert all(
                session.peer.waiting_bytes <= 2 * here.server.limits.write_buffer_bytes
                for session in here.sessions
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for sock in socks:
                sock.close()


async def test_a_report_of_64_kib_that_comes_byte_by_byte_stops_nobody(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    line_of_it = b"EXTRA=" + b"x" * 1000 + b"\r\n"
    big = worked(1, id="big")[:-5] + line_of_it * 60
    async with besieged(make_bus, domain, file, boards=10) as (here, honest):
        sock = await connect(here)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        for start in range(0, len(big), 64):
            for byte in big[start : start + 64]:
                await loop.sock_sendall(sock, bytes([byte]))
            await asyncio.sleep(0)
        await honest.are_served()
        await loop.sock_sendall(sock, b"CLOSE")
        answer = b""
        async with asyncio.timeout(PATIENCE_S):
            while not answer.endswith(b"CLOSE\n"):
                answer += await loop.sock_recv(sock, 4096)
        assert answer == worked_answer(1, id="big")
        sock.close()


async def test_ids_without_end_on_one_connection_are_not_remembered_without_end(
    make_bus: MakeBus, domain: Domain, file: Path
) -> None:
    async with besieged(make_bus, domain, file, boards=3) as (here, honest):
        async with here.line() as line:
            for start in range(0, 2000, 100):
                line.say(b"".join(worked(1, id=f"invented-{start + n}") for n in range(100)))
                for _ in range(100):
                    await line.hear()
        assert len(here.edge.memory) <= 500
        assert max(len(session.devices) for session in here.sessions) <= 1000
        await honest.are_served()
