"""What one peer sends in one go is handed on in parts, by real sockets."""

from __future__ import annotations

import asyncio
import time

from patchbay.log import get_logger
from patchbay.net import Limits, Peer, Server
from patchbay.net.feed import PART_BYTES, READ_BYTES
from patchbay.testing import until
from tests.echo_house import house, on_both_loops

FRAME_S = 0.00005
"""What a frame of two bytes costs here."""

FLOOD = b"{}" * 50_000


class Busy:
    """A session that takes its time for each frame, and answers the last one of a device."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.heard = bytearray()

    def received(self, data: bytes) -> None:
        self.heard += data
        end = time.perf_counter() + FRAME_S * data.count(b"{}")
        while time.perf_counter() < end:
            pass
        if data.endswith(b"!"):
            self.peer.write(b"done")

    def lost(self) -> None:
        pass


@on_both_loops
async def test_a_flood_of_tiny_frames_neither_holds_the_loop_nor_keeps_another_peer_waiting() -> (
    None
):
    sessions: list[Busy] = []

    def connected(peer: Peer) -> Busy:
        sessions.append(Busy(peer))
        return sessions[-1]

    async with Server(connected, "127.0.0.1", 0, Limits(), get_logger("test")) as server:
        _, flooding = await asyncio.open_connection("127.0.0.1", server.port)
        flooding.write(FLOOD + b"!")
        await until(lambda: sessions and sessions[0].heard)
        reader, other = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(10):
            other.write(b"a job!")
            assert await reader.readexactly(4) == b"done"
        assert len(sessions[0].heard) < len(FLOOD), "the flood was over before"
        flooding.close()
        other.close()


@on_both_loops
async def test_what_comes_in_one_go_is_handed_on_whole_and_in_order_before_the_end() -> None:
    text = b"".join(b"%07d," % number for number in range(100_000))
    async with house(ended_grace_s=0) as one:
        _, writer = await one.connect()
        writer.write(text)
        writer.write_eof()
        await until(lambda: one.sessions and one.sessions[0].gone == 1)
        assert one.sessions[0].heard == text


@on_both_loops
async def test_a_paused_server_hands_nothing_on_of_what_was_read() -> None:
    async with house() as one:
        _streams = await one.connect()
        session = one.sessions[0]
        one.server.pause()
        session.peer.data_received(b"x" * 200_000)  # as the transport may have it in hand
        await asyncio.sleep(0.05)
        assert not session.heard
        one.server.resume()
        await until(lambda: len(session.heard) == 200_000)


@on_both_loops
async def test_a_closed_peer_gets_nothing_more_of_what_was_read() -> None:
    async with house() as one:
        _, writer = await one.connect()
        writer.write(b"bye" + b"x" * 200_000)
        await until(lambda: one.sessions[0].gone == 1)
        assert len(one.sessions[0].heard) == PART_BYTES


@on_both_loops
async def test_a_peer_is_closed_after_as_many_invalid_frames_as_the_limit_says() -> None:
    async with house(max_invalid=3) as one:
        reader, _ = await one.connect()
        peer = one.sessions[0].peer
        assert [peer.invalid() for _ in range(3)] == [False, False, True]
        assert await reader.read() == b""
        assert one.server.invalid == 1


@on_both_loops
async def test_what_a_connection_has_sent_takes_little_memory_before_it_is_handed_on() -> None:
    sessions: list[Busy] = []

    def connected(peer: Peer) -> Busy:
        sessions.append(Busy(peer))
        return sessions[-1]

    async with Server(connected, "127.0.0.1", 0, Limits(), get_logger("test")) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(FLOOD)
        await until(lambda: sessions)
        feed = sessions[0].peer._feed
        assert feed is not None
        worst = 0
        while len(sessions[0].heard) < 40_000:
            worst = max(worst, feed.waiting)
            await asyncio.sleep(0)
        assert 0 < worst <= READ_BYTES
        writer.close()
