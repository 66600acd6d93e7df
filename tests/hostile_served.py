"""Honest clients of the whole system, and how they are served: `Guests`.

50 boards, 10 lanterns that say nothing, two GUIs that only look, 50 Chromebooks, a program at the
mesh's port, and people who colour the lanterns, order drinks and stop them. What each of them got,
and how long it took, is a `Served`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from websockets.exceptions import InvalidStatus, WebSocketException

from patchbay.bus import Bus
from patchbay.errors import OutcomeUnknown, PatchbayError
from patchbay.messages import encode
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, broker_settings, until
from patchbay.topics import Topics
from patchbay_allocator.simulator import send
from patchbay_allocator.wire.intake import Job
from patchbay_bartender.simulator import Gui
from patchbay_bartender.wire.gui import Stop
from patchbay_lantern.wire import tlv

HOST: Final = "127.0.0.1"
BOARDS: Final = 50
LANTERNS: Final = 10
GUIS: Final = 2
CHROMEBOOKS: Final = 50
RENTED: Final = 5
"""Boards of which a cell is rented: their answers have a code in them."""

CODE: Final = "4711"
COLOR: Final = 0x20
CELLS: Final = "COLS=8\nROWS=1\nACT_CON=11111111\nCLOSE\n"
DRINK: Final = {"cup_size": 0.2, "ratios": {"1": 1.0}}
"""It takes some 43 s: who hears of its end before was told of a stop."""

PERIOD_S: Final = 1.0
"""How often each comes again. 50 Chromebooks come within five times that."""

LOOK_S: Final = 0.1
REFUSED: Final = (OSError, EOFError, ValueError, PatchbayError, WebSocketException)
"""What a client may meet that is not served."""


@dataclass
class Served:
    """One kind of client: how long each was waited for, and what went wrong instead."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    repeated: int = 0
    """How often one was told of an error and asked again."""

    def percentile(self, share: float) -> float:
        """The time within which this share was served; infinite if nothing was."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.inf

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Take the time of what happens here, or what went wrong."""
        began = time.monotonic()
        try:
            yield
        except REFUSED as error:
            self.failures.append(f"after {time.monotonic() - began:.1f} s: {error!r}"[:200])
        else:
            self.seconds.append(time.monotonic() - began)


class Guests:
    """All honest clients of a system. ``async with`` connects those who stay.

    ``ports``: the port of each address name, and of ``mqtt`` and ``mongo``. ``pace``: they come so
    many times as often.
    """

    def __init__(
        self, ports: Mapping[str, int], patience_s: float = PATIENCE_S, *, pace: float = 1.0
    ) -> None:
        self.patience_s = patience_s
        self._ports = ports
        self._period_s = PERIOD_S / pace
        self._served: dict[str, Served] = {}
        self._boards = [_Board(f"honest-{one}", ports["locker"], one) for one in range(BOARDS)]
        self._lanterns = [_Lantern() for _ in range(LANTERNS)]
        self._guis: list[Gui] = []
        self._names = itertools.count(1)
        self._stack = contextlib.AsyncExitStack()
        self._over = asyncio.Event()
        self.bus: Bus
        self.store: Store

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connect(self) -> None:
        stack = self._stack
        settings = broker_settings(self._ports["mqtt"])
        self.bus = Bus(settings, client_id="honest", topics=Topics(), announce=False)
        stack.push_async_callback(self.bus.stop)
        self.bus.start()
        await self.bus.wait_connected(self.patience_s)
        uri = f"mongodb://{HOST}:{self._ports['mongo']}"
        self.store = await stack.enter_async_context(Store(StoreSettings(), uri))
        for _ in range(GUIS):
            gui = Gui(self._ports["bartender"], patience_s=self.patience_s)
            self._guis.append(await stack.enter_async_context(gui))
        for lantern in self._lanterns:
            await lantern.connect(self._ports["lantern"])
            stack.callback(lantern.close)
        for board in self._boards:
            stack.callback(board.close)
            await self._patiently(board.report())
        for board in self._boards[:RENTED]:
            await self._rent(board)

    async def _rent(self, board: _Board) -> None:
        topic = self.bus.topics.command("locker", board.id, "assign")
        body = encode({"cell": 1, "minutes": 600, "code": CODE})
        async with asyncio.timeout(self.patience_s):
            while True:
                answer = json.loads(await self.bus.request(topic, body, timeout_s=self.patience_s))
                if answer["ok"] or answer["error"]["code"] == "cell_busy":  # since the last test
                    break
                if answer["error"]["code"] != "unknown_board":  # its report is on its way
                    raise ValueError(str(answer["error"]))
                await asyncio.sleep(LOOK_S)
            while f",{CODE},".encode() not in await board.report():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        board.rented = True

    async def _patiently(self, work: Awaitable[object]) -> None:
        async with asyncio.timeout(self.patience_s):
            await work

    async def serve(self, over: asyncio.Event) -> dict[str, Served]:
        """Let all of them come again and again until ``over``, each once at least. Who was not
        served is in ``failures``; nothing is raised for that."""
        self._served = {}
        self._over = over
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._chromebooks,
            self._colors,
            self._drinks,
            self._program,
            *(self._reports(board) for board in self._boards),
        ]
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(kind())  # type: ignore[arg-type]  # each is a coroutine
        return self._served

    def _of(self, kind: str) -> Served:
        return self._served.setdefault(kind, Served())

    def _reports(self, board: _Board) -> Callable[[], Awaitable[None]]:
        """A board reports; its answer is right to the byte, and it is never cut off."""

        async def run() -> None:
            served = self._of("board answered")
            await asyncio.sleep(board.number % 10 / 10 * self._period_s)
            while True:
                with served.timed():
                    await self._patiently(board.report())
                if self._over.is_set():
                    return
                await asyncio.sleep(self._period_s)

        return run

    async def _chromebooks(self) -> None:
        """Each hands in a job and leaves. What it was told no error of is in the store at last."""
        served = self._of("job stored")
        waiting: dict[str, float] = {}

        async def hand_in() -> None:
            name = f"honest {next(self._names)} {time.time_ns()}"
            began = time.monotonic()
            try:
                await send(HOST, self._ports["allocator"], Job("honest", name, "00ff00"))
            except OSError as error:
                served.failures.append(f"not handed in: {error!r}")
            waiting[name] = began

        async def all_come() -> None:
            while True:
                for _ in range(CHROMEBOOKS):
                    await hand_in()
                    await asyncio.sleep(5 * self._period_s / CHROMEBOOKS)
                if self._over.is_set():
                    return

        coming = asyncio.ensure_future(all_come())
        while waiting or not coming.done():
            query = {"data.CustomerName": {"$in": list(waiting)}}
            for job in await self.store.find("jobs", query) if waiting else ():
                served.seconds.append(time.monotonic() - waiting.pop(job["data"]["CustomerName"]))
            if waiting and time.monotonic() - min(waiting.values()) > self.patience_s:
                served.failures += [f"lost: {name}" for name in waiting]
                break
            await asyncio.sleep(LOOK_S)
        await coming

    async def _colors(self) -> None:
        """Somebody colours the lanterns; all of them obey, on the connections that they have."""
        served = self._of("lanterns obey")
        while True:
            color = (next(self._names) * 7_919) % 0x1000000
            with served.timed():
                await self._patiently(self._color(color))
            if self._over.is_set():
                return
            await asyncio.sleep(self._period_s)

    async def _color(self, color: int) -> None:
        body = {"method": "message", "params": {"command": "COLOR", "value": f"{color:06x}"}}
        while not await _accepts(self._ports["lantern-api"], json.dumps(body).encode()):
            self._of("lanterns obey").repeated += 1
            await asyncio.sleep(LOOK_S)
        frame = tlv.Frame(COLOR, color.to_bytes(3, "big"))
        for lantern in self._lanterns:
            await lantern.hears(frame)

    async def _drinks(self) -> None:
        """Somebody orders a drink and both GUIs are told; somebody else stops it."""
        while True:
            before = [len(gui.statuses) for gui in self._guis]
            with self._of("GUIs told").timed():
                await self._patiently(self._order(before))
            before = [len(gui.statuses) for gui in self._guis]
            with self._of("stop takes effect").timed():
                await self._patiently(self._stop(before))
            if self._over.is_set():
                return
            await asyncio.sleep(self._period_s)

    async def _order(self, before: list[int]) -> None:
        topic = self.bus.topics.command("bartender", "bar", "blend")
        while True:
            try:
                answer = json.loads(
                    await self.bus.request(topic, encode(DRINK), timeout_s=5.0, actuates=True)
                )
            except OutcomeUnknown:
                break
            if answer["ok"]:
                break
            if answer["error"]["code"] != "busy":
                raise ValueError(str(answer["error"]))
            await asyncio.sleep(LOOK_S)
        await self._told(before, lambda remaining: remaining > 0)

    async def _stop(self, before: list[int]) -> None:
        while True:
            try:
                async with Gui(self._ports["bartender"]) as gui:
                    await gui.say(Stop())
                    await self._told(before, lambda remaining: remaining == 0)
                break
            except InvalidStatus:  # told that there is no room: one tries again
                self._of("stop takes effect").repeated += 1
                await asyncio.sleep(LOOK_S)
        if min(gui.statuses[-2] for gui in self._guis) < 2:
            raise ValueError("the drink was at its end before it was stopped")

    async def _told(self, before: list[int], such: Callable[[int], bool]) -> None:
        def told() -> bool:
            return all(
                any(such(one) for one in gui.statuses[since:])
                for gui, since in zip(self._guis, before, strict=True)
            )

        await until(told, self.patience_s)

    async def _program(self) -> None:
        """A program asks the mesh for all that its nodes have said last."""
        served = self._of("mesh answers")
        while True:
            with served.timed():
                await self._patiently(self._ask_mesh())
            if self._over.is_set():
                return
            await asyncio.sleep(self._period_s)

    async def _ask_mesh(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._ports["mesh"])
        try:
            writer.write(b"[GET]GPS\0\0")
            if await reader.readexactly(4) != b"SGPS":
                raise ValueError("no values")
        finally:
            writer.close()


class _Board:
    """A board, by the byte. Every other one keeps its connection, which must not be closed."""

    def __init__(self, id: str, port: int, number: int) -> None:
        self.id = id
        self.number = number
        self.rented = False
        self._port = port
        self._keeps = number % 2 == 0
        self._send = 0
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def report(self) -> bytes:
        """Report once, and return the answer. Raises ValueError if it is not the right one."""
        self._send += 1
        text = f"ACon_V1.0\nID={self.id}\nSEND={self._send}\nRESET={int(self._send == 1)}\n{CELLS}"
        try:
            if self._connection is None:
                self._connection = await asyncio.open_connection(HOST, self._port)
            reader, writer = self._connection
            writer.write(text.encode())
            answer = await reader.readuntil(b"CLOSE\n")
        except BaseException:
            self.close()
            raise
        if not self._keeps:
            self.close()
        code = rf"BOX_ENG=\(1,{CODE},\d+\)\n" if self.rented else r"(BOX_ENG=\(1,4711,\d+\)\n)?"
        right = rf"ACon_V1\.0\nID={self.id}\nSEND={self._send}\nRESET=0\nSTATE=0\n{code}CLOSE\n"
        if not re.fullmatch(right, answer.decode()):
            raise ValueError(f"a wrong answer to SEND={self._send}: {answer!r}")
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


class _Lantern:
    """A lantern: it says nothing, and has one connection for ever."""

    def __init__(self) -> None:
        self._decoder = tlv.Decoder()

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(HOST, port)

    async def hears(self, frame: tlv.Frame) -> None:
        """Wait until it is told this. Raises ConnectionError if it was cut off."""
        while data := await self._reader.read(4096):
            if frame in self._decoder.feed(data):
                return
        raise ConnectionError("a lantern was cut off")

    def close(self) -> None:
        self._writer.close()


async def _accepts(port: int, body: bytes) -> bool:
    """POST to the lanterns' API; False for 503 and 504: it says itself that one may ask again.
    Raises ValueError for any other answer but 200."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status = await reader.readuntil(b"\r\n")
    finally:
        writer.close()
    code = status.split()[1]
    if code not in (b"200", b"503", b"504"):
        raise ValueError(status.decode().strip())
    return code == b"200"
