"""The server and all its connections, by real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from patchbay.errors import Unavailable
from patchbay.net import Limits, Peer, Server
from patchbay.testing import Lateness, until
from tests.echo_house import LOG, Echo, House, house, on_both_loops, rest


@on_both_loops
async def test_a_session_that_cannot_be_made_costs_its_own_connection_only() -> None:
    def fail(peer: Peer) -> Echo:
        raise RuntimeError(peer.address)

    async with Server(fail, "127.0.0.1", 0, Limits(), LOG) as server:
        reader, _ = await asyncio.open_connection("127.0.0.1", server.port)
        assert await rest(reader) == b""
        await until(lambda: server.connections == 0)
        assert server.crashes == 1


@on_both_loops
async def test_one_more_than_may_wait_is_closed_at_once_and_counted() -> None:
    async with house(max_connections=1, max_waiting=0) as one:
        _, writer = await one.connect()
        one.sessions[0].peer.identify()
        reader, _ = await asyncio.open_connection("127.0.0.1", one.server.port)
        assert await rest(reader) == b""
        assert one.server.refused == 1
        assert one.server.connections == 1
        assert len(one.sessions) == 1
        writer.close()
        await until(lambda: one.server.connections == 0)
        await one.connect()


@on_both_loops
async def test_who_has_sent_nothing_valid_makes_room_for_a_newcomer_oldest_first() -> None:
    async with house(max_connections=2) as one:
        first, _ = await one.connect()
        device, writer = await one.connect()
        one.sessions[1].peer.identify()
        await one.connect()
        assert await rest(first) == b""
        await one.connect()
        assert (one.server.evicted, one.server.refused, one.server.connections) == (2, 0, 2)
        writer.write(b"still here")
        assert await device.readexactly(10) == b"still here"


@on_both_loops
async def test_a_newcomer_waits_unread_while_all_are_devices_and_loses_nothing_it_has_sent() -> (
    None
):
    async with house(max_connections=1, idle_timeout_s=0.5) as one:
        _, first = await one.connect()
        one.sessions[0].peer.identify()
        job = socket.create_connection(("127.0.0.1", one.server.port))
        job.sendall(b"a job")
        await until(lambda: one.server.waiting == 1)
        keep = asyncio.create_task(_chat(first, lambda: one.server.connections == 1))
        await asyncio.sleep(1.0)  # longer than anybody may be silent
        assert (one.server.waiting, len(one.sessions)) == (1, 1)
        job.sendall(b", whole")
        job.close()  # as a Chromebook does that has sent its job
        keep.cancel()
        first.close()
        await until(lambda: len(one.sessions) == 2)
        await until(lambda: one.sessions[1].heard == b"a job, whole")


async def _chat(writer: asyncio.StreamWriter, while_: Callable[[], bool]) -> None:
    while while_():
        writer.write(b".")
        await asyncio.sleep(0.02)


@on_both_loops
async def test_a_silent_device_is_closed_and_a_talking_one_is_not() -> None:
    async with house(idle_timeout_s=1.0) as one:
        silent, _ = await one.connect()
        talking, writer = await one.connect()
        closed = asyncio.create_task(rest(silent))
        while not closed.done():
            writer.write(b".")
            await talking.readexactly(1)
            await asyncio.sleep(0.02)
        assert one.server.timed_out == 1
        assert one.server.connections == 1


@on_both_loops
async def test_nobody_is_called_silent_while_the_server_does_not_listen() -> None:
    async with house(idle_timeout_s=0.5) as one:
        one.server.pause()
        reader, writer = await one.connect()
        await asyncio.sleep(0)
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await reader.readexactly(5)
        one.server.resume()
        assert await reader.readexactly(5) == b"hello"
        assert one.server.timed_out == 0


@on_both_loops
async def test_a_paused_server_reads_from_nobody_old_or_new() -> None:
    async with house() as one:
        old, old_writer = await one.connect()
        one.server.pause()
        one.server.pause()
        new, new_writer = await one.connect()
        old_writer.write(b"old")
        new_writer.write(b"new")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.wait(
                    [asyncio.ensure_future(old.read(1)), asyncio.ensure_future(new.read(1))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        assert [session.heard for session in one.sessions] == [b"", b""]
        one.server.resume()
        one.server.resume()
        await until(lambda: [session.heard for session in one.sessions] == [b"old", b"new"])


@on_both_loops
async def test_a_port_in_use_is_one_clear_line() -> None:
    async with house() as one:
        second = Server(lambda peer: Echo(peer, []), "127.0.0.1", one.server.port, Limits(), LOG)
        with pytest.raises(Unavailable) as caught:
            await second.start()
        line = f"cannot listen on 127.0.0.1:{one.server.port}: the port is in use"
        assert str(caught.value) == line
        await second.stop()


@on_both_loops
async def test_an_address_that_is_not_ours_is_one_clear_line() -> None:
    server = Server(lambda peer: Echo(peer, []), "192.0.2.1", 0, Limits(), LOG)
    with pytest.raises(Unavailable, match=r"^cannot listen on 192\.0\.2\.1:0: [^\n]+$"):
        await server.start()


@on_both_loops
async def test_stop_closes_everybody_within_a_second_also_who_does_not_read() -> None:
    one = House(write_buffer_bytes=100_000_000)
    await one.server.start()
    reader, _ = await one.connect()
    deaf = socket.create_connection(("127.0.0.1", one.server.port))
    await until(lambda: len(one.sessions) == 2)
    one.sessions[0].peer.write(b"last words")
    one.sessions[1].peer.write(b"x" * 50_000_000)
    port = one.server.port
    with Lateness() as lateness:
        began = time.monotonic()
        await one.server.stop()
    assert time.monotonic() - began < 5.0 + lateness.worst_s  # it takes a second, if nothing else
    assert one.server.connections == 0
    assert [session.gone for session in one.sessions] == [1, 1]
    assert await rest(reader) == b"last words"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    deaf.close()


@on_both_loops
async def test_a_stopped_server_can_start_again() -> None:
    one = House()
    for _ in range(2):
        async with one.server:
            reader, writer = await one.connect()
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
