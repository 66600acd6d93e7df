"""A TCP proxy between a client and its server whose faults are made on purpose.

async with Link("127.0.0.1", mosquitto.port) as link:
    ...  # the client connects to link.port
    link.stall()
    link.resume()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final, Literal, Self

Way = Literal["both", "up", "down"]
"""Up is from the client to the server."""

Direction = Literal["up", "down"]

CHUNK: Final = 65_536
BACKLOG: Final = 512


class Link:
    """One listening port, one target. Everything but starting and closing is synchronous.

    What was read before a stall waits in the link, as it would in a router; the rest waits in the
    sockets' buffers. A stalled link still accepts connections: the kernel does that.
    """

    def __init__(
        self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """``port`` 0: any free one, which `port` tells once the link is entered."""
        self.host = host
        self.port = port
        self.target_host = target_host
        self.target_port = target_port
        self.accepted = 0
        """Connections accepted since the start."""
        self.moved: dict[Direction, int] = {"up": 0, "down": 0}
        """Bytes moved since the start."""
        self._delay_s = 0.0
        self._open: dict[Direction, asyncio.Event] = {
            "up": asyncio.Event(),
            "down": asyncio.Event(),
        }
        self._listener: socket.socket | None = None
        self._listening = False
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._bind()
        self.resume()
        return self

    async def __aexit__(self, *_error: object) -> None:
        ending = [*self._connections.values()]
        self._close_listener()
        self.cut()
        await asyncio.gather(*ending, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def stall(self, way: Way = "both") -> None:
        """Move no byte and no end of stream any more; connections stay open."""
        for direction, gate in self._open.items():
            if way in ("both", direction):
                gate.clear()

    def delay(self, seconds: float) -> None:
        """Hold each piece of data so long before it is passed on."""
        self._delay_s = seconds

    def cut(self) -> None:
        """Reset every connection. New ones are served as before."""
        for connection, task in self._connections.items():
            connection.reset()
            task.cancel()

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as a host without the server does."""
        self._close_listener()
        self._bind()  # bound without listening: the port stays ours
        self.cut()

    def resume(self) -> None:
        """Work again: no stall, no delay, new connections are accepted."""
        self._delay_s = 0.0
        for gate in self._open.values():
            gate.set()
        if self._listener is not None and not self._listening:
            self._listening = True
            self._listener.listen(BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _bind(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _close_listener(self) -> None:
        if self._listener is not None:
            if self._listening:
                asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        self._listener = None
        self._listening = False

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it has gone meanwhile
        client.setblocking(False)
        self.accepted += 1
        connection = self._connection(client)
        task = asyncio.create_task(connection.run(), name="link connection")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def _connection(self, client: socket.socket) -> Connection:
        return Connection(self, client)

    async def let_pass(self, direction: Direction) -> None:
        """Return when a piece of data of this direction may be passed on."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await self._open[direction].wait()


class Connection:
    """A client's connection through the link. `StoreLink` has one that reads what passes."""

    def __init__(self, link: Link, client: socket.socket) -> None:
        self._link = link
        self._client = client
        self._server: socket.socket | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._ended: set[Direction] = set()

    async def run(self) -> None:
        """Carry until both sides have ended, or one has gone."""
        try:
            up = await self._opened(self._client)
            address = (self._link.target_host, self._link.target_port)
            self._server = socket.socket()
            self._server.setblocking(False)
            await asyncio.get_running_loop().sock_connect(self._server, address)
            down = await self._opened(self._server)
            async with asyncio.TaskGroup() as both:
                both.create_task(self.carry("up", up[0], down[1]))
                both.create_task(self.carry("down", down[0], up[1]))
        except* (OSError, EOFError):
            self.reset()
        finally:
            for writer in self._writers:
                writer.close()
            if self._server is not None and len(self._writers) < 2:
                self._server.close()

    async def _opened(
        self, sock: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(sock=sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writers.append(writer)
        return reader, writer

    def reset(self) -> None:
        """Reset both sides, at once."""
        for sock in (self._client, self._server):
            if sock is not None:
                with contextlib.suppress(OSError):  # a reset in the place of a FIN
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        for writer in self._writers:
            writer.transport.abort()
        if not self._writers:
            self._client.close()

    async def carry(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Move bytes in one direction until their end, and pass that end on."""
        while data := await reader.read(CHUNK):
            await self.pass_on(direction, writer, data)
        await self.pass_end(direction, writer)

    async def pass_end(self, direction: Direction, writer: asyncio.StreamWriter) -> None:
        """End a stream as soon as the link lets that pass."""
        await self._link.let_pass(direction)
        self._ended.add(direction)
        writer.write_eof()

    async def pass_on(
        self, direction: Direction, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        """Write data of this direction as soon as the link lets it pass."""
        await self._link.let_pass(direction)
        if direction in self._ended:  # an answer of our own, and the server has gone
            raise EOFError("the other side has ended")
        self._link.moved[direction] += len(data)
        writer.write(data)
        await writer.drain()
