"""The serial port of the root. It may be absent, unplugged and plugged again: we open it for ever.

    tty, pseudo-terminal, socket://   the loop reads and writes its descriptor
    anything else (rfc2217://, ...)   a thread reads; writes go to another

What was queued for the root is written, or refused and never written, or cut off while it was
being written: `Line.send` says which.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
import termios
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

import serial
import structlog

from patchbay.errors import Unavailable
from patchbay.sockets import find_dead
from patchbay.tasks import Tasks

READ_BYTES: Final = 4096
"""Read at a time, as much as a kernel holds for a serial port: no more frames than this are taken
in one turn of the loop, also from a root at the end of a TCP connection."""

THREAD_READS: Final = 8
"""What a thread has read and the loop has not taken yet: then the thread waits."""

THREAD_POLL_S: Final = 0.5
"""How long a thread waits for a byte before it looks whether it is still wanted."""

FAILURES: Final = (OSError, ValueError, serial.SerialException, termios.error)
"""How a port says that it is not there, or not any more. An adapter that is pulled out while it is
set up says it with an error of its own."""

SAME: Final = 0.9
"""A connection that held for this part of its pause begins with a short one again."""


class Owner(Protocol):
    """Who is told what happens on the line. Called in the loop; must not block."""

    def opened(self) -> None:
        """The port is there."""

    def closed(self, why: str) -> None:
        """It is gone; what was queued has been refused."""

    def received(self, data: bytes) -> None:
        """Bytes came."""


class NotReady(Unavailable):
    """The port is not open, was lost, or takes nothing: not a byte was written, nor will be."""


class CutOff(Unavailable):
    """The port was lost while it was being written: the root may have it, or a part of it."""


class _Port(Protocol):
    """An open port."""

    def write(self, data: bytes) -> int:
        """Write what it takes now, and say how much. Raises OSError; BlockingIOError: nothing."""

    def wait_writable(self) -> None:
        """Call the line's `_writable` when it takes something again."""

    def close(self) -> None:
        """Let it go. Harmless when said twice."""


@dataclass(slots=True)
class _Waiting:
    """What waits to be written. ``before``: monotonic time after which it is not begun."""

    data: bytes
    before: float
    written: asyncio.Future[None]
    begun: bool = False

    def refuse(self, why: str) -> None:
        if not self.written.done():
            self.written.set_exception(CutOff(why) if self.begun else NotReady(why))


class Line:
    """One port, by any pyserial URL. `run` it; times are seconds.

    ``dtr``, ``rts``: whether these lines are asserted while the port is open. ``dead_after_s``: a
    peer of a TCP connection that has vanished without FIN or reset is found within so long.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        baud: int,
        *,
        reconnect_s: tuple[float, float],
        write_timeout_s: float,
        write_queue: int,
        dead_after_s: int,
        dtr: bool = True,
        rts: bool = True,
    ) -> None:
        self.url = url
        self.losses = 0
        """How often an open port was lost."""
        self._owner = owner
        self._baud = baud
        self._reconnect_s = reconnect_s
        self._write_timeout_s = write_timeout_s
        self._write_queue = write_queue
        self._dead_after_s = dead_after_s
        self._dtr = dtr
        self._rts = rts
        self._loop = asyncio.get_running_loop()
        self._port: _Port | None = None
        self._lost = asyncio.Event()
        self._why = ""
        self._queue: deque[_Waiting] = deque()
        self._log = structlog.get_logger("line").bind(port=url)

    @property
    def ready(self) -> bool:
        """Is the port open?"""
        return self._port is not None

    async def run(self) -> None:
        """Open the port, and again whenever it is lost; pauses double up to the longest. Ends when
        cancelled."""
        first, longest = self._reconnect_s
        pause, said = first, ""
        try:
            while True:
                try:
                    port = await self._open()
                except FAILURES as error:
                    if str(error) != said:
                        said = str(error)
                        self._log.warning("port not open", why=said)
                else:
                    said = ""
                    since = self._loop.time()
                    await self._use(port)
                    if self._loop.time() - since > pause * SAME:
                        pause = first
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
        finally:
            self.lose("the unit stops")

    async def send(self, data: bytes, start_within_s: float = math.inf) -> None:
        """Write to the root; returns when the port has taken it all.

        Raises NotReady when not a byte was written, also if the port has not begun to take it
        within ``start_within_s``, by the clock at that moment. Raises CutOff when some may have
        been written.
        """
        if self._port is None:
            raise NotReady(f"{self.url} is not open")
        if len(self._queue) >= self._write_queue:
            raise NotReady(f"{len(self._queue)} commands wait for {self.url}")
        one = _Waiting(data, time.monotonic() + start_within_s, self._loop.create_future())
        self._queue.append(one)
        if len(self._queue) == 1:
            self._writable()
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await asyncio.shield(one.written)
        except TimeoutError:
            if one.written.done():
                return one.written.result()
            if self._queue and self._queue[0] is one and one.begun:
                # A part of it may be out, and nothing can follow that: open the port anew.
                self.lose("it takes nothing")
                return one.written.result()
            self._queue = deque(other for other in self._queue if other is not one)
            raise NotReady(f"{self.url} takes nothing") from None
        except asyncio.CancelledError:
            if not one.begun:
                self._queue = deque(other for other in self._queue if other is not one)
            raise

    def lose(self, why: str) -> None:
        """The port is gone, or is given up: refuse what waits."""
        port, self._port = self._port, None
        if port is None:
            return
        port.close()
        self._why = why
        self.losses += 1
        queue, self._queue = self._queue, deque()
        for one in queue:
            one.refuse(f"{self.url} was lost: {why}")
        self._owner.closed(why)
        self._lost.set()

    # Details

    async def _open(self) -> _Port:
        """The port. Raises one of `FAILURES`."""
        opened = await asyncio.to_thread(self._open_url)
        connection = getattr(opened, "_socket", None)
        if isinstance(connection, socket.socket):
            find_dead(connection, self._dead_after_s)
        descriptor = _descriptor(opened)
        if descriptor is None:
            return _ThreadPort(self, opened, self._loop)
        try:
            return _LoopPort(self, opened, descriptor, self._loop)
        except FAILURES:
            opened.close()
            raise

    def _open_url(self) -> Any:
        """The port as pyserial opens it, locked, with DTR and RTS as they were asked for."""
        port = serial.serial_for_url(
            self.url,
            do_not_open=True,
            baudrate=self._baud,
            timeout=THREAD_POLL_S,
            exclusive=True,
        )
        port.rts = self._rts
        try:
            port.open()
        except serial.SerialException as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and "lock" in str(error):
                raise serial.SerialException(
                    f"{self.url} is in use by another process, which holds its lock"
                ) from error
            raise
        if not self._dtr:
            # Not before RTS: a board that restarts by RTS alone (as the ESP32's usual circuit does)
            # must not see it alone for a moment. Opening a port asserts both, on Linux always.
            try:
                port.dtr = False
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTTY):  # a pseudo-terminal has none
                    port.close()
                    raise
        return port

    async def _use(self, port: _Port) -> None:
        self._lost.clear()
        self._port = port
        self._log.info("port open")
        self._owner.opened()
        await self._lost.wait()
        self._log.warning("port lost", why=self._why)

    def _received(self, data: bytes) -> None:
        if self._port is not None:
            self._owner.received(data)

    def _writable(self) -> None:
        """Write what waits, as much as the port takes."""
        while self._queue and self._port is not None:
            one = self._queue[0]
            if not one.begun and time.monotonic() >= one.before:
                self._queue.popleft()
                one.refuse("its time was over before it could be written")
                continue
            try:
                taken = self._port.write(one.data)
                one.begun = True
            except BlockingIOError:
                taken = 0
            except (OSError, serial.SerialException) as error:
                self.lose(str(error))
                return
            if taken < len(one.data):
                one.data = one.data[taken:]
                self._port.wait_writable()
                return
            self._queue.popleft()
            if not one.written.done():
                one.written.set_result(None)


class _LoopPort:
    """A port with a descriptor that the loop can wait for."""

    def __init__(
        self, line: Line, opened: Any, descriptor: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._line = line
        self._opened = opened
        self._descriptor = descriptor
        self._loop = loop
        self._open = True
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._readable)

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def wait_writable(self) -> None:
        self._loop.add_writer(self._descriptor, self._writable)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            with contextlib.suppress(*FAILURES):
                self._opened.close()

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._line._writable()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:  # the other end of a pseudo-terminal, or the adapter, is gone
            self._line.lose(os.strerror(error.errno) if error.errno else str(error))
            return
        if data:
            self._line._received(data)
        else:
            self._line.lose("it was unplugged")


class _ThreadPort:
    """A port that only blocks: a thread reads it, and another writes."""

    def __init__(self, line: Line, opened: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._opened = opened
        self._loop = loop
        self._open = True
        self._writing: asyncio.Task[None] | None = None
        self._tasks = Tasks(f"port {line.url}", lambda error, _: line.lose(repr(error)))
        self._taken = 0
        self._room = threading.Semaphore(THREAD_READS)
        threading.Thread(target=self._read, name=f"reader of {line.url}", daemon=True).start()

    def write(self, data: bytes) -> int:
        if self._writing is None:
            self._writing = self._tasks.spawn(self._write(data), "write")
            return 0
        self._writing, taken, self._taken = None, self._taken, 0
        return taken

    def wait_writable(self) -> None:
        """The thread that writes says so."""

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.run_in_executor(None, self._close)

    async def _write(self, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._opened.write, data)
        except FAILURES as error:
            if self._open:
                self._line.lose(str(error))
            return
        self._taken = len(data)
        if self._open:
            self._line._writable()

    def _close(self) -> None:
        with contextlib.suppress(*FAILURES):
            self._opened.close()

    def _read(self) -> None:
        while self._open:
            if not self._room.acquire(timeout=THREAD_POLL_S):
                continue
            try:
                data = self._opened.read(max(1, min(READ_BYTES, self._opened.in_waiting)))
            except Exception as error:  # the outermost frame of this thread
                self._loop.call_soon_threadsafe(self._failed, str(error))
                return
            self._loop.call_soon_threadsafe(self._received, data)

    def _received(self, data: bytes) -> None:
        self._room.release()
        if data:
            self._line._received(data)

    def _failed(self, why: str) -> None:
        if self._open:
            self._line.lose(why)


def _descriptor(opened: Any) -> int | None:
    try:
        return int(opened.fileno())
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is both of the last
        return None
