"""One connection of the server, by real sockets."""

from __future__ import annotations

import asyncio
import math
import socket
import struct

from patchbay.net import Limits, Server
from patchbay.testing import PATIENCE_S, until
from tests.echo_house import LOG, Echo, house, on_both_loops, rest


@on_both_loops
async def test_bytes_go_to_the_session_and_its_answer_comes_back() -> None:
    async with house() as one:
        reader, writer = await one.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        (session,) = one.sessions
        host, port = writer.get_extra_info("sockname")
        assert session.peer.address == f"{host}:{port}"
        assert session.whole == [True]
        assert one.server.connections == 1
        writer.close()
        await until(lambda: one.server.connections == 0)
        assert session.gone == 1
        assert session.peer.closing
        assert not session.peer.write(b"too late")


@on_both_loops
async def test_small_answers_are_not_delayed() -> None:
    async with house() as one:
        await one.connect()
        connection = one.sessions[0].peer._transport
        assert connection is not None
        sock = connection.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@on_both_loops
async def test_every_peer_is_probed_so_that_one_without_power_does_not_stay() -> None:
    async with house() as one:
        await one.connect()
        connection = one.sessions[0].peer._transport
        assert connection is not None
        sock = connection.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


@on_both_loops
async def test_what_was_written_before_close_arrives() -> None:
    async with house() as one:
        reader, writer = await one.connect()
        writer.write(b"bye")
        assert await rest(reader) == b"bye"
        await until(lambda: one.sessions[0].gone == 1)


@on_both_loops
async def test_a_device_that_gets_no_answers_is_gone_when_it_has_said_all() -> None:
    async with house(ended_grace_s=0) as one:
        _, writer = await one.connect()
        writer.write(b"all")
        writer.write_eof()
        await until(lambda: one.server.connections == 0)
        (session,) = one.sessions
        assert (session.heard, session.gone) == (b"all", 1)


@on_both_loops
async def test_a_device_that_has_said_all_still_gets_its_answer() -> None:
    async with house() as one:
        reader, writer = await one.connect()
        writer.write(b"question")
        writer.write_eof()
        await until(lambda: one.sessions[0].heard == b"question")
        one.sessions[0].peer.write(b" later")
        assert await rest(reader) == b"question later"
        await until(lambda: one.server.connections == 0)


@on_both_loops
async def test_a_session_that_raises_loses_its_own_connection_only() -> None:
    async with house() as one:
        bad, bad_writer = await one.connect()
        good, good_writer = await one.connect()
        bad_writer.write(b"crash")
        assert await rest(bad) == b""
        assert one.server.crashes == 1
        good_writer.write(b"still here")
        assert await good.readexactly(10) == b"still here"
        assert one.sessions[0].gone == 1


@on_both_loops
async def test_a_device_that_does_not_read_is_told_apart_and_then_dropped() -> None:
    async with house(write_buffer_bytes=100_000) as one:
        deaf = socket.create_connection(("127.0.0.1", one.server.port))
        await until(lambda: len(one.sessions) == 1)
        peer = one.sessions[0].peer
        assert peer.write(b"x" * 1000)
        await until(lambda: not peer.write(b"x" * 50_000))
        assert not peer.closing
        while not peer.closing:
            assert not peer.write(b"x" * 50_000)
        assert one.server.dropped == 1
        await until(lambda: one.sessions[0].gone == 1)
        deaf.close()


@on_both_loops
async def test_bytes_stay_in_order_when_the_kernel_takes_only_a_part() -> None:
    async with house(write_buffer_bytes=100_000_000) as one:
        reader, _ = await one.connect()
        peer = one.sessions[0].peer
        sent = b""
        for number in range(400):
            part = struct.pack(">I", number) * 10_000
            peer.write(part)
            sent += part
            if number % 40 == 0:
                await asyncio.sleep(0)
        peer.close()
        assert await rest(reader) == sent


@on_both_loops
async def test_writing_to_a_device_that_has_reset_the_connection_is_not_an_error() -> None:
    async with house() as one:
        sock = socket.create_connection(("127.0.0.1", one.server.port))
        await until(lambda: len(one.sessions) == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        session = one.sessions[0]
        await until(lambda: not session.peer.write(b"x"))
        await until(lambda: session.gone == 1)
        assert one.server.crashes == 0


@on_both_loops
async def test_who_waits_is_told_when_the_kernel_has_taken_all() -> None:
    async with house(send_buffer_bytes=4096, write_buffer_bytes=100_000_000) as one:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", one.server.port))
        await until(lambda: len(one.sessions) == 1)
        peer = one.sessions[0].peer
        drained: list[int] = []
        peer.on_drained(lambda: drained.append(peer.waiting_bytes))
        assert peer.write(b"x" * 10)
        assert not peer.write(b"x" * 1_000_000)
        assert peer.waiting_bytes > 0
        assert drained == []
        left = 1_000_010
        while left:
            left -= len(await asyncio.to_thread(sock.recv, 65_536))
        await until(lambda: drained == [0])
        sock.close()
        await until(lambda: one.server.connections == 0)
        assert peer.waiting_bytes == 0


@on_both_loops
async def test_the_kernel_is_told_to_find_dead_peers_and_how_much_to_hold() -> None:
    async with house(dead_after_s=45, send_buffer_bytes=20_000) as one:
        await one.connect()
        transport = one.sessions[0].peer._transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        probing_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_KEEPINTVL
        ) * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert 0 < probing_s <= 45
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000  # Linux doubles it


@on_both_loops
async def test_a_peer_that_need_not_speak_is_not_closed_for_its_silence() -> None:
    async with house(idle_timeout_s=math.inf) as one:
        reader, writer = await one.connect()
        (peer,) = one.server._peers
        assert not peer.silent_since(-math.inf)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"


class Patient(Echo):
    """Says what it heard when its peer has said all, and then only tells."""

    def ended(self) -> None:
        self.peer.write(b"that was all: " + self.heard)

    def received(self, data: bytes) -> None:
        self.heard += data
        if data == b"listen":
            self.peer.only_listens()


@on_both_loops
async def test_a_session_that_wants_to_know_hears_that_its_peer_has_said_all() -> None:
    sessions: list[Echo] = []
    limits = Limits(ended_grace_s=0.2)
    async with Server(lambda peer: Patient(peer, sessions), "127.0.0.1", 0, limits, LOG) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"hello")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b"that was all: hello"
        writer.close()


@on_both_loops
async def test_who_only_listens_is_not_closed_for_its_silence() -> None:
    sessions: list[Echo] = []
    limits = Limits(idle_timeout_s=0.1)
    async with Server(lambda peer: Patient(peer, sessions), "127.0.0.1", 0, limits, LOG) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"listen")
        _, silent = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.timed_out == 1)
        await until(lambda: server.connections == 1)
        sessions[0].peer.write(b"still here")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(10) == b"still here"
        writer.close()
        silent.close()


class Clumsy(Echo):
    """Makes a mistake when its peer has said all, and another when it is gone."""

    def ended(self) -> None:
        raise RuntimeError("a mistake at the end")

    def lost(self) -> None:
        super().lost()
        raise RuntimeError("a mistake after the end")


@on_both_loops
async def test_a_session_that_raises_at_its_end_costs_nobody_else_anything() -> None:
    sessions: list[Echo] = []
    async with Server(lambda peer: Clumsy(peer, sessions), "127.0.0.1", 0, Limits(), LOG) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: len(sessions) == 1)
        other_reader, other = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write_eof()
        assert await rest(reader) == b""
        await until(lambda: server.connections == 1)
        assert (server.crashes, sessions[0].gone) == (2, 1)
        other.write(b"hello")
        async with asyncio.timeout(PATIENCE_S):
            assert await other_reader.readexactly(5) == b"hello"
        writer.close()
        other.close()


@on_both_loops
async def test_a_session_that_raises_when_it_may_write_again_is_counted_and_closed() -> None:
    def mistake() -> None:
        raise RuntimeError("a mistake of a session that may write again")

    async with house() as one:
        reader, writer = await one.connect()
        peer = one.sessions[0].peer
        peer.on_drained(mistake)
        while not peer.waiting_bytes:
            peer.write(b"x" * 65_536)
        await rest(reader)
        assert (one.server.crashes, one.sessions[0].gone) == (1, 1)
        writer.close()


@on_both_loops
async def test_to_a_peer_that_is_gone_nothing_can_be_done_and_nothing_goes_wrong() -> None:
    async with house() as one:
        _, writer = await one.connect()
        peer = one.sessions[0].peer
        peer.abort()
        await until(lambda: one.sessions[0].gone == 1)
        assert (peer.closing, peer.waiting_bytes, peer.write(b"late")) == (True, 0, False)
        peer.on_drained(lambda: None)
        peer.hold(True)
        peer.only_listens()
        peer.close()
        peer.abort()
        assert (one.server.connections, one.server.crashes) == (0, 0)
        writer.close()


@on_both_loops
async def test_who_only_listens_may_say_that_it_has_said_all() -> None:
    sessions: list[Echo] = []
    limits = Limits(ended_grace_s=0.01)
    async with Server(lambda peer: Patient(peer, sessions), "127.0.0.1", 0, limits, LOG) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"listen")
        writer.write_eof()
        _, other = await asyncio.open_connection("127.0.0.1", server.port)
        other.write(b"hello")
        other.write_eof()  # this one's grace is over later
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(20) == b"that was all: listen"
            await until(lambda: server.connections == 1)
            sessions[0].peer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
        writer.close()
        other.close()


@on_both_loops
async def test_who_has_left_without_a_word_is_found_by_the_next_write() -> None:
    sessions: list[Echo] = []
    async with Server(lambda peer: Patient(peer, sessions), "127.0.0.1", 0, Limits(), LOG) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"listen")
        await until(lambda: sessions and sessions[0].heard == b"listen")
        writer.close()

        def gone() -> bool:
            sessions[0].peer.write(b"x")
            return one.connections == 0

        await until(gone)
        assert sessions[0].gone == 1
        del reader


@on_both_loops
async def test_a_reset_after_all_was_said_is_found_though_nothing_is_written() -> None:
    sessions: list[Echo] = []
    limits = Limits(idle_timeout_s=0.1)
    async with Server(lambda peer: Patient(peer, sessions), "127.0.0.1", 0, limits, LOG) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"listen")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            await reader.readexactly(20)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await until(lambda: server.connections == 0)
        assert (sessions[0].gone, server.timed_out) == (1, 0)
