"""Those who mean no good, as data: `ATTACKS`. Each is run by a process of its own.

    python -m tests.hostile_attacks NAME SHARE PORTS      a number; a JSON object, by address name

It says ``begun`` when the attack is on, ``done`` when all of it was done once, and then it begins
again. It ends with SIGTERM, with its parent, and after `LONGEST_S`, and says then, as JSON, what it
did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from patchbay.parent import die_with_parent

LONGEST_S: Final = 300.0
"""However slow what is attacked may be."""

NICE: Final = 10
"""An attacker has a machine of its own in life: here it steps back behind what is attacked, and not
behind the domains and the store, which are nicer."""

SOURCES: Final = tuple(f"127.0.0.{number}" for number in (1, 1, 1, 1, 2, 3, 4, 5))
"""Half of what comes is of one address, the one that honest clients have too."""

CONNECT_S: Final = 3.0
PAUSE_S: Final = 0.05
AT_ONCE: Final = 50
READ: Final = 65_536

BEGINNINGS: Final = {
    "allocator": b'{"ClientName":"',
    "bartender": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "lantern": b"\x20\xff\xff",
    "lantern-api": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65000\r\n\r\n{",
    "lantern-page": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "locker": b"ACon_V1.0\nID=slow\nSEND=1\nK=",
    "mesh": b'W-RBT{"',
    "mesh-monitor": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
}
"""Of each device port: what could still become sense, so that nobody is closed for it at once."""

UPGRADE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Attacker:
    """What all attacks need: whom to attack, how much of it, and what came of it."""

    def __init__(self, ports: dict[str, int], share: float) -> None:
        self.ports = ports
        self.share = share
        self.did: Counter[str] = Counter()
        self._sources = cycle(SOURCES)
        self._has_begun = False

    def begun(self) -> None:
        """The attack is on."""
        if not self._has_begun:
            self._has_begun = True
            print("begun", flush=True)

    def some(self, number: int) -> int:
        """So many, or in a short test a share of them."""
        return max(1, round(number * self.share))

    async def open(self, port: int, first: bytes = b"") -> socket.socket | None:
        """A connection from the next of our addresses, on which ``first`` was said; None if there
        was none to be had."""
        one = socket.socket()
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
            one.bind((next(self._sources), 0))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(one, ("127.0.0.1", port))
                await loop.sock_sendall(one, first)
        except OSError:
            one.close()
            self.did["refused"] += 1
            return None
        self.did["connections"] += 1
        return one

    async def fill(self, ones: list[socket.socket], wanted: int, port: int, first: bytes) -> None:
        """Have so many connections open: those that were closed are opened again."""
        ones[:] = [one for one in ones if _lives(one)]
        while len(ones) < wanted:
            some = min(wanted - len(ones), AT_ONCE)
            opened = await asyncio.gather(*(self.open(port, first) for _ in range(some)))
            ones += [one for one in opened if one is not None]
            if None in opened:
                return

    async def stream(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The same with streams."""
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(next(self._sources), 0)
                )
        except OSError:
            self.did["refused"] += 1
            raise
        self.did["connections"] += 1
        return found


Work = Callable[[Attacker], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """``seconds``: for how long at least. One of an ``amount`` goes on until that was done once,
    and does it ``rounds`` times at most."""

    name: str
    run: Work
    seconds: float = 20.0
    amount: bool = True
    rounds: int = 1_000_000


# Device ports


def tiny_objects(megabytes: int) -> Work:
    """So much of ``{}`` on one connection, again when it was closed."""

    async def run(attacker: Attacker) -> None:
        data = b"{}" * (attacker.some(megabytes * 1_000_000) // 2)
        with contextlib.suppress(OSError):
            reader, writer = await attacker.stream(attacker.ports["allocator"])
            attacker.begun()
            try:
                for start in range(0, len(data), READ):
                    writer.write(data[start : start + READ])
                    await writer.drain()
                    attacker.did["bytes"] += len(data[start : start + READ])
                writer.write_eof()
                await reader.read()  # until the server closes
            finally:
                writer.transport.abort()

    return run


async def invented_boards(attacker: Attacker) -> None:
    """Reports of 100,000 boards that there are not, a hundred on each connection."""
    left = iter(range(attacker.some(100_000)))
    tag = os.getpid()

    async def one() -> None:
        while True:
            numbers = [number for number, _ in zip(left, range(100), strict=False)]
            if not numbers:
                return
            with contextlib.suppress(OSError):
                reader, writer = await attacker.stream(attacker.ports["locker"])
                attacker.begun()
                writer.write(b"".join(_report(f"invented-{tag}-{one}", 1) for one in numbers))
                attacker.did["ids"] += len(numbers)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CONNECT_S):
                        heard = 0
                        while heard < len(numbers) and (data := await reader.read(READ)):
                            heard += data.count(b"CLOSE")
                        attacker.did["answered"] += heard
                writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(8)))


def garbage(port: str) -> Work:
    """36,000 connections that say random bytes and close, every other one with a reset."""

    async def run(attacker: Attacker) -> None:
        left = iter(range(attacker.some(36_000)))
        noise = os.urandom(READ)

        async def one() -> None:
            for number in left:
                with contextlib.suppress(OSError):
                    _, writer = await attacker.stream(attacker.ports[port])
                    attacker.begun()
                    start = number % 60_000
                    writer.write(noise[start : start + 1 + number % 1000])
                    if number % 2:
                        writer.transport.abort()
                    else:
                        writer.close()

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    return run


def idle(*, chats: bool) -> Work:
    """1,000 connections on each device port, which come back when they are closed.

    ``chats``: each says a byte a second.
    """

    async def run(attacker: Attacker) -> None:
        wanted = attacker.some(1000)
        open_at: dict[str, list[socket.socket]] = {port: [] for port in BEGINNINGS}
        while True:
            turn = time.monotonic() + 1.0
            for name, ones in open_at.items():
                first = BEGINNINGS[name] if chats else b""
                await attacker.fill(ones, wanted, attacker.ports[name], first)
                if chats:
                    for one in ones:
                        _say(one, b"1")
            attacker.begun()
            await asyncio.sleep(max(0.1, turn - time.monotonic()))

    return run


async def silent_websockets(attacker: Attacker) -> None:
    """100 WebSockets each at the GUIs' port and the lanterns' page that answer nothing, no ping."""
    wanted = attacker.some(100)
    open_at: dict[str, list[socket.socket]] = {"bartender": [], "lantern-page": []}
    while True:
        for name, ones in open_at.items():
            await attacker.fill(ones, wanted, attacker.ports[name], UPGRADE)
        attacker.begun()
        await asyncio.sleep(0.5)


async def deaf_boards(attacker: Attacker) -> None:
    """50 boards that send one report after the other and read no answer."""

    async def one(number: int) -> None:
        send = 0
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await attacker.stream(attacker.ports["locker"])
                reader.feed_data(b"x" * (4 * READ))  # a full buffer: asyncio reads no more
                attacker.begun()
                try:
                    while True:
                        reports = (_report(f"deaf-{number}", send + n) for n in range(1, 101))
                        writer.write(b"".join(reports))
                        send += 100
                        attacker.did["reports"] += 100
                        async with asyncio.timeout(1.0):
                            await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(one(number) for number in range(attacker.some(50))))


async def byte_by_byte(attacker: Attacker) -> None:
    """64 KiB on each device port, a packet for each byte, of what never becomes complete."""

    async def at(name: str) -> None:
        data = BEGINNINGS[name]
        data += b"1" * (attacker.some(65_536) - len(data))
        with contextlib.suppress(OSError):
            _, writer = await attacker.stream(attacker.ports[name])
            attacker.begun()
            try:
                for number in range(len(data)):
                    if writer.transport.is_closing():
                        break
                    writer.write(data[number : number + 1])
                    attacker.did["bytes"] += 1
                    if number % 16 == 0:
                        await writer.drain()
                        await asyncio.sleep(0)
            finally:
                writer.transport.abort()

    await asyncio.gather(*(at(name) for name in BEGINNINGS))


# MQTT


def flood(messages: Callable[[int], tuple[str, bytes]], count: int, *, qos: int = 1) -> Work:
    """So many messages of two MQTT clients; with QoS 1, 500 of each on their way at once."""

    async def run(attacker: Attacker) -> None:
        left = iter(range(attacker.some(count)))

        async def one() -> None:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await attacker.stream(attacker.ports["mqtt"])
                    try:
                        writer.write(_connect(f"flood-{os.urandom(4).hex()}"))
                        await reader.readexactly(4)
                        attacker.begun()
                        if await _publish(attacker, reader, writer, left, messages, qos):
                            return
                    finally:
                        writer.transport.abort()

        await asyncio.gather(one(), one())

    return run


async def idle_clients(attacker: Attacker) -> None:
    """1,000 MQTT clients that have connected and say nothing more."""
    ones: list[socket.socket] = []
    wanted = attacker.some(1000)
    while True:
        for _ in range(wanted):
            hello = _connect(f"idle-{os.urandom(4).hex()}")
            await attacker.fill(ones, min(wanted, len(ones) + 1), attacker.ports["mqtt"], hello)
        attacker.begun()
        await asyncio.sleep(0.5)


def _invented_report(number: int) -> tuple[str, bytes]:
    board = f"forged-{number}"
    body = json.dumps({"board": board, "boot": 1, "send": 1}).encode()
    return f"patchbay/locker/{board}/event/report", body


def _invented_source(number: int) -> tuple[str, bytes]:
    topic, body = _invented_report(0)
    event = {
        "specversion": "1.0",
        "id": f"forged:{number}",
        "source": f"forged-{number}",
        "type": "patchbay.locker.report",
        "subject": "forged-0",
        "time": "2026-11-20T14:04:49.566Z",
        "sequence": 1,
        "epoch": "forged",
        "data": json.loads(body),
    }
    return topic, json.dumps(event).encode()


def _dead_letter(number: int) -> tuple[str, bytes]:
    service = ("allocator", "bartender", "lantern", "locker", "mesh")[number % 5]
    body = {"id": f"flood-{number}", "reason": "r" * 900, "time": "2026-11-20T14:04:49.566Z"}
    return f"patchbay/dead/{service}", json.dumps({**body, "source": "flood"}).encode()


def _bad_event(number: int) -> tuple[str, bytes]:
    topics = ("locker/z/event/report", "allocator/x/event/requested", "mesh/node-5/event/data")
    return f"patchbay/{topics[number % 3]}", b'{"no": "event", "x": "' + b"x" * 500


def _huge(number: int) -> tuple[str, bytes]:
    topic, _ = _bad_event(number)
    return topic, b'{"board": "' + b"h" * 240_000


ATTACKS: Final = {
    attack.name: attack
    for attack in (
        Attack("1 MB of {}", tiny_objects(1)),
        Attack("5 MB of {}", tiny_objects(5)),
        Attack("100,000 boards at the port", invented_boards, 60),
        Attack("100,000 boards by MQTT", flood(_invented_report, 100_000), 60, rounds=1),
        Attack("100,000 sources by MQTT", flood(_invented_source, 100_000), 60, rounds=1),
        *(Attack(f"36,000 times garbage at {port}", garbage(port), 60) for port in BEGINNINGS),
        Attack("1,000 silent connections", idle(chats=False), 30, amount=False),
        Attack("1,000 chatting connections", idle(chats=True), 30, amount=False),
        Attack("100 silent WebSockets", silent_websockets, 30, amount=False),
        Attack("50 deaf boards", deaf_boards, amount=False),
        Attack("64 KiB byte by byte", byte_by_byte, 30),
        Attack("a flood of dead letters", flood(_dead_letter, 20_000), 60, rounds=1),
        Attack("a flood of bad events", flood(_bad_event, 20_000), 60, rounds=1),
        Attack("huge payloads", flood(_huge, 1_000), 60, rounds=1),
        Attack("a flood of QoS 0", flood(_bad_event, 20_000, qos=0), 60, rounds=1),
        Attack("huge payloads of QoS 0", flood(_huge, 1_000, qos=0), 60, rounds=1),
        Attack("1,000 idle MQTT clients", idle_clients, 30, amount=False),
    )
}


def _report(board: str, send: int) -> bytes:
    return f"ACon_V1.0\nID={board}\nSEND={send}\nCOLS=8\nROWS=8\nCLOSE\n".encode()


def _lives(one: socket.socket) -> bool:
    """Is the connection still open? What it was told is thrown away."""
    try:
        if one.recv(READ):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    one.close()
    return False


def _say(one: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        one.send(data)


def _packet(kind: int, body: bytes) -> bytes:
    """A packet of MQTT 3.1.1."""
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([kind]) + length + body


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _connect(client: str) -> bytes:
    return _packet(0x10, _text("MQTT") + b"\x04\x02\x00\x00" + _text(client))


async def _publish(
    attacker: Attacker,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    left: Iterator[int],
    messages: Callable[[int], tuple[str, bytes]],
    qos: int,
) -> bool:
    """Publish what is left, until all is confirmed."""
    waiting = 0
    for number in left:
        topic, body = messages(number)
        id = (number % 65_535 + 1).to_bytes(2, "big") if qos else b""
        writer.write(_packet(0x30 | qos << 1, _text(topic) + id + body))
        await writer.drain()
        waiting += qos
        attacker.did["messages"] += 1
        if waiting >= 500:
            await reader.readexactly(4 * waiting)  # PUBACK
            waiting = 0
    await reader.readexactly(4 * waiting)
    writer.write(b"\xc0\x00")  # PINGREQ: it is answered behind all that was published
    await reader.readexactly(2)
    return True


async def _run(attack: Attack, attacker: Attacker) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        main = asyncio.current_task()
        assert main is not None
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(LONGEST_S):
            for _ in range(attack.rounds):
                await attack.run(attacker)
                attacker.did["rounds"] += 1
                print("done", flush=True)
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(LONGEST_S)
    print(json.dumps(attacker.did), flush=True)


def main() -> None:
    die_with_parent()
    os.nice(NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    name, share, ports = sys.argv[1:]
    asyncio.run(_run(ATTACKS[name], Attacker(json.loads(ports), float(share))))


if __name__ == "__main__":
    main()
