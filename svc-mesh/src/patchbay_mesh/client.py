r"""A client of the socket API, for programs of others. It needs nothing but Python.

    from patchbay_mesh.client import MeshClient

    mesh = MeshClient("192.168.1.20")
    mesh.get("GPS", 5)                      # b'\x02\xf0\x01\xbe\x92\x00'
    mesh.get_all("GPS")                     # {5: b'...', 6: b'...'}
    mesh.send(5, b"hi")
    with mesh.subscribe("[M]", lambda message: print(message.node, message.payload)):
        ...

Every call makes a connection of its own, so a `MeshClient` may be used from several threads. A
subscription has a thread and one connection, which it makes again for ever.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

__all__ = ["MeshClient", "MeshError", "Message", "NotAnswered", "Refused", "Subscription"]

PORT: Final = 5001
TIMEOUT_S: Final = 10.0
"""The service itself waits five seconds for the root."""

RECONNECT_S: Final = (0.2, 5.0)
"""The first pause before a subscription connects again, doubled each time, and the longest."""

MAX_MESSAGE: Final = 255
REQUEST: Final = "<Q>"

END_MARK: Final = b"[E]"
"""What ends a request, unless the service is set up otherwise: a message cannot contain it."""

KEEPALIVE_S: Final = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""A service that has vanished without a word is found after a minute, where the system can be told
so; elsewhere after hours."""

_log = logging.getLogger(__name__)

_LISTEN: Final = b"[syn]\x01"
_LISTENING: Final = b"[ack]\x00"
_REQUEST_PREFIX: Final = b"[REQ]"


class MeshError(Exception):
    """The root of the errors of this module."""


class NotAnswered(MeshError):
    """The service is not there, or sent no answer in time, or an invalid one. What was to be sent
    to a node may have been sent, or not."""


class Refused(MeshError):
    """The service refuses; the text is its reason, such as ``Node Not Found``. What was to be sent
    to a node was not sent, and never will be."""


@dataclass(frozen=True)
class Message:
    """What a node has said.

    ``type`` has three letters, each a byte (Latin-1): ``[M]``, ``RST``; ``<Q>`` is a request, to be
    answered with `MeshClient.respond`. ``payload`` is what followed; of ``[M]`` without its length.
    """

    node: int
    type: str
    payload: bytes


class MeshClient:
    """Asks one mesh service. ``timeout_s`` is for each call, in seconds."""

    def __init__(self, host: str = "127.0.0.1", port: int = PORT, timeout_s: float = TIMEOUT_S):
        self.host = host
        self.port = port
        self.timeout_s = timeout_s

    def get(self, data_type: str, node: int) -> bytes:
        """The latest value of this type of a node. Raises Refused (``Node Not Found``, ``Data Type
        Not Found``), NotAnswered, and ValueError for what is no type or no node."""
        if node == 0:
            raise ValueError("0 is no node: see get_all")
        return self._values(data_type, node)[node]

    def get_all(self, data_type: str) -> dict[int, bytes]:
        """The latest values of this type of all active nodes, by address; empty if none has it.

        Nodes whose value has another length than the newest are left out. Raises NotAnswered.
        """
        try:
            return self._values(data_type, 0)
        except Refused as error:
            if str(error) == "Data Type Not Found":
                return {}
            raise

    def send(self, node: int, message: bytes) -> None:
        """Send a message of at most 255 bytes to a node. Raises Refused (``Serial Not Ready``) and
        NotAnswered; then it may have been sent. Raises ValueError for a message that is too long or
        contains the end of a request, ``[E]``."""
        self._command(b"SEND-" + _address(node) + _short(message, MAX_MESSAGE))

    def broadcast(self, message: bytes) -> None:
        """Send a message of at most 255 bytes to all nodes. Raises as `send`."""
        self._command(b"BCAST" + _address(0) + _short(message, MAX_MESSAGE))

    def respond(self, node: int, payload: bytes) -> None:
        """Answer a node's request (a `Message` of type ``<Q>``); at most 252 bytes. Raises as
        `send`."""
        self._command(_REQUEST_PREFIX + _address(node) + _short(payload, MAX_MESSAGE - 3))

    def active_count(self) -> int:
        """How many nodes are active; 255 also for more. Raises NotAnswered."""
        answer = self._ask(b"ACT-C")
        if len(answer) != 1:
            raise NotAnswered(f"no number of nodes: {answer!r}")
        return answer[0]

    def status(self) -> dict[int, bool]:
        """Every node that is known: is it active? Raises NotAnswered."""
        answer = self._ask(b"NSTAT")
        try:
            said = json.loads(answer)
            pairs = zip(said["node_addr_list"], said["node_status_list"], strict=True)
            return {int(node): bool(active) for node, active in pairs}
        except (ValueError, KeyError, TypeError) as error:
            raise NotAnswered(f"no status: {answer[:80]!r}") from error

    def subscribe(
        self,
        msg_type: str | None,
        callback: Callable[[Message], None],
        on_connection: Callable[[bool], None] | None = None,
    ) -> Subscription:
        """Call ``callback`` with each message of this type, or of every type if it is None.

        It is called in the subscription's own thread. ``on_connection`` hears there of each
        connection, and of its end: what nodes say in between is not heard. What either raises is
        logged. Close the subscription, or use it as a context manager.
        """
        if msg_type is not None:
            _type(msg_type)
        return Subscription(self, msg_type, callback, on_connection)

    # Details

    def connect(self) -> socket.socket:
        """A connection to the service. Raises NotAnswered."""
        try:
            return socket.create_connection((self.host, self.port), timeout=self.timeout_s)
        except OSError as error:
            raise NotAnswered(f"{self.host}:{self.port}: {error}") from error

    def _values(self, data_type: str, node: int) -> dict[int, bytes]:
        kind = _type(data_type)
        answer = self._ask(b"[GET]" + kind + _address(node))
        size, count = (answer[3], answer[4]) if len(answer) >= 5 else (0, 0)
        if answer[:3] != kind or len(answer) != 5 + count * (2 + size):
            raise NotAnswered(f"no values: {answer[:80]!r}")
        steps = range(5, len(answer), 2 + size)
        return {_number(answer[at : at + 2]): answer[at + 2 : at + 2 + size] for at in steps}

    def _command(self, request: bytes) -> None:
        if END_MARK in request:
            raise ValueError(f"a message with {END_MARK!r}: these bytes end a request")
        if self._ask(request):
            raise NotAnswered("more than a yes")

    def _ask(self, request: bytes) -> bytes:
        """Ask, and what stands behind the yes. Raises Refused and NotAnswered."""
        with self.connect() as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)  # it is whole: nobody has to wait for more
                parts = []
                while part := connection.recv(65_536):
                    parts.append(part)
            except OSError as error:
                raise NotAnswered(f"{self.host}:{self.port}: {error}") from error
        answer = b"".join(parts)
        if answer[:1] == b"S":
            return answer[1:]
        if answer[:1] == b"F" and len(answer) >= 2 and len(answer) == 2 + answer[1]:
            raise Refused(answer[2:].decode("utf-8", "replace"))
        raise NotAnswered(f"no answer: {answer[:80]!r}")


class Subscription:
    """Listens until it is closed, and connects again whenever the connection is gone."""

    def __init__(
        self,
        client: MeshClient,
        msg_type: str | None,
        callback: Callable[[Message], None],
        on_connection: Callable[[bool], None] | None,
    ) -> None:
        self._client = client
        self._type = msg_type
        self._callback = callback
        self._on_connection = on_connection
        self._closed = threading.Event()
        self._connected = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="mesh subscription", daemon=True)
        self._thread.start()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Does it listen now?"""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float | None = None) -> bool:
        """Wait until it listens; False if it does not after ``timeout_s`` seconds."""
        return self._connected.wait(timeout_s)

    def close(self) -> None:
        """Listen no more. No callback runs after it, unless it is one that calls this."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        pause_s, longest_s = RECONNECT_S
        while not self._closed.is_set():
            try:
                with self._client.connect() as connection:
                    self._connection = connection
                    if not self._closed.is_set():
                        self._listen(connection)
            except (MeshError, OSError):
                pass  # the service is away: try again
            finally:
                self._connection = None
                if self._connected.is_set():
                    pause_s = RECONNECT_S[0]
                    self._connected.clear()
                    self._tell(False)
            self._closed.wait(pause_s)
            pause_s = min(pause_s * 2, longest_s)

    def _listen(self, connection: socket.socket) -> None:
        connection.sendall(_LISTEN)
        stream = connection.makefile("rb")
        if stream.read(len(_LISTENING)) != _LISTENING:
            raise NotAnswered("the service does not let us listen")
        connection.settimeout(None)
        _notice_power_cuts(connection)
        _leave_by_reset(connection)
        self._connected.set()
        self._tell(True)
        while not self._closed.is_set():
            head = stream.read(2)
            content = stream.read(_number(head)) if len(head) == 2 else b""
            if len(content) < 2:
                return
            message = _message(content)
            if not self._closed.is_set() and self._type in (None, message.type):
                self._call(self._callback, message)

    def _tell(self, connected: bool) -> None:
        if self._on_connection is not None:
            self._call(self._on_connection, connected)

    @staticmethod
    def _call(callback: Callable[[Any], None], said: object) -> None:
        try:
            callback(said)
        except Exception:  # the caller's own mistake must not end the subscription
            _log.exception("a callback of the mesh subscription failed")


def _notice_power_cuts(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_S.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leave_by_reset(connection: socket.socket) -> None:
    """However it is closed, the service knows at once that we have left: an end in good order is
    what also somebody sends who has said all and listens on."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _message(content: bytes) -> Message:
    if content.startswith(_REQUEST_PREFIX):
        return Message(_number(content[5:7]), REQUEST, content[7:])
    kind, payload = content[2:5], content[5:]
    if kind == b"[M]" and payload and payload[0] == len(payload) - 1:
        payload = payload[1:]
    return Message(_number(content[:2]), kind.decode("latin-1"), payload)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _address(node: int) -> bytes:
    if not 0 <= node <= 0xFFFF:
        raise ValueError(f"{node} is no address of a node")
    return node.to_bytes(2, "big")


def _type(name: str) -> bytes:
    kind = name.encode("latin-1")
    if len(kind) != 3:
        raise ValueError(f"{name!r}: a type has three letters")
    return kind


def _short(message: bytes, limit: int) -> bytes:
    if len(message) > limit:
        raise ValueError(f"a message of {len(message)} bytes: at most {limit}")
    return message
