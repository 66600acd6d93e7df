"""The socket that paho believes to have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from patchbay.bus.pipe import Pipe


class Transport:
    """Keeps what is written to it, each write by itself."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def connected() -> tuple[Pipe, Transport]:
    transport: Any = Transport()
    pipe = Pipe(asyncio.get_running_loop())
    pipe.transport = transport
    return pipe, transport


async def test_what_is_sent_in_one_turn_of_the_loop_is_one_write() -> None:
    pipe, transport = connected()
    assert [pipe.send(b"ab"), pipe.send(b"c")] == [2, 1]
    assert transport.written == []
    await asyncio.sleep(0)
    pipe.send(b"d")
    await asyncio.sleep(0)
    assert transport.written == [b"abc", b"d"]


async def test_what_was_sent_is_written_before_the_end_and_only_once() -> None:
    pipe, transport = connected()
    pipe.send(b"bye")
    pipe.close()
    pipe.close()
    await asyncio.sleep(0)
    assert (transport.written, transport.closed) == ([b"bye"], True)


@pytest.mark.parametrize("how", ["before", "closing", "after"])
async def test_without_a_connection_sending_is_an_error_as_on_a_socket(how: str) -> None:
    pipe, transport = connected()
    match how:
        case "before":
            pipe.transport = None
        case "closing":
            transport.close()
        case "after":
            pipe.close()
    with pytest.raises(ConnectionResetError):
        pipe.send(b"late")


async def test_what_has_come_is_received_in_order_and_then_it_would_block() -> None:
    pipe, _ = connected()
    with pytest.raises(BlockingIOError):
        pipe.recv(1)
    pipe.received += b"abcde"
    assert (pipe.recv(2), pipe.pending(), pipe.recv(9), pipe.pending()) == (b"ab", 3, b"cde", 0)
    with pytest.raises(BlockingIOError):
        pipe.recv(1)
